//! Keeping the index under a fallback tag, which anybody may be writing at the same time.
//!
//! There is no way to add to a tag: it is read, and written with one more entry; whoever read it earlier and writes
//! it later takes our entry out again. `If-Match` would prevent that, but hardly any registry heeds it. So:
//!
//! - reading and writing follow each other at once; a write is never repeated without reading again;
//! - after writing we wait as long as others may still need who read before, a few times what our own reading and
//!   writing took, and read again; what is missing then is added again, and the waiting starts over;
//! - not only our own entry is added again, but each one that we saw: so one writer that is still there mends what
//!   another has lost after its last look;
//! - who met others looks more often before leaving.
//!
//! What stays possible: a writer that stands still between reading and writing for longer than all others wait takes
//! out their entries. Nothing but `If-Match` helps there.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::listing::{INDEX, Index, Under, has};
use super::{Referrer, fallback_tag};
use crate::http::retry::{Again, Contact, Failure, chance};
use crate::registry::Registry;
use crate::registry::answers::lacks_a_part;
use crate::registry::manifest_writes::{Name, Sending};
use crate::registry::reference::Reference;
use crate::registry::transport::Place;
use crate::util::json::canonical;
use crate::util::{Digest, Error, Result};

/// Reads at most; who is not done by then has no chance.
const ROUNDS: u32 = 100;
/// Failures in a row before we give up; with the waits in between this takes about 25 s.
const FAILURES: u32 = 20;
/// What reading and writing are taken to last at least, for others may be slower than we are.
const SHORTEST: Duration = Duration::from_millis(50);
/// And at most: nobody waits for minutes.
const LONGEST: Duration = Duration::from_secs(3);
/// No wait that the registry asks for is longer.
const LONGEST_ASKED: Duration = Duration::from_secs(60);
/// After how many looks at a whole list we leave: when nobody was met, and when somebody was.
const LOOKS: (u32, u32) = (1, 3);

/// Keeps one entry in the index of its subject.
pub(super) struct Keeper<'a> {
    registry: &'a Registry,
    place: &'a Place,
    subject: Digest,
    /// Our entry first, then those of others as we saw them.
    known: Vec<Value>,
    /// Digests of entries whose manifests are gone.
    gone: BTreeSet<String>,
    /// Writes so far, and their bytes.
    writes: u32,
    written: u64,
    /// Whether somebody else wrote in the meantime.
    met: bool,
    /// The longest that reading and writing took.
    cycle: Duration,
}

impl<'a> Keeper<'a> {
    pub(super) fn new(registry: &'a Registry, place: &'a Place, referrer: &Referrer<'_>) -> Self {
        let (subject, known) = (referrer.subject, vec![referrer.entry.clone()]);
        let gone = BTreeSet::new();
        Self { registry, place, subject, known, gone, writes: 0, written: 0, met: false, cycle: SHORTEST }
    }

    /// Adds the entry unless it is there, and stays until it is likely to last; gives the bytes that were written.
    pub(super) async fn keep(mut self) -> Result<u64> {
        let (mut looks, mut failures) = (0, 0);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let found = match self.read().await {
                Ok(found) => found,
                Err(failure) => {
                    // Among others: CNCF distribution answers 500 to who reads a tag while it is being written.
                    failures += 1;
                    sleep(self.pause(failure, failures)?).await;
                    continue;
                }
            };
            if self.lacking(&found).next().is_none() {
                if self.writes == 0 || looks >= if self.met { LOOKS.1 } else { LOOKS.0 } {
                    return Ok(self.written);
                }
                looks += 1;
                sleep(self.patience(looks)).await;
                continue;
            }
            looks = 0;
            self.met |= self.writes > 0;
            match self.write(found, began).await {
                Ok(()) => failures = 0,
                Err(failure) if is_gone(&failure) && self.forget_gone().await? => {}
                Err(failure) => {
                    failures += 1;
                    sleep(self.pause(failure, failures)?).await;
                }
            }
        }
        Err(self.hopeless())
    }

    fn hopeless(&self) -> Error {
        let (tag, called) = (fallback_tag(self.subject), self.place.called());
        Error::user(format!("{called} does not keep what is added to the index `{tag}`"))
            .hint("too many write to it at the same time: try again later")
    }

    async fn read(&mut self) -> Result<Index, Failure> {
        let found = match self.registry.fallback_index(self.place, self.subject).await? {
            Under::Index(index) => index,
            Under::Nothing => Index::default(),
            Under::SomethingElse => {
                let (tag, repository) = (fallback_tag(self.subject), &self.place.scope.repository);
                let error = Error::user(format!("the tag `{tag}` of `{repository}` holds no index of referrers"));
                let hint = "this tag is kept for them (distribution-spec, referrers tag schema): delete it";
                return Err(error.hint(hint).into());
            }
        };
        for entry in found.entries() {
            let Some(digest) = entry["digest"].as_str() else { continue };
            if !has(&self.known, digest) && !self.gone.contains(digest) {
                self.known.push(entry.clone());
                self.met |= self.writes > 0;
            }
        }
        Ok(found)
    }

    /// The known entries that are not in the index.
    fn lacking<'b>(&'b self, found: &'b Index) -> impl Iterator<Item = &'b Value> {
        self.known.iter().filter(|entry| !entry["digest"].as_str().is_some_and(|digest| has(found.entries(), digest)))
    }

    /// Writes the index with what it lacks, at the end.
    async fn write(&mut self, found: Index, read_at: Instant) -> Result<(), Failure> {
        let is_gone = |entry: &&Value| entry["digest"].as_str().is_some_and(|digest| self.gone.contains(digest));
        let kept = found.entries().iter().filter(|entry| !is_gone(entry));
        let entries: Vec<Value> = kept.chain(self.lacking(&found)).cloned().collect();
        let Index { mut document, tag } = found;
        document.insert("schemaVersion".into(), json!(2));
        document.insert("mediaType".into(), INDEX.into());
        document.insert("manifests".into(), entries.into());
        let bytes = Bytes::from(canonical(&document)?);
        let name = fallback_tag(self.subject);
        let sent = self.send(&name, &bytes, tag).await;
        self.cycle = self.cycle.max(read_at.elapsed()).min(LONGEST);
        self.writes += 1;
        sent?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    async fn send(&self, name: &str, bytes: &Bytes, condition: Option<HeaderValue>) -> Result<(), Failure> {
        let sending = Sending { name: Name::Tag(name), media_type: INDEX, bytes, digest: Digest::of(bytes), condition };
        self.registry.send_manifest(self.place, &sending).await.map(drop)
    }

    /// How long to wait before the next look: twice to four times as long as others need, longer each time.
    fn patience(&self, looks: u32) -> Duration {
        self.cycle.mul_f64(2.0 * f64::from(looks) * (1.0 + chance()))
    }

    /// How long to wait after a failure; the failure itself when it will not pass. A condition that was not met
    /// means that somebody else wrote.
    fn pause(&self, failure: Failure, failures: u32) -> Result<Duration> {
        let overtaken =
            matches!(failure.contact, Contact::Answered(StatusCode::PRECONDITION_FAILED | StatusCode::CONFLICT));
        match failure.again {
            _ if failures >= FAILURES => Err(failure.error),
            Again::Never if !overtaken => Err(failure.error),
            Again::Later(Some(asked)) => Ok(asked.min(LONGEST_ASKED)),
            Again::AtOnce => Ok(Duration::ZERO),
            _ => Ok(self.cycle.saturating_mul(1 << failures.min(8)).min(LONGEST).mul_f64(chance())),
        }
    }

    /// Some registries take no index with an entry whose manifest somebody has deleted: notes such entries. Tells
    /// whether there are new ones.
    async fn forget_gone(&mut self) -> Result<bool> {
        let scope = &self.place.scope;
        let before = self.gone.len();
        for entry in &self.known[1..] {
            let Some(digest) = entry["digest"].as_str() else { continue };
            let named = Reference::with_digest(scope.registry.clone(), scope.repository.clone(), digest.to_owned());
            if self.registry.tag_digest(&named).await?.is_none() {
                self.gone.insert(digest.to_owned());
            }
        }
        self.known.retain(|entry| !entry["digest"].as_str().is_some_and(|digest| self.gone.contains(digest)));
        Ok(self.gone.len() > before)
    }
}

/// Whether the registry misses something that the index names.
fn is_gone(failure: &Failure) -> bool {
    let refused = matches!(failure.contact, Contact::Answered(StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND));
    refused && lacks_a_part(failure)
}
