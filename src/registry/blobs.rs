//! Blobs: fetched into the store, and pushed when the registry does not have them.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::{Method, Response, StatusCode};

use super::reference::Reference;
use super::retry::Failure;
use super::transport::{Call, Place};
use super::upload::{Meter, Upload};
use super::wire::chunk;
use super::{Registry, Sent};
use crate::model::Blob;
use crate::store::Store;
use crate::util::report::Progress;
use crate::util::{Digest, Error, Result, ResultExt as _};

impl Registry {
    /// Fetches a blob of the reference's repository into the store, in bounded memory; gives its path there.
    /// Nothing is fetched when the store has it. `size` is in bytes, as the manifest says.
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
        if !store.has_blob(digest, size) {
            self.policy()
                .run(|| self.download(reference, digest, size, store))
                .await
                .context(|| format!("cannot fetch the blob {digest} of `{reference}`"))?;
        }
        Ok(store.blob(digest))
    }

    /// Pushes a blob to the target's repository: asks whether it is there, else sends it in one piece, in bounded
    /// memory. Each further attempt is a new upload.
    ///
    /// `progress` advances by the bytes as they leave, each byte once however many attempts it takes; not at all
    /// when the blob was there ([`Sent::Existed`]).
    ///
    /// # Errors
    /// When the registry does not answer or refuses; when the blob cannot be read.
    pub async fn push_blob(&self, target: &Reference, blob: &Blob, progress: &dyn Progress) -> Result<Sent> {
        let reported = AtomicU64::new(0);
        let sent = self.policy().run(|| self.offer(target, blob, progress, &reported)).await.context(|| {
            format!("cannot push the blob {} to `{}/{}`", blob.digest, target.registry(), target.repository())
        })?;
        // The answer to an earlier attempt may have been lost: then the bytes were sent all the same.
        match (sent, reported.load(Ordering::Relaxed)) {
            (Sent::Existed, 1..) => {
                Meter { progress, reported: &reported, size: blob.size }.tell(blob.size);
                Ok(Sent::Uploaded(blob.size))
            }
            _ => Ok(sent),
        }
    }

    async fn offer(
        &self,
        target: &Reference,
        blob: &Blob,
        progress: &dyn Progress,
        reported: &AtomicU64,
    ) -> Result<Sent, Failure> {
        let place = self.transport().place(target, true).await?;
        if self.has_blob(&place, &blob.digest).await? {
            return Ok(Sent::Existed);
        }
        let upload = Upload { registry: self, place: &place, blob };
        upload.run(progress, reported).await?;
        Ok(Sent::Uploaded(blob.size))
    }

    async fn has_blob(&self, place: &Place, digest: &Digest) -> Result<bool, Failure> {
        let call = Call::new(Method::HEAD, place.url(&format!("blobs/{digest}"))?);
        let answer = self.transport().send(place, &call).await?;
        match answer.status() {
            status if status.is_success() => Ok(true),
            // Some registries let us write but not look: the upload will tell.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            // One that died while it noted a blob answers so for ever after (CNCF distribution leaves an empty
            // link); an upload heals it, and fails like this if something else is wrong.
            StatusCode::INTERNAL_SERVER_ERROR => Ok(false),
            _ => Err(self.transport().failure(place, answer).await),
        }
    }

    /// Begins to read a blob.
    pub(super) async fn open_blob(&self, reference: &Reference, digest: &Digest) -> Result<(Place, Response), Failure> {
        let place = self.transport().place(reference, false).await?;
        let call = Call::new(Method::GET, place.url(&format!("blobs/{digest}"))?);
        let answer = self.transport().send(&place, &call).await?;
        if answer.status() == StatusCode::OK {
            return Ok((place, answer));
        }
        Err(self.transport().failure(&place, answer).await)
    }

    async fn download(&self, reference: &Reference, digest: &Digest, size: u64, store: &Store) -> Result<(), Failure> {
        let (place, mut answer) = self.open_blob(reference, digest).await?;
        let mut writer = store.new_blob()?;
        let mut received = 0;
        while let Some(bytes) = chunk(&place.called(), &mut answer).await? {
            received += bytes.len() as u64;
            if received > size {
                break;
            }
            writer.write_all(&bytes).map_err(Error::from)?;
        }
        if received != size {
            let amount = if received > size { "more than".to_owned() } else { format!("{received} of") };
            let message = format!("{} sent {amount} {size} bytes", place.called());
            return Err(Failure::passing(Error::user(message)));
        }
        writer.finish(Some(digest)).context(|| format!("{} sent damaged bytes", place.called()))?;
        Ok(())
    }
}
