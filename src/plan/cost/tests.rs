//! Properties of the plans.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::tests::{Made, environments, lock, planned_by};
use super::super::weights::{Counted, Source};
use super::super::{LayerPlan, LayerRule, MAX_LAYERS, MIN_LAYERS, Segment, Tier, reasons};
use super::*;
use crate::model::Stability;
use crate::util::Digest;

/// With classes that follow from the names, as an index would give them.
fn classed(packages: &[Made]) -> Lock {
    let mut lock = lock(packages);
    for package in &mut lock.packages {
        let sum: usize = package.name().bytes().map(usize::from).sum();
        package.facts.stability = Stability::ALL.get(sum % 5).copied();
    }
    lock
}

fn planned(lock: &Lock, max: usize) -> LayerPlan {
    planned_by("default", lock, max, true)
}

/// The layers, each as the names of what is in it.
fn layers(lock: &Lock, plan: &LayerPlan) -> Vec<BTreeSet<(String, SegmentKind)>> {
    let name = |segment: &Segment| (lock.member_name(segment.member).to_owned(), segment.kind);
    plan.layers.iter().map(|layer| layer.segments.iter().map(name).collect()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_part_is_in_one_layer_within_the_limit(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
        let lock = classed(&packages);
        for policy in ["default", "shared"] {
            let plan = planned_by(policy, &lock, max, true);
            prop_assert!(plan.layers.len() < max, "{} and the environment layer with {max}", plan.layers.len());
            let layers = layers(&lock, &plan);
            let compiled = lock.packages.iter().filter(|package| package.facts.bytecode).count();
            prop_assert_eq!(layers.iter().map(BTreeSet::len).sum::<usize>(), lock.packages.len() + compiled);
            prop_assert_eq!(layers.iter().flatten().collect::<BTreeSet<_>>().len(), lock.packages.len() + compiled);
            let names: BTreeSet<&str> = plan.layers.iter().map(|layer| layer.name.as_str()).collect();
            prop_assert_eq!(names.len(), plan.layers.len(), "names are unique");
        }
    }

    #[test]
    fn equal_locks_have_equal_plans(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
        let mut turned = packages.clone();
        turned.reverse();
        prop_assert_eq!(planned(&classed(&packages), max), planned(&classed(&turned), max));
    }

    /// Below the limit no package changes layers because another one appeared.
    #[test]
    fn a_new_package_moves_no_other(packages in environments(), name in "[a-z]{3,8}-new", size in 0_u64..50_000_000) {
        let new = Made { noarch: true, bytecode: true, ..Made::new(&name, size) };
        let (before, after) = (classed(&packages), classed(&[packages, vec![new]].concat()));
        let without = |lock: &Lock| -> BTreeSet<BTreeSet<(String, SegmentKind)>> {
            let layers = layers(lock, &planned(lock, MAX_LAYERS)).into_iter();
            let left = layers.map(|layer| layer.into_iter().filter(|(it, _)| *it != name).collect());
            left.filter(|layer: &BTreeSet<_>| !layer.is_empty()).collect()
        };
        prop_assert_eq!(without(&before), without(&after));
    }

    /// A release of about the same size changes the layers that it is in, and moves nothing.
    #[test]
    fn a_release_moves_nothing(packages in environments(), which: prop::sample::Index, max in 4_usize..20) {
        prop_assume!(!packages.is_empty());
        let mut later = packages.clone();
        let which = which.index(packages.len());
        later[which].depends.push("absent >=1".to_owned());
        let (before, after) = (classed(&packages), classed(&later));
        let (old, new) = (planned(&before, max), planned(&after, max));
        prop_assert_eq!(layers(&before, &old), layers(&after, &new));
        let python = packages[which].name == "python";
        for (old, (new, parts)) in old.layers.iter().zip(new.layers.iter().zip(layers(&after, &new))) {
            let touched = parts.iter().any(|(name, kind)| {
                *name == packages[which].name || (python && *kind == SegmentKind::Bytecode)
            });
            prop_assert_eq!(old.key != new.key, touched, "{}", new.name);
        }
    }
}

/// Rates that differ within a class make equal locks, and so equal plans; classes do move layers.
#[test]
fn rates_within_a_class_are_one() {
    let packages = [Made::new("zlib", 2_000_000), Made::new("six", 2_000_000), Made::new("mine", 2_000_000)];
    let with = |rate: f64| {
        let mut lock = lock(&packages);
        lock.packages[2].facts.stability = Some(Stability::of_rate(rate));
        let plan = planned(&lock, 3);
        layers(&lock, &plan)
    };
    assert_eq!(with(5.1), with(8.9));
    assert_ne!(with(0.1), with(50.0));
}

/// Against all cuts of small orders.
#[test]
fn the_cut_is_the_cheapest() {
    let sizes = [900_000, 20_000, 5_000_000, 70_000, 1_000_000, 300_000];
    let packages: Vec<Made> =
        sizes.iter().enumerate().map(|(at, &size)| Made::new(&format!("app{at}"), size)).collect();
    let lock = lock(&packages);
    let weights = Weights::of(&lock);
    let unit = |(at, part): (usize, Part)| {
        let mut unit = Unit::new(&lock, &weights, 0, true, part);
        unit.sources = vec![Source { id: at, class: Stability::ALL[at % 4] }];
        unit
    };
    let units: Vec<Unit> = weights.parts(true).enumerate().map(unit).collect();
    let price = |runs: &[Run]| runs.iter().map(|run| cut::cost(run) + LAYER_COST).sum::<f64>();
    for most in 1..=sizes.len() {
        let mut cheapest = f64::INFINITY;
        for cuts in 0_u32..1 << (sizes.len() - 1) {
            let ends: Vec<usize> =
                (1..sizes.len()).filter(|at| cuts >> (at - 1) & 1 == 1).chain([sizes.len()]).collect();
            let firsts = [0].into_iter().chain(ends.iter().copied());
            let runs: Vec<Run> = firsts.zip(&ends).map(|(first, &end)| units[first..end].to_vec()).collect();
            cheapest = if runs.len() <= most { cheapest.min(price(&runs)) } else { cheapest };
        }
        let found = cut::runs(units.clone(), most);
        assert_eq!(found.iter().map(Vec::len).sum::<usize>(), units.len());
        assert!(found.len() <= most && (price(&found) - cheapest).abs() < 1e-6, "{most}: {found:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Of layers that change independently of each other, no exchange of neighbours makes the chain model cheaper.
    #[test]
    fn the_order_is_the_cheapest(packages in environments(), most in 1_usize..20) {
        let alone = |made: Made| Made { bytecode: false, build: None, ..made };
        let lock = classed(&packages.into_iter().map(alone).collect::<Vec<_>>());
        let policy = Policy::named("single").expect("a policy");
        let policy = Policy { tiers: vec![Tier { together: false, ..policy.tiers[0].clone() }], ..policy };
        let units = order::units(&lock, unit::units(&lock, &policy, &Weights::of(&lock), true));
        let mut runs = cut::runs(units, most);
        order::runs(&lock, &mut runs, 1.0);
        let chain = |runs: &[Run]| {
            let mut below = Counted::default();
            let cost = |run: &Run| {
                run.iter().flat_map(|unit| &unit.sources).for_each(|&source| below.add(source));
                run.iter().map(|unit| unit.size as f64).sum::<f64>() * (1.0 - below.keeps)
            };
            runs.iter().map(cost).sum::<f64>()
        };
        let cost = chain(&runs);
        for at in 1..runs.len() {
            runs.swap(at - 1, at);
            prop_assert!(chain(&runs) >= cost * (1.0 - 1e-9), "{at}: {} {cost}", chain(&runs));
            runs.swap(at - 1, at);
        }
    }
}

/// What is large and stable lies at the bottom, whatever tier it belongs to.
#[test]
fn layers_go_by_what_they_are_expected_to_cost() {
    let packages = [Made::new("lib-huge", 900_000_000), Made::new("python", 30_000_000), Made::new("app", 300_000)];
    let mut lock = lock(&packages);
    for package in &mut lock.packages {
        package.facts.stability = Some(Stability::Steady);
    }
    let plan = planned(&lock, 32);
    let names: Vec<&str> = plan.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["lib-huge", "python", "app"]);
}

/// What was built together is one layer, in the lowest tier of its packages.
#[test]
fn one_build_is_one_layer() {
    let of_build = |name: &str, build| Made { build: Some(build), ..Made::new(name, 5_000_000) };
    let python = Made { depends: vec!["libgcc".to_owned()], ..of_build("python", 1) };
    let packages = [python, of_build("libgcc", 2), of_build("libgfortran", 2), of_build("flask", 3)];
    let lock = lock(&packages);
    let of_libgcc = |policy: &str| {
        let layers = planned_by(policy, &lock, 32, true).layers;
        let layer =
            layers.iter().find(|layer| layer.name.split(" + ").next() == Some("libgcc")).expect("a layer").clone();
        let names: Vec<&str> = layer.members().map(|member| lock.member_name(member)).collect();
        (layer.tier.clone(), names.join(" "))
    };
    assert_eq!(of_libgcc("default"), ("python".to_owned(), "libgcc libgfortran".to_owned()));
    assert_eq!(of_libgcc("shared"), ("python".to_owned(), "libgcc".to_owned()), "others need not have both");
    let plan = planned(&lock, 32);
    let one_time =
        packages.clone().map(|made| Made { build: Some(1), version: (made.name == "flask").then_some("1"), ..made });
    let apart = planned(&super::super::tests::lock(&one_time), 32);
    assert_eq!(apart.layers.len(), 4, "a channel with one time for all says nothing of builds");
    let told = reasons(&lock, &Policy::named("default").expect("a policy"), &plan.layers);
    let rule = told.iter().flatten().find(|reason| lock.member_name(reason.member) == "libgfortran");
    assert_eq!(rule.map(|reason| reason.layer), Some(LayerRule::BuiltTogether));
}

/// Hundreds of small packages are not one layer that changes all the time, and one more moves a few of them at most.
#[test]
fn many_small_packages_are_several_layers() {
    let many = |count: usize| {
        let packages: Vec<Made> = (0..count).map(|at| Made::new(&format!("app-{at:03}"), 100_000)).collect();
        let lock = lock(&packages);
        let layers = layers(&lock, &planned(&lock, MAX_LAYERS));
        layers.into_iter().map(|layer| layer.into_iter().map(|(name, _)| name).collect()).collect::<Vec<BTreeSet<_>>>()
    };
    let (before, after) = (many(299), many(300));
    assert_eq!(before.len(), 16, "39 MB in bins of at most 4 MiB, a power of two of them");
    assert!(before.iter().all(|layer| layer.len() > 5), "{before:?}");
    assert_eq!(before.iter().filter(|layer| !after.contains(layer)).count(), 1, "where the new one is");
}

/// Tiers are kept apart where there are layers enough.
#[test]
fn no_layer_has_packages_of_two_tiers() {
    let large = |name: &str| Made { depends: vec!["openssl".to_owned()], ..Made::new(name, 2_000_000) };
    let mut packages: Vec<Made> = ["python", "openssl", "numpy", "scipy"].iter().map(|name| large(name)).collect();
    packages.extend((0..14).map(|at| large(&format!("app{at}"))));
    let lock = lock(&packages);
    let tiers = |max| planned(&lock, max).layers.into_iter().map(|layer| layer.tier).collect::<BTreeSet<_>>();
    assert_eq!(tiers(16), ["python", "scientific", "project-packages"].map(str::to_owned).into());
    assert_eq!(
        tiers(15),
        ["python", "scientific-project-packages"].map(str::to_owned).into(),
        "fewer than five for each"
    );
    assert_eq!(tiers(8).len(), 1);
    let few = super::super::tests::lock(&packages[..4]);
    assert_eq!(planned(&few, 8).layers.len(), 4, "nothing is scarce");
    assert!(planned(&few, 8).layers.iter().all(|layer| layer.tier != "python-scientific"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// With `shared`, what else is in an image moves no layer of Python and what it needs.
    #[test]
    fn another_image_has_the_same_python(packages in environments(), others in environments(), max in 4_usize..20) {
        let own = |made: &Made| made.name.contains('-') || ["flask", "click", "boto3", "mine"].contains(&made.name.as_str());
        let with = |own: Vec<Made>| {
            let python: Vec<Made> = ["python", "openssl", "libffi", "zlib", "tiny"]
                .iter()
                .enumerate()
                .map(|(at, name)| Made {
                    depends: vec!["openssl".into(), "libffi".into(), "zlib".into(), "tiny".into()],
                    ..Made::new(name, 360_000 << (2 * at))
                })
                .collect();
            classed(&[python, own].concat())
        };
        let layers = |made: &[Made]| -> BTreeSet<Digest> {
            let lock = with(made.iter().filter(|made| own(made)).cloned().collect());
            let plan = planned_by("shared", &lock, max, true);
            let in_it = plan.layers.iter().filter(|layer| layer.tier == "python").flat_map(|layer| layer.members());
            assert_eq!(in_it.count(), 5, "nothing else is there");
            plan.layers.iter().filter(|layer| layer.tier == "python").map(|layer| layer.key).collect()
        };
        let (one, other) = (layers(&packages), layers(&others));
        // The share may be half or a quarter.
        prop_assert!(one == other || one.len() != other.len(), "{:?} {:?}", one, other);
    }
}
