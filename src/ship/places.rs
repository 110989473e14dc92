//! In which repositories blobs were seen: where a registry can take them from without being sent them
//! (distribution-spec, "Mounting a blob from another repository").

use crate::registry::{Reference, Registry};
use crate::store::{RecordKind, Store};
use crate::util::Digest;

/// Repositories that are remembered of one blob: enough for several registries, and an older one for the case that
/// the newest is gone.
const REMEMBERED: usize = 8;

/// The repositories of one blob, the latest first.
#[derive(Debug)]
pub struct Places {
    digest: Digest,
    repositories: Vec<Reference>,
    changed: bool,
}

impl Places {
    /// What the store remembers of a blob.
    pub fn of(store: &Store, digest: Digest) -> Self {
        let names: Vec<String> = store.record(RecordKind::Places, &digest).unwrap_or_default();
        let repositories = names.iter().filter_map(|name| Registry::parse(name).ok()).collect();
        Self { digest, repositories, changed: false }
    }

    /// It is there.
    pub fn add(&mut self, place: Reference) {
        if self.repositories.first().is_some_and(|first| same_repository(first, &place)) {
            return;
        }
        self.repositories.retain(|known| !same_repository(known, &place));
        self.repositories.insert(0, place);
        self.repositories.truncate(REMEMBERED);
        self.changed = true;
    }

    /// Other repositories of the target's registry.
    pub fn beside(&self, target: &Reference) -> Vec<Reference> {
        let beside = |place: &&Reference| place.registry() == target.registry() && !same_repository(place, target);
        self.repositories.iter().filter(beside).cloned().collect()
    }

    /// Keeps them for the next push. Best effort: a mount that is not tried costs only time.
    pub fn remember(&self, store: &Store) {
        if !self.changed {
            return;
        }
        let names: Vec<String> =
            self.repositories.iter().map(|place| format!("{}/{}", place.registry(), place.repository())).collect();
        if let Err(error) = store.remember(RecordKind::Places, &self.digest, &names) {
            tracing::debug!(%error, "where a blob is was not remembered");
        }
    }
}

/// Whether both name the same repository, whatever the tags.
pub(super) fn same_repository(a: &Reference, b: &Reference) -> bool {
    a.registry() == b.registry() && a.repository() == b.repository()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(text: &str) -> Reference {
        Registry::parse(text).expect("a reference")
    }

    #[test]
    fn places_are_remembered_by_registry() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("opens");
        let digest = Digest::of("x");
        let mut places = Places::of(&store, digest);
        for place in ["a.example/one:1", "b.example/one:1", "a.example/two:1", "a.example/one:2"] {
            places.add(reference(place));
        }
        places.remember(&store);
        let places = Places::of(&store, digest);
        let beside = |target: &str| -> Vec<String> {
            places.beside(&reference(target)).iter().map(|place| place.repository().to_owned()).collect()
        };
        assert_eq!(beside("a.example/new"), ["one", "two"]);
        assert_eq!(beside("a.example/one"), ["two"]);
        assert_eq!(beside("b.example/one"), Vec::<String>::new());
        assert!(Places::of(&store, Digest::of("y")).repositories.is_empty());
    }
}
