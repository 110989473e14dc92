//! The locks of one file: one for each platform.

use std::collections::BTreeMap;

use super::Lock;
use crate::model::Platform;

/// What one `condaimg.lock` holds: the locks of its platforms. Each is made, used and becomes stale on its own.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    /// By [`Platform::lock_name`].
    by_name: BTreeMap<String, Lock>,
}

impl Locks {
    /// The lock of a platform.
    pub fn get(&self, platform: &Platform) -> Option<&Lock> {
        self.by_name.get(&platform.lock_name())
    }

    /// Puts a lock in the place of that of its platform; the others stay as they are.
    pub fn insert(&mut self, lock: Lock) {
        self.by_name.insert(lock.platform.lock_name(), lock);
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Lock> {
        self.by_name.values()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The platforms, as people write them.
    pub fn platforms(&self) -> Vec<String> {
        self.iter().map(|lock| lock.platform.to_string()).collect()
    }
}

impl IntoIterator for Locks {
    type Item = Lock;
    type IntoIter = std::collections::btree_map::IntoValues<String, Lock>;

    fn into_iter(self) -> Self::IntoIter {
        self.by_name.into_values()
    }
}

impl FromIterator<Lock> for Locks {
    fn from_iter<I: IntoIterator<Item = Lock>>(locks: I) -> Self {
        Self { by_name: locks.into_iter().map(|lock| (lock.platform.lock_name(), lock)).collect() }
    }
}
