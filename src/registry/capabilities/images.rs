//! Trials with manifests: images, indexes, artifacts; and the order of all that writes.

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::Examination;
use super::bench::{Answer, Bench, Trouble};
use super::sample::{Piece, Sample};
use crate::registry::manifests::{ACCEPTED, content_digest};

/// What is not tried when pushing does not work at all.
const BEHIND_PUSH: [&str; 9] = [
    "chunked-upload",
    "upload-cancel",
    "mount",
    "oci-manifest",
    "tag-digest",
    "zstd-layers",
    "oci-index",
    "artifacts",
    "oci-subject",
];

impl Bench<'_> {
    /// Tries all that writes, and deletes what was written; tells whether images can be pushed.
    pub(super) async fn try_writing(&self, seen: &mut Examination) -> bool {
        let sample = match Sample::new(&self.token) {
            Ok(sample) => sample,
            Err(error) => return seen.note("push", Err(error.into())),
        };
        let pushed = match self.open().await {
            Ok((session, _)) => {
                seen.note("push", Ok("allowed".into()));
                let sent = self.send_whole(session, &sample.config).await;
                seen.note("monolithic-upload", sent.map(|()| "a blob in one piece".into()))
            }
            Err(trouble) => {
                seen.note("push", Err(trouble));
                seen.note("monolithic-upload", Err(Trouble::unknown("not tried")))
            }
        };
        if !pushed {
            for name in BEHIND_PUSH {
                seen.note(name, Err(Trouble::unknown("not tried")));
            }
            seen.note("referrers-api", self.referrers_api(None).await);
            return false;
        }
        seen.note("chunked-upload", self.chunked().await);
        seen.note("upload-cancel", self.cancelled().await);
        seen.note("mount", self.mounted(&sample.config).await);
        let pushed = self.try_manifests(&sample, seen).await;
        self.clean(seen).await;
        pushed
    }

    async fn try_manifests(&self, sample: &Sample, seen: &mut Examination) -> bool {
        let manifest = match sample.manifest(&sample.gzip) {
            Ok(manifest) => manifest,
            Err(error) => return seen.note("oci-manifest", Err(error.into())),
        };
        let taken = self.image(sample, &manifest).await;
        let pushed = seen.note("oci-manifest", taken);
        seen.note(
            "tag-digest",
            if pushed { self.tag_digest(&manifest).await } else { Err(Trouble::unknown("not tried")) },
        );
        seen.note("zstd-layers", self.zstd(sample).await);
        let index = self.index(&manifest).await;
        seen.note("oci-index", index.map(|_| "taken".into()));
        self.try_artifacts(&manifest, seen).await;
        pushed
    }

    /// Pushes a manifest, under a tag or by its digest.
    pub(super) async fn put_manifest(&self, piece: &Piece, tag: Option<&str>) -> Result<Answer, Trouble> {
        let digest = piece.digest();
        let name = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(piece.media_type))]);
        let path = format!("manifests/{name}");
        let answer = self.ask(&self.place, Method::PUT, &path, headers, piece.bytes.clone()).await?;
        let answer = answer.expect(&[200, 201, 202])?;
        self.wrote_manifest(&self.place, digest);
        Ok(answer)
    }

    async fn image(&self, sample: &Sample, manifest: &Piece) -> Result<String, Trouble> {
        self.put_blob(&sample.gzip).await?;
        self.put_manifest(manifest, Some(&self.tag())).await?;
        Ok("taken, under a tag".into())
    }

    async fn tag_digest(&self, manifest: &Piece) -> Result<String, Trouble> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(ACCEPTED))]);
        let path = format!("manifests/{}", self.tag());
        let answer = self.ask(&self.place, Method::HEAD, &path, headers, Vec::new()).await?.expect(&[200])?;
        match content_digest(&answer.headers) {
            Some(digest) if digest == manifest.digest() => Ok("HEAD tells the digest of a tag".into()),
            Some(digest) => Err(Trouble::no(format!("HEAD tells another digest: {digest}"))),
            None => Err(Trouble::no("HEAD does not tell the digest of a tag")),
        }
    }

    async fn zstd(&self, sample: &Sample) -> Result<String, Trouble> {
        self.put_blob(&sample.zstd).await?;
        self.put_manifest(&sample.manifest(&sample.zstd)?, None).await?;
        Ok("taken".into())
    }

    async fn index(&self, manifest: &Piece) -> Result<Answer, Trouble> {
        self.put_manifest(&Sample::index(manifest)?, None).await
    }
}
