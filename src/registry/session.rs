//! Upload sessions: opened by a POST, and deleted when nothing became of them, so that no half of a blob stays in
//! the registry (distribution-spec, "Pushing a blob in chunks"; the DELETE is "Canceling" there).

use std::sync::LazyLock;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use url::Url;

use super::Registry;
use super::transport::{Call, Place};
use crate::http::retry::Failure;
use crate::util::{Digest, Error, Result};

/// Tells the smallest chunk that a registry takes (distribution-spec, "Pushing a blob in chunks").
const MIN_LENGTH: &str = "oci-chunk-min-length";

/// A DELETE takes no longer: registries forget sessions some day, too.
const CANCEL: Duration = Duration::from_secs(10);

/// All sessions of the process that are open or being deleted.
static SESSIONS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Waits until all uploads that were given up are deleted in their registries, but no longer than `limit`. To be
/// called when the tasks that push were ended, before the runtime is.
pub async fn uploads_cancelled(limit: Duration) {
    SESSIONS.close();
    // What is not deleted in time the registry forgets itself.
    let _ = timeout(limit, SESSIONS.wait()).await;
}

/// An open session. Dropped before it was [`Session::done`], it is deleted in the background.
#[derive(Debug)]
pub(super) struct Session {
    registry: Registry,
    place: Place,
    /// Where to go on; changes with each chunk.
    pub(super) url: Url,
    /// The smallest chunk that the registry takes, in bytes.
    pub(super) min_chunk: Option<u64>,
    /// There as long as the session may have to be deleted.
    open: Option<TaskTrackerToken>,
}

/// What came of a request for a session.
pub(super) enum Begun {
    /// An upload may begin.
    Session(Session),
    /// There is nothing to be sent: the repository got the blob from another one.
    Mounted,
    /// The registry does not want to.
    Refused(Failure),
}

impl Session {
    /// Opens a session in a repository.
    pub(super) async fn open(registry: &Registry, place: &Place) -> Result<Self, Failure> {
        match begin(registry, place, place.clone(), place.url("blobs/uploads/")?).await? {
            Begun::Session(session) => Ok(session),
            Begun::Refused(failure) => Err(failure),
            Begun::Mounted => Err(Error::user(format!("{} opens no upload session", place.called())).into()),
        }
    }

    /// Asks for a blob of another repository of the registry. `from` is always named: a bare `mount` confuses Quay.
    pub(super) async fn mount(
        registry: &Registry,
        place: &Place,
        digest: &Digest,
        from: &str,
    ) -> Result<Begun, Failure> {
        let mut url = place.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        begin(registry, &place.reading_from(from), place.clone(), url).await
    }

    /// Nothing is left to be deleted.
    pub(super) fn done(&mut self) {
        self.open = None;
    }

    fn of(registry: &Registry, place: Place, asked: &Url, headers: &HeaderMap, open: TaskTrackerToken) -> Result<Self> {
        let url = registry.transport().location(&place, asked, headers)?;
        let min_chunk = headers.get(MIN_LENGTH).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        Ok(Self { registry: registry.clone(), place, url, min_chunk, open: Some(open) })
    }
}

/// Makes a POST with the rights of `asking` for a session in `place`. It is made in a task of its own: when nobody
/// waits for the answer any more, the session that it opened is deleted all the same.
async fn begin(registry: &Registry, asking: &Place, place: Place, url: Url) -> Result<Begun, Failure> {
    let (registry, asking, open) = (registry.clone(), asking.clone(), SESSIONS.token());
    let task = tokio::spawn(async move {
        let mut call = Call::new(Method::POST, url);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = registry.transport().send(&asking, &call).await?;
        Ok(match answer.status() {
            StatusCode::CREATED => Begun::Mounted,
            status if status.is_success() => {
                Begun::Session(Session::of(&registry, place, answer.url(), answer.headers(), open)?)
            }
            _ => Begun::Refused(registry.transport().failure(&asking, answer).await),
        })
    });
    task.await.map_err(|error| Error::bug("the opening of an upload broke down").caused_by(error))?
}

impl Drop for Session {
    fn drop(&mut self) {
        let (Some(open), Ok(runtime)) = (self.open.take(), Handle::try_current()) else { return };
        // Where the registry sent us to another host, its storage, there is nobody who knows of sessions.
        if !self.place.host.owns(&self.url) {
            return;
        }
        let (registry, place, url) = (self.registry.clone(), self.place.clone(), self.url.clone());
        runtime.spawn(async move {
            let call = Call::new(Method::DELETE, url);
            let answer = timeout(CANCEL, registry.transport().send(&place, &call)).await;
            let status = answer.ok().and_then(Result::ok).map(|answer| answer.status());
            tracing::debug!(
                registry = place.scope.registry,
                repository = place.scope.repository,
                ?status,
                "upload deleted"
            );
            drop(open);
        });
    }
}

/// Adds the digest to an upload URL, leaving the query that the registry gave as it is.
pub(super) fn with_digest(mut url: Url, digest: &Digest) -> Url {
    let digest = format!("digest=sha256%3A{}", digest.hex());
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&{digest}"),
        _ => digest,
    };
    url.set_query(Some(&query));
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_goes_behind_the_query() {
        let digest = Digest::of("x");
        let add = |url| with_digest(Url::parse(url).expect("a URL"), &digest).to_string();
        let hex = digest.hex();
        assert_eq!(add("https://a/u?s=b%2F&t"), format!("https://a/u?s=b%2F&t&digest=sha256%3A{hex}"));
        assert_eq!(add("https://a/u"), format!("https://a/u?digest=sha256%3A{hex}"));
    }
}
