//! Changing what a tag stands for, which others may be changing at the same time.
//!
//! There is no way to lock a tag: it is read, changed and written, and whoever read it earlier and writes it later
//! undoes the change. So after writing we wait a few times as long as reading and writing took, look again, and change
//! it again when somebody undid it; only when the change is still there we leave. A write is never repeated without
//! reading again: what was read before the wait may be old. What stays possible: a writer that stands still between
//! reading and writing for longer than that.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::manifest_writes::{Name, Sending};
use super::{FetchedManifest, Reference, Registry, Sent};
use crate::http::retry::{Failure, Tries, chance};
use crate::util::error::ResultExt as _;
use crate::util::{Digest, Error, Result};

/// Who has written so often in vain has no chance.
const ROUNDS: u32 = 50;
/// What others are taken to need at least between reading and writing, and at most.
const CYCLE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(3));
/// Looks at an unharmed change before we leave: when nobody else wrote, and when somebody did.
const LOOKS: (u32, u32) = (1, 3);

impl Registry {
    /// Puts under a tag what `change` makes of what it stands for (nothing, when it is new), until it stays. `change`
    /// is called again for what others wrote in the meantime; of its own result it must make the same bytes.
    ///
    /// Gives the digest that the tag stands for then, and whether anything had to be sent.
    ///
    /// # Errors
    /// Those of `change`; when the registry does not answer or refuses; when too many others write.
    pub async fn amend(
        &self,
        tag: &Reference,
        media_type: &str,
        mut change: impl AsyncFnMut(Option<FetchedManifest>) -> Result<Vec<u8>>,
    ) -> Result<(Digest, Sent)> {
        let (mut cycle, mut looks, mut writes, mut sent) = (CYCLE.0, 0, 0, 0);
        let mut tries = Tries::default();
        loop {
            let began = Instant::now();
            let current = self.current(tag).await?;
            let before = current.as_ref().map(|current| current.digest);
            let changed = change(current).await?;
            let digest = Digest::of(&changed);
            if before == Some(digest) {
                if writes == 0 {
                    return Ok((digest, Sent::Existed));
                }
                if looks >= if writes > 1 { LOOKS.1 } else { LOOKS.0 } {
                    return Ok((digest, Sent::Uploaded(sent)));
                }
                looks += 1;
                // Twice to four times as long as others need, longer each time.
                sleep(cycle.mul_f64(2.0 * f64::from(looks) * (1.0 + chance()))).await;
                continue;
            }
            if writes == ROUNDS {
                return Err(Error::user(format!("too many others change `{tag}` at the same time"))
                    .hint("try again when they are done"));
            }
            let written = self.write_once(tag, media_type, changed, digest).await;
            cycle = cycle.max(began.elapsed()).min(CYCLE.1);
            match written {
                Ok(bytes) => (writes, looks, sent) = (writes + 1, 0, bytes),
                // It may have arrived all the same.
                Err(failure) => {
                    writes += 1;
                    let again = self.policy().next(&mut tries, failure).await;
                    again
                        .map_err(|failure| failure.error)
                        .context(|| format!("cannot change what `{tag}` stands for"))?;
                }
            }
            // Who writes at the same time as we do shall not do so again.
            sleep(cycle.mul_f64(chance())).await;
        }
    }

    async fn write_once(
        &self,
        tag: &Reference,
        media_type: &str,
        bytes: Vec<u8>,
        digest: Digest,
    ) -> Result<u64, Failure> {
        let place = self.transport().place(tag, true).await?;
        let (name, bytes) = (Name::Tag(tag.tag().unwrap_or("latest")), Bytes::from(bytes));
        self.send_manifest(&place, &Sending { name, media_type, bytes: &bytes, digest, condition: None }).await?;
        Ok(bytes.len() as u64)
    }

    async fn current(&self, tag: &Reference) -> Result<Option<FetchedManifest>> {
        match self.tag_digest(tag).await? {
            Some(digest) => {
                let (registry, repository) = (tag.registry().to_owned(), tag.repository().to_owned());
                self.manifest(&Reference::with_digest(registry, repository, digest.to_string())).await.map(Some)
            }
            None => Ok(None),
        }
    }
}
