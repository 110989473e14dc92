//! What a later index and another version may move: properties of the plans of locks that are made again.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{KeyInputs, LayerPlan, Policy, plan};
use crate::lock::sample::{lock, package};
use crate::lock::{Lock, LockedPackage, Member, PackageFacts, classify};
use crate::model::Stability;
use crate::util::Digest;

fn planned(lock: &Lock) -> LayerPlan {
    let inputs = KeyInputs {
        prefix: "/opt/env".to_owned(),
        root: "opt/env".to_owned(),
        folders: crate::model::Folders::default(),
        codec: "gzip".to_owned(),
        group_write: false,
        keep_setuid: false,
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
    packages.iter().zip(rates).map(|(package, rate)| (package.name().to_owned(), Stability::of_rate(*rate))).collect()
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
        // Larger, but not by as much as would count.
            let size = again[bumped].size().saturating_mul(3) / 2;
        again[bumped] = package(&name, "2", size);
        classify(&mut again, Some(&old), &by_name(&packages, &later), false);
        let new = layers(&lock(again));
        for (key, names) in layers(&old).iter().filter(|(_, names)| !names.contains(&name)) {
            prop_assert_eq!(new.get(key), Some(names));
        }
    }
}
