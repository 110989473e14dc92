//! What the layer plan counts of packages: how often they change, and their size. Once there, it stays.

use std::collections::BTreeMap;

use super::{Lock, LockedPackage};
use crate::model::Stability;

/// Gives packages their classes, and the sizes that the plan counts. What a name had in the old lock stays, whatever its
/// version, so that locking again moves no package to another layer; `--refresh-stability` takes what the index and the
/// archives say now.
pub fn classify(
    packages: &mut [LockedPackage],
    old: Option<&Lock>,
    found: &BTreeMap<String, Stability>,
    refresh: bool,
) {
    // Facts that somebody edited are none.
    let old = old.filter(|lock| lock.edited.is_empty());
    for package in packages {
        let kept = old.and_then(|old| old.package(package.name())?.facts.stability);
        let found = found.get(package.name()).copied();
        package.facts.stability = if refresh { found.or(kept) } else { kept.or(found) };
        let planned = old.filter(|_| !refresh).and_then(|old| planned_before(old, package));
        package.facts.planned_size = planned.filter(|planned| *planned != rounded(package.size()));
    }
}

/// The size that the old lock's plan counted, as long as the package has not become twice as large, or less than a quarter of it.
fn planned_before(old: &Lock, package: &LockedPackage) -> Option<u64> {
    let before = old.package(package.name())?;
    let planned = before.facts.planned_size.unwrap_or_else(|| rounded(before.size()));
    (planned / 4..planned.saturating_mul(2)).contains(&package.size()).then_some(planned)
}

/// The next power of two of a size in bytes, so that a little more or less makes no other plan. Sizes are what a channel
/// says: enormous ones are all alike.
pub(super) fn rounded(size: u64) -> u64 {
    size.clamp(1, 1 << 62).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::sample::{lock, package};

    #[test]
    fn what_was_locked_stays_unless_it_is_renewed() {
        let known = |class| BTreeMap::from([("a".to_owned(), class)]);
        let class = |old: Option<&Lock>, found: &BTreeMap<String, Stability>, refresh| {
            let mut packages = vec![package("a", "2", 1)];
            classify(&mut packages, old, found, refresh);
            packages[0].facts.stability
        };
        let mut old = lock(vec![package("a", "1", 1)]);
        assert_eq!(class(Some(&old), &known(Stability::Slow), false), Some(Stability::Slow), "an old one without");
        old.packages[0].facts.stability = Some(Stability::Lively);
        assert_eq!(class(Some(&old), &known(Stability::Slow), false), Some(Stability::Lively));
        assert_eq!(class(Some(&old), &known(Stability::Slow), true), Some(Stability::Slow));
        assert_eq!(class(Some(&old), &BTreeMap::new(), true), Some(Stability::Lively), "an index that was not there");
        old.edited = vec!["the facts of packages"];
        assert_eq!(class(Some(&old), &known(Stability::Slow), false), Some(Stability::Slow), "written by hand");
        assert_eq!(class(None, &BTreeMap::new(), false), None);
    }

    #[test]
    fn a_size_stays_until_it_has_doubled_or_halved() {
        let planned = |planned: Option<u64>, before: u64, now: u64| {
            let mut old = lock(vec![package("a", "1", before)]);
            old.packages[0].facts.planned_size = planned;
            let mut packages = vec![package("a", "2", now)];
            classify(&mut packages, Some(&old), &BTreeMap::new(), false);
            let kept = packages[0].facts.planned_size;
            classify(&mut packages, Some(&old), &BTreeMap::new(), true);
            assert_eq!(packages[0].facts.planned_size, None, "renewed");
            kept
        };
        assert_eq!(planned(None, 1000, 1020), None, "the same power of two");
        assert_eq!(planned(None, 1000, 1100), Some(1024));
        assert_eq!(planned(Some(1024), 1100, 2047), Some(1024), "of the first one, not of the last");
        assert_eq!(planned(Some(1024), 2047, 2048), None);
        assert_eq!(planned(None, 1000, 300), Some(1024));
        assert_eq!(planned(None, 1000, 255), None);
        assert_eq!(planned(None, 0, 0), None, "nobody says");
    }
}
