//! Locks that were made of the same pins before, in the cache registry. Who has only another tool's lock need not fetch
//! the archives to learn what they do not say of themselves there, nor the indexes of the channels.
//!
//! What is taken from there is a lock like one that lies beside the file: it is used when it was made from the same,
//! unedited, and pins the same packages by the same hashes.

use std::path::Path;
use std::time::Duration;

use crate::cli::world::World;
use crate::lock::{self, Lock, Locks, Wanted};
use crate::model::{LAYOUT_VERSION, Platform};
use crate::pack::facts::FACTS_VERSION;
use crate::ship::{self, NewEntry, Noted};
use crate::util::{Digest, Result, json};

/// A lock in a cache is text like one that goes with an image, but says what it was made from.
const MEDIA_TYPE: &str = "application/vnd.condaimg.lock-file.v1+yaml";

/// A cache that needs longer is done without.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often it is asked for each thing at most.
const ATTEMPTS: u32 = 2;

/// Written in place of a base that lies on some machine, whose digest counts.
const LOCAL_BASE: &str = "oci:base";

/// The lock that the cache registry has for what is wanted; nothing when there is none that can be used.
pub async fn find(wanted: Wanted<'_>, platform: &Platform, folder: &Path, world: &World) -> Option<Lock> {
    let (cache, pinned) = (world.cache.as_ref()?, wanted.pinned?);
    let key = key(wanted, platform).ok()?;
    let registry = world.registry.apart(ATTEMPTS);
    let asking = ship::document(&registry, &world.store, cache, &key, MEDIA_TYPE);
    let found = match tokio::time::timeout(PATIENCE, asking).await {
        Ok(found) => found.and_then(|text| text.map(|text| lock::parse(&text, folder)).transpose()),
        Err(_) => return None,
    };
    let locks = match found {
        Ok(found) => found?,
        Err(error) => {
            tracing::debug!(error = error.chain().join(": "), "no lock is taken from the cache registry");
            return None;
        }
    };
    let lock = locks.get(platform)?;
    let fits = lock::changes(lock, wanted).is_empty() && lock.has_facts && pinned.are_in(lock);
    tracing::debug!(%key, fits, "the cache registry has a lock");
    fits.then(|| lock.clone())
}

/// What there is to note of a lock: one that was made of pins, and names nothing that is only on this machine. One that
/// was not made just now leaves what is noted as it is.
///
/// # Errors
/// None but defects of ours.
pub fn entry(lock: &Lock, made: bool) -> Result<Option<NewEntry>> {
    let Some(inputs) = lock.inputs.as_ref().filter(|inputs| inputs.pins.is_some()) else { return Ok(None) };
    if !lock.has_facts || !lock.edited.is_empty() || lock.extended().is_some() || lock.names_local_files() {
        return Ok(None);
    }
    let wanted = Wanted {
        specs: &lock.specs,
        pip: &lock.pip,
        variables: &lock.variables,
        pinned: None,
        inputs,
        base: lock.base.digest,
    };
    let key = key(wanted, &lock.platform)?;
    let mut lock = lock.clone();
    if lock.base.is_local() {
        LOCAL_BASE.clone_into(&mut lock.base.reference);
    }
    // Nothing of it is relative to a folder.
    let text = lock::render(&Locks::from_iter([lock]), Path::new("/"))?;
    let noted = if made { Noted::Whatever } else { Noted::Nothing };
    Ok(Some(ship::new_document(key, MEDIA_TYPE, text, noted)))
}

fn key(wanted: Wanted<'_>, platform: &Platform) -> Result<Digest> {
    let Wanted { specs, pip, variables, inputs, base, .. } = wanted;
    let versions = ("lock", FACTS_VERSION, LAYOUT_VERSION);
    json::canonical(&(versions, platform.lock_name(), specs, pip, variables, inputs, base)).map(Digest::of)
}
