//! Trials with blobs: uploads in one piece and in chunks, broken off, and mounts.

use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use url::Url;

use super::bench::{Bench, Trouble};
use super::sample::{Piece, noise};
use crate::registry::reference::Reference;
use crate::registry::session::with_digest;
use crate::registry::transport::{Call, Place};
use crate::util::{Digest, Error, human};

/// The shortest chunk but the last that a registry takes (distribution-spec, "Pushing a blob in chunks").
const CHUNK_MIN_LENGTH: &str = "oci-chunk-min-length";

/// Chunks that are sent where the registry does not care, in bytes.
const CHUNK: usize = 64;

/// No larger chunk is sent for trial.
const MAX_CHUNK: usize = 16 * 1024 * 1024;

impl Bench<'_> {
    /// Opens an upload session; gives its URL and the shortest chunk that the registry wants.
    pub(super) async fn open(&self) -> Result<(Url, Option<usize>), Trouble> {
        let answer = self.ask(&self.place, Method::POST, "blobs/uploads/", length(0), Vec::new()).await?;
        let answer = answer.expect(&[200, 201, 202])?;
        let least = answer.header(CHUNK_MIN_LENGTH).and_then(|text| text.parse().ok());
        Ok((self.location(&self.place, &answer)?, least))
    }

    /// Sends a blob into an upload session in one piece.
    pub(super) async fn send_whole(&self, session: Url, piece: &Piece) -> Result<(), Trouble> {
        let digest = piece.digest();
        let mut call = Call::new(Method::PUT, with_digest(session, &digest));
        call.headers = length(piece.bytes.len());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.body = piece.bytes.clone().into();
        self.ask_at(&self.place, call).await?.expect(&[200, 201, 202])?;
        self.wrote_blob(&self.place, digest);
        Ok(())
    }

    pub(super) async fn put_blob(&self, piece: &Piece) -> Result<(), Trouble> {
        let (session, _) = self.open().await?;
        self.send_whole(session, piece).await
    }

    /// Sends a blob in two chunks and reads it back: some registries take all chunks and keep the first.
    pub(super) async fn chunked(&self) -> Result<String, Trouble> {
        let (session, least) = self.open().await?;
        let size = least.unwrap_or(CHUNK).max(CHUNK);
        if size > MAX_CHUNK {
            return Err(Trouble::unknown(format!("wants chunks of {} at least: not tried", human(size as u64))));
        }
        let bytes = noise(size + CHUNK, &self.token);
        let digest = Digest::of(&bytes);
        let mut session = session;
        for (start, end) in [(0, size), (size, bytes.len())] {
            let mut call = Call::new(Method::PATCH, session.clone());
            call.headers = length(end - start);
            call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            call.headers.insert(CONTENT_RANGE, value(&format!("{start}-{}", end - 1))?);
            call.body = bytes[start..end].to_vec().into();
            let answer = self.ask_at(&self.place, call).await?.expect(&[200, 201, 202, 204])?;
            session = self.location(&self.place, &answer)?;
            let told = answer.header(RANGE.as_str()).map(|range| range.trim_start_matches("bytes=").to_owned());
            if let Some(range) = told.filter(|range| *range != format!("0-{}", end - 1)) {
                return Err(Trouble::no(format!("took {end} bytes, and says that it has `{range}`")));
            }
        }
        let mut call = Call::new(Method::PUT, with_digest(session, &digest));
        call.headers = length(0);
        self.ask_at(&self.place, call).await?.expect(&[200, 201, 202])?;
        self.wrote_blob(&self.place, digest);
        let path = format!("blobs/{digest}");
        let answer = self.ask(&self.place, Method::GET, &path, HeaderMap::new(), Vec::new()).await?.expect(&[200])?;
        if Digest::of(&answer.body) != digest {
            let detail = format!("says that it took {} bytes, but has {}", bytes.len(), answer.body.len());
            return Err(Trouble::no(detail));
        }
        Ok(match least {
            Some(least) => format!("chunks of {} or more", human(least as u64)),
            None => "chunks of any size".into(),
        })
    }

    /// Opens a session and ends it.
    pub(super) async fn cancelled(&self) -> Result<String, Trouble> {
        let (session, _) = self.open().await?;
        let call = Call { headers: length(0), ..Call::new(Method::DELETE, session) };
        self.ask_at(&self.place, call).await?.expect(&[200, 202, 204])?;
        Ok("an upload can be broken off".into())
    }

    /// Mounts a blob of the repository into its sibling.
    pub(super) async fn mounted(&self, piece: &Piece) -> Result<String, Trouble> {
        let digest = piece.digest();
        let mut place = self.sibling().await?;
        // A token for the mount is one to read the source with, too.
        place.scope.from = Some(self.place.scope.repository.clone());
        let path = format!("blobs/uploads/?mount={digest}&from={}", self.place.scope.repository);
        let answer = self.ask(&place, Method::POST, &path, length(0), Vec::new()).await?;
        let into = &place.scope.repository;
        match answer.status.as_u16() {
            201 => {
                self.wrote_blob(&place, digest);
                Ok(format!("from `{}` to `{into}`", self.place.scope.repository))
            }
            // It opened a session instead, which is not left open.
            202 => {
                let session = self.location(&place, &answer)?;
                let call = Call { headers: length(0), ..Call::new(Method::DELETE, session) };
                let _ = self.ask_at(&place, call).await;
                Err(Trouble::no("wants the blob to be sent"))
            }
            _ => Err(Trouble::unknown(format!("cannot write to `{into}` to try it ({})", answer.told()))),
        }
    }

    /// The repository beside the one that is tried.
    async fn sibling(&self) -> Result<Place, Trouble> {
        let own = self.reference.repository();
        let folder = own.rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        let name = if own == super::DEFAULT_REPOSITORY { "mount" } else { "condaimg-doctor-mount" };
        let (registry, tag) = (self.reference.registry().to_owned(), "latest".to_owned());
        let sibling = Reference::with_tag(registry, format!("{folder}{name}"), tag);
        Ok(self.registry.transport().place(&sibling, true).await?)
    }
}

fn length(bytes: usize) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(bytes))])
}

fn value(text: &str) -> Result<HeaderValue, Trouble> {
    HeaderValue::from_str(text).map_err(|error| Error::bug(format!("`{text}` is no header")).caused_by(error).into())
}
