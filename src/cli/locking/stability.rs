//! How often packages change, in the locks: a class, once it is there, stays.

use std::collections::BTreeMap;

use super::options::{EnvironmentOptions, LockMode};
use super::resolving;
use crate::cli::world::World;
use crate::lock::{Lock, LockedPackage};
use crate::model::Stability;
use crate::resolve;
use crate::spec::Spec;
use crate::util::Result;

/// Gives packages their classes. The class that a name had in the old lock stays, whatever its version, so that locking
/// again moves no package to another layer; `--refresh-stability` takes what the index says now.
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
    }
}

/// Whether a lock that is current is given classes now: when that is asked for, and by `condaimg lock` when it was made
/// before there were any.
pub fn is_due(lock: &Lock, options: &EnvironmentOptions) -> bool {
    let mut own = lock.packages.iter().filter(|package| !lock.is_of_base(package.name())).peekable();
    let fills = matches!(options.mode, LockMode::Make(_)) && own.peek().is_some();
    options.refresh_stability || (fills && own.all(|package| package.facts.stability.is_none()))
}

/// A lock with the classes that the channels' indexes tell of its packages. Nothing is solved.
///
/// # Errors
/// When no client can be made. A channel that cannot be read is a notice.
pub async fn renew(options: &EnvironmentOptions, spec: &Spec, mut lock: Lock, world: &World) -> Result<Lock> {
    let resolving = resolving(options, &lock.platform, spec, world)?;
    let credentials = resolving.channels_of(spec)?.credentials;
    let own = lock.packages.iter().filter(|package| !lock.is_of_base(package.name()));
    let records: Vec<_> = own.map(|package| package.record.clone()).collect();
    let found = resolve::look_up(&records, &resolving, &credentials).await?.stability;
    let old = lock.clone();
    classify(&mut lock.packages, Some(&old), &found, options.refresh_stability);
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::lock::sample::lock;
    use crate::lock::{Member, PackageFacts};
    use crate::plan::{KeyInputs, LayerPlan, Policy, plan};
    use crate::util::Digest;

    fn package(name: &str, version: &str, size: u64) -> LockedPackage {
        let file = format!("{name}-{version}-0.conda");
        let record = json!({
            "name": name, "version": version, "build": "0", "build_number": 0, "subdir": "linux-64", "depends": [],
            "size": size, "sha256": Digest::of(&file).hex(), "fn": file, "channel": "https://channel.example/c",
            "url": format!("https://channel.example/c/linux-64/{file}"),
        });
        LockedPackage { record: serde_json::from_value(record).expect("a record"), facts: PackageFacts::default() }
    }

    fn planned(lock: &Lock) -> LayerPlan {
        let inputs = KeyInputs {
            prefix: "/opt/env".to_owned(),
            root: "opt/env".to_owned(),
            codec: "gzip".to_owned(),
            group_write: false,
            bytecode: false,
            python: None,
            python_archive: None,
        };
        plan(lock, &Policy::named("default").expect("a policy"), 32, &inputs).expect("a plan")
    }

    /// The names of each layer's packages, by its key.
    fn layers(lock: &Lock) -> BTreeMap<Digest, BTreeSet<String>> {
        let names = |members: &mut dyn Iterator<Item = Member>| {
            members.map(|member| lock.member_name(member).to_owned()).collect::<BTreeSet<_>>()
        };
        planned(lock).layers.iter().map(|layer| (layer.key, names(&mut layer.members()))).collect()
    }

    fn by_name(packages: &[LockedPackage], rates: &[f64]) -> BTreeMap<String, Stability> {
        packages
            .iter()
            .zip(rates)
            .map(|(package, rate)| (package.name().to_owned(), Stability::of_rate(*rate)))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Rates measured later, of any class, and another version of one package: all layers without it stay.
        #[test]
        fn a_later_index_moves_no_package_that_was_locked(
            sizes in prop::collection::vec(0_u64..30_000_000, 2..20),
            rates in prop::collection::vec(0.0..40.0_f64, 20),
            later in prop::collection::vec(0.0..40.0_f64, 20),
            bumped in any::<prop::sample::Index>(),
        ) {
            let name = |index: usize| format!("{}-{index:02}", if index.is_multiple_of(3) { "numpy" } else { "app" });
            let mut packages: Vec<LockedPackage> =
                sizes.iter().enumerate().map(|(index, size)| package(&name(index), "1", *size)).collect();
            packages.sort_by(|a, b| a.name().cmp(b.name()));
            let found = by_name(&packages, &rates);
            classify(&mut packages, None, &found, false);
            let old = lock(packages.clone());
            let mut again = packages.clone();
            again.iter_mut().for_each(|package| package.facts = PackageFacts::default());
            classify(&mut again, Some(&old), &by_name(&packages, &later), false);
            prop_assert_eq!(layers(&lock(again.clone())), layers(&old));

            let bumped = bumped.index(again.len());
            let name = again[bumped].name().to_owned();
            let size = again[bumped].size();
            again[bumped] = package(&name, "2", size);
            classify(&mut again, Some(&old), &by_name(&packages, &later), false);
            let new = layers(&lock(again));
            for (key, names) in layers(&old).iter().filter(|(_, names)| !names.contains(&name)) {
                prop_assert_eq!(new.get(key), Some(names));
            }
        }

        /// Within a class the rate is of no account.
        #[test]
        fn rates_within_a_class_make_the_same_layers(
            classes in prop::collection::vec((0_usize..4, 0.0..1.0_f64, 0.0..1.0_f64), 2..20),
            sizes in prop::collection::vec(0_u64..30_000_000, 20),
        ) {
            let bounds = [0.0, 1.0, 4.0, 12.0, 100.0];
            let rates = |part: fn(&(usize, f64, f64)) -> f64| -> Vec<f64> {
                let rate = |class: &(usize, f64, f64)| bounds[class.0] + part(class) * (bounds[class.0 + 1] - bounds[class.0]);
                classes.iter().map(rate).collect()
            };
            let made = |rates: &[f64]| {
                let mut packages: Vec<LockedPackage> =
                    (0..rates.len()).map(|index| package(&format!("app-{index:02}"), "1", sizes[index])).collect();
                let found = by_name(&packages, rates);
                classify(&mut packages, None, &found, false);
                lock(packages)
            };
            let (one, other) = (made(&rates(|class| class.1)), made(&rates(|class| class.2)));
            prop_assert_eq!(planned(&one), planned(&other));
        }
    }

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
}
