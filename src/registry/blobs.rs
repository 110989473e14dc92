//! Blobs: fetched into the store, and pushed when the registry does not have them.

use std::path::PathBuf;
use std::sync::PoisonError;

use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Response, StatusCode};

use super::reader::BlobReader;
use super::reference::Reference;
use super::session::{Begun, Session};
use super::transport::{Call, Place};
use super::upload::{Meter, Upload};
use super::{Registry, Sent};
use crate::http::retry::{Again, Failure, Tries};
use crate::model::Blob;
use crate::store::{Part, Store, damaged};
use crate::util::report::{Progress, Silent};
use crate::util::{Digest, Error, Result, ResultExt as _};

/// Repositories that are tried as the source of a mount: what two of them refuse, others refuse, too, and each costs
/// a request.
const MOUNT_SOURCES: usize = 2;

impl Registry {
    /// Fetches a blob of the reference's repository into the store, in bounded memory; gives its path there.
    /// Nothing is fetched when the store has it, with the right bytes. `size` is in bytes, as the manifest says. When the connection
    /// breaks, or a process was killed while it fetched the blob, the rest is asked for. Of two that want the same blob
    /// one waits for the other.
    ///
    /// # Errors
    /// When the registry does not answer, refuses, or sends other bytes; those of the store.
    pub async fn fetch_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        size: u64,
        store: &Store,
    ) -> Result<PathBuf> {
        if store.find_blob(digest, size).await.is_none() {
            self.fetch(reference, digest, size, store)
                .await
                .map_err(|failure| failure.error)
                .context(|| format!("cannot fetch the blob {digest} of `{reference}`"))?;
        }
        Ok(store.blob(digest))
    }

    /// Whether the reference's repository has a blob, whole: of the size that it should have. Nothing is fetched.
    ///
    /// # Errors
    /// When the registry does not answer or refuses.
    pub async fn has_blob(&self, reference: &Reference, blob: &Blob) -> Result<bool> {
        let looking =
            Push { registry: self, target: reference, blob, mount_from: &[], meter: Meter::new(&Silent, blob.size) };
        let attempt = || async {
            let place = self.transport().place(reference, false).await?;
            Ok(matches!(looking.look(&place).await?, Found::Whole))
        };
        self.policy().run(attempt).await.context(|| {
            format!("cannot ask for the blob {} in `{}/{}`", blob.digest, reference.registry(), reference.repository())
        })
    }

    /// Sees to it that the target's repository has a blob: asks whether it is there, else has it mounted from the
    /// first of `mount_from` that may have it, else sends it in one piece, in bounded memory. Sources in other
    /// registries, and the target itself, are passed over. Each further attempt is a new upload.
    ///
    /// `progress` advances by the bytes as they leave, each byte once however many attempts it takes; not at all
    /// when nothing was sent ([`Sent::Existed`], [`Sent::Mounted`]).
    ///
    /// # Errors
    /// When the registry does not answer or refuses; when it keeps a damaged copy of the blob; when the blob cannot
    /// be read.
    pub async fn push_blob(
        &self,
        target: &Reference,
        blob: &Blob,
        mount_from: &[Reference],
        progress: &dyn Progress,
    ) -> Result<Sent> {
        let push = Push { registry: self, target, blob, mount_from, meter: Meter::new(progress, blob.size) };
        let sent = self.policy().run(|| push.attempt()).await.context(|| {
            format!("cannot push the blob {} to `{}/{}`", blob.digest, target.registry(), target.repository())
        })?;
        // The answer to an earlier attempt may have been lost: then the bytes were sent all the same.
        if sent == Sent::Existed && push.meter.began() {
            push.meter.tell(blob.size);
            return Ok(Sent::Uploaded(blob.size));
        }
        Ok(sent)
    }

    async fn fetch(&self, reference: &Reference, digest: &Digest, size: u64, store: &Store) -> Result<(), Failure> {
        let there = || store.has_whole_blob(digest, size);
        let Some(mut part) = Part::lock(store.partial(digest), false, there).await? else { return Ok(()) };
        let mut tries = Tries::default();
        let mut again = Again::Later(None);
        loop {
            let resumed = self.complete(&mut part, reference, digest, size).await?;
            let found = part.sha256();
            if found == *digest {
                let path = store.blob(digest);
                part.finish(&path).await?;
                store.note_whole(&path, digest);
                return Ok(());
            }
            part.clear()?;
            if resumed {
                // What an earlier run left was damaged, perhaps: nothing is said of the registry yet.
                continue;
            }
            // Bytes may be damaged on their way, but hardly twice.
            let again = std::mem::replace(&mut again, Again::Never);
            let whom = format!("the registry `{}`", reference.registry());
            let failure = Failure { again, ..damaged(digest, &found).into() };
            let failure = failure.context(|| format!("{whom} sent damaged bytes"));
            if let Err(failure) = self.policy().next(&mut tries, failure).await {
                part.remove();
                return Err(failure);
            }
        }
    }

    /// Fetches what a part lacks; whether it had something.
    async fn complete(
        &self,
        part: &mut Part,
        reference: &Reference,
        digest: &Digest,
        size: u64,
    ) -> Result<bool, Failure> {
        part.rehash().await?;
        if part.size() > size {
            part.clear()?;
        }
        let begin = part.size();
        if begin < size {
            tracing::debug!(%digest, begin, size, "fetching");
            let mut reader = BlobReader::open(self, reference, digest, size, begin..size).await?;
            while let Some(bytes) = reader.next().await? {
                part.write(&bytes)?;
            }
        }
        Ok(begin > 0)
    }
}

/// A blob that a repository is to have.
struct Push<'a> {
    registry: &'a Registry,
    target: &'a Reference,
    blob: &'a Blob,
    mount_from: &'a [Reference],
    meter: Meter<'a>,
}

/// What a repository has of a blob.
enum Found {
    Whole,
    Nothing,
    /// Bytes, but not all, or too many.
    Damaged,
}

impl Push<'_> {
    async fn attempt(&self) -> Result<Sent, Failure> {
        let place = self.registry.transport().place(self.target, true).await?;
        let found = self.look(&place).await?;
        let begun = match found {
            Found::Whole => return Ok(Sent::Existed),
            Found::Nothing => self.mount(&place).await?,
            Found::Damaged => None,
        };
        let session = match begun {
            Some(Begun::Mounted) => return Ok(Sent::Mounted),
            Some(Begun::Session(session)) => Some(session),
            Some(Begun::Refused(_)) | None => None,
        };
        let upload = Upload { registry: self.registry, place: &place, blob: self.blob, meter: &self.meter };
        upload.run(session).await?;
        if matches!(found, Found::Damaged)
            && let Some(kept) = self.kept(&place).await?.filter(|kept| *kept != self.blob.size)
        {
            // A registry that believes to have a blob may drop what it is sent (CNCF distribution does).
            return Err(self.stays_damaged(&place, kept).into());
        }
        Ok(Sent::Uploaded(self.blob.size))
    }

    fn url(&self, place: &Place) -> Result<url::Url> {
        place.url(&format!("blobs/{}", self.blob.digest))
    }

    async fn look(&self, place: &Place) -> Result<Found, Failure> {
        let transport = self.registry.transport();
        let answer = transport.send(place, &Call::new(Method::HEAD, self.url(place)?)).await?;
        match answer.status() {
            status if status.is_success() => match number(answer.headers(), &CONTENT_LENGTH) {
                Some(length) if length != self.blob.size => {
                    let kept = self.kept(place).await?;
                    tracing::debug!(digest = %self.blob.digest, length, kept, "the registry names another size");
                    Ok(if kept == Some(self.blob.size) { Found::Whole } else { Found::Damaged })
                }
                _ => Ok(Found::Whole),
            },
            // Some registries let us write but not look: the upload will tell.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => Ok(Found::Nothing),
            // One that died while it noted a blob answers so for ever after (CNCF distribution leaves an empty
            // link); an upload heals it, and fails like this if something else is wrong.
            StatusCode::INTERNAL_SERVER_ERROR => Ok(Found::Nothing),
            _ => Err(transport.failure(place, answer).await),
        }
    }

    /// How many bytes the registry has, when it says so with a byte of them: some proxies answer HEAD with any
    /// length.
    async fn kept(&self, place: &Place) -> Result<Option<u64>, Failure> {
        let mut call = Call::new(Method::GET, self.url(place)?);
        call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        Ok(total(&self.registry.transport().send(place, &call).await?))
    }

    fn stays_damaged(&self, place: &Place, kept: u64) -> Error {
        let message = format!("{} keeps a damaged copy of it ({kept} of {} bytes)", place.called(), self.blob.size);
        Error::user(message)
            .hint("remove the blob from the registry's storage, then push again: it does not replace it by itself")
    }

    /// Asks the registry to take the blob from another of its repositories. What becomes of it is the upload's
    /// session at worst; none when there is nothing to ask for, or all sources are refused.
    async fn mount(&self, place: &Place) -> Result<Option<Begun>, Failure> {
        for from in self.sources() {
            let failure = match Session::mount(self.registry, place, &self.blob.digest, &from).await {
                Ok(Begun::Refused(failure)) => failure,
                Ok(begun) => return Ok(Some(begun)),
                Err(failure) => failure,
            };
            let status = failure.status();
            // Too many requests are too many; but one that breaks at mounts only may do without.
            if failure.again != Again::Never && !status.is_some_and(|status| status.is_server_error()) {
                return Err(failure);
            }
            tracing::debug!(error = %failure.error, from, "the registry does not mount");
            // Who may not read there may not mount from there; a blob that is missing says nothing of the others.
            let barred = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN, StatusCode::METHOD_NOT_ALLOWED].map(Some);
            if barred.contains(&status) {
                self.unmountable().insert((place.scope.registry.clone(), from));
            }
        }
        Ok(None)
    }

    /// The repositories that are worth a request.
    fn sources(&self) -> Vec<String> {
        let mut sources: Vec<String> = Vec::new();
        for reference in self.mount_from {
            let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
            let elsewhere = registry != self.target.registry() || repository == self.target.repository();
            let key = (registry, repository);
            if !elsewhere && !sources.contains(&key.1) && !self.unmountable().contains(&key) {
                sources.push(key.1);
            }
        }
        sources.truncate(MOUNT_SOURCES);
        sources
    }

    fn unmountable(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<(String, String)>> {
        self.registry.inner.unmountable.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size of the whole blob by the answer to a request for a part of it.
fn total(answer: &Response) -> Option<u64> {
    match answer.status() {
        StatusCode::OK => number(answer.headers(), &CONTENT_LENGTH),
        // `bytes 0-0/10`
        StatusCode::PARTIAL_CONTENT => {
            let text = answer.headers().get(CONTENT_RANGE)?.to_str().ok()?;
            text.rsplit('/').next()?.trim().parse().ok()
        }
        // There is not even one byte.
        StatusCode::RANGE_NOT_SATISFIABLE => Some(0),
        _ => None,
    }
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}
