//! Bases in a registry: manifest and config are read, the layers stay where they are.

use std::path::Path;

use super::document::{Document, choose};
use super::{Base, check_size, digest_of, from_manifest, verify};
use crate::image::{Fetch, Fetched};
use crate::model::{BlobSource, Platform};
use crate::util::{Digest, Error, Limit, Result, files};

/// Indexes within indexes that are followed.
const DEPTH: usize = 4;

pub(super) async fn open(reference: &str, platform: &Platform, fetch: &dyn Fetch) -> Result<Base> {
    let mut pinned = reference.to_owned();
    for _ in 0..DEPTH {
        let fetched = manifest(&pinned, fetch).await?;
        match Document::parse(&fetched.bytes)? {
            Document::Index(index) => {
                let chosen = choose(&index.manifests().iter().collect::<Vec<_>>(), platform)?;
                pinned = with_digest(reference, &digest_of(chosen)?);
            }
            Document::Manifest(manifest) => {
                let pinned = with_digest(reference, &fetched.digest);
                let digest = digest_of(manifest.config())?;
                check_size(manifest.config().size(), "its config")?;
                let path = fetch.blob(&pinned, &digest, manifest.config().size()).await?;
                let config = read_verified(&path, &digest)?;
                let source = |_: &Digest, _| Ok(BlobSource::Registry(pinned.clone()));
                let base = from_manifest((fetched.bytes, &manifest), config, platform, source)?;
                return Ok(Base { reference: without_digest(reference).to_owned(), ..base });
            }
        }
    }
    Err(Error::user("its indexes name one another and no image"))
}

/// Fetches a manifest; what is served must be what its digest and the reference say.
async fn manifest(reference: &str, fetch: &dyn Fetch) -> Result<Fetched> {
    let fetched = fetch.manifest(reference).await?;
    check_size(fetched.bytes.len() as u64, "its manifest")?;
    let what = format!("the manifest of `{reference}`");
    verify(&fetched.bytes, &fetched.digest, &what)?;
    if let Some((_, digest)) = reference.split_once('@') {
        verify(&fetched.bytes, &digest.parse()?, &what)?;
    }
    Ok(fetched)
}

fn read_verified(path: &Path, digest: &Digest) -> Result<Vec<u8>> {
    let bytes = files::read_limited(path, Limit::ImageDocument)?;
    verify(&bytes, digest, "its config")?;
    Ok(bytes)
}

/// `HOST/REPOSITORY[:TAG]` of `HOST/REPOSITORY[:TAG][@DIGEST]`.
fn without_digest(reference: &str) -> &str {
    reference.split_once('@').map_or(reference, |(name, _)| name)
}

/// The reference to a manifest by its digest; the tag goes, since some registries take only one of the two.
fn with_digest(reference: &str, digest: &Digest) -> String {
    let name = without_digest(reference);
    let repository = match name.rsplit_once(':') {
        // A colon before a slash is that of the host's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    };
    format!("{repository}@{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_pinned() {
        let digest = Digest::of(b"");
        for (reference, expected) in [
            ("docker.io/library/debian:12-slim", "docker.io/library/debian"),
            ("localhost:5000/team/base", "localhost:5000/team/base"),
            ("localhost:5000/team/base:1", "localhost:5000/team/base"),
            ("host/base:1@sha256:00", "host/base"),
        ] {
            assert_eq!(with_digest(reference, &digest), format!("{expected}@{digest}"));
        }
        assert_eq!(without_digest("host/base:1@sha256:00"), "host/base:1");
    }
}
