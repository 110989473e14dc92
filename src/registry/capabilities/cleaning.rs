//! Deleting what was written for trial.

use std::sync::PoisonError;

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::Examination;
use super::bench::{Bench, Trouble};
use crate::registry::transport::Place;
use crate::util::Digest;

/// Something that was written.
pub(super) struct Written {
    place: Place,
    kind: Kind,
    digest: Digest,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Manifest,
    Blob,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Blob => "blob",
        }
    }
}

impl Bench<'_> {
    pub(super) fn wrote_blob(&self, place: &Place, digest: Digest) {
        self.wrote(place, Kind::Blob, digest);
    }

    pub(super) fn wrote_manifest(&self, place: &Place, digest: Digest) {
        self.wrote(place, Kind::Manifest, digest);
    }

    fn wrote(&self, place: &Place, kind: Kind, digest: Digest) {
        let written = Written { place: place.clone(), kind, digest };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(written);
    }

    /// Deletes all that was written: manifests, what refers to others first, then blobs. Notes what stays.
    pub(super) async fn clean(&self, seen: &mut Examination) {
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        for (kind, name) in [(Kind::Manifest, "delete-manifest"), (Kind::Blob, "delete-blob")] {
            let mut outcome = Err(Trouble::unknown("not tried"));
            for item in written.iter().rev().filter(|item| item.kind == kind) {
                let Written { place, digest, .. } = item;
                let path = format!("{}s/{digest}", kind.name());
                let answer = self.ask(place, Method::DELETE, &path, HeaderMap::new(), Vec::new()).await;
                let deleted = answer.and_then(|answer| answer.expect(&[200, 202, 204, 404]));
                if deleted.is_err() {
                    seen.left.push(format!("the {} {digest} in `{}`", kind.name(), place.scope.repository));
                }
                // The first that does not work says more than all that do.
                if outcome.as_ref().is_ok() || matches!(&outcome, Err(trouble) if trouble.detail == "not tried") {
                    outcome = deleted.map(|_| "works".to_owned());
                }
            }
            seen.note(name, outcome);
        }
    }
}
