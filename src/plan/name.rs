//! What layers are called: after what is in them. A name follows from the packages of the layer, none of it from their
//! versions, so that a release renames nothing; it is part of no key.

use std::collections::BTreeMap;

use super::PlannedLayer;
use crate::lock::{Lock, Member};
use crate::model::LayerRole;

/// Names of layers without packages, which packages may have too.
const RESERVED: [&str; 4] = ["base", "environment", "project-files", "removals"];

/// Names all layers of a plan; no two get the same name.
pub(super) fn give(lock: &Lock, layers: &mut [PlannedLayer]) {
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for layer in layers.iter_mut() {
        layer.name = name(lock, layer, "");
        *known.entry(layer.name.clone()).or_default() += 1;
    }
    for layer in layers.iter_mut() {
        if known.get(&layer.name).is_some_and(|count| *count > 1) || RESERVED.contains(&layer.name.as_str()) {
            let source = match lead(lock, layer) {
                Some(Member::Wheel(_)) => " (wheel)",
                _ => " (package)",
            };
            layer.name = name(lock, layer, source);
        }
    }
}

/// `LEAD`, or `LEAD + N more` of several packages; bytecode says that it is.
fn name(lock: &Lock, layer: &PlannedLayer, source: &str) -> String {
    let lead = lead(lock, layer).map_or("", |lead| lock.member_name(lead));
    let more = match of_role(layer).count() {
        0 | 1 => String::new(),
        count => format!(" + {} more", count - 1),
    };
    let role = if layer.role() == LayerRole::Bytecode { " (bytecode)" } else { "" };
    format!("{lead}{source}{more}{role}")
}

/// The packages that a layer is named after.
fn of_role(layer: &PlannedLayer) -> impl Iterator<Item = Member> + '_ {
    let is_bytecode = layer.role() == LayerRole::Bytecode;
    layer.segments.iter().filter(move |it| is_bytecode || it.kind == super::SegmentKind::Files).map(|it| it.member)
}

/// The package with the largest planned size, which stays when a package is locked again; of equal ones the first by name.
fn lead(lock: &Lock, layer: &PlannedLayer) -> Option<Member> {
    of_role(layer).min_by(|a, b| {
        let size = |member: &Member| std::cmp::Reverse(lock.member_planned_size(*member));
        size(a).cmp(&size(b)).then_with(|| (lock.member_name(*a), a).cmp(&(lock.member_name(*b), b)))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::tests::{Made, environments, lock, planned_by};
    use super::*;
    use crate::model::{MAX_LAYERS, MIN_LAYERS};
    use crate::plan::LayerPlan;

    /// Names, each with what is in the layer.
    fn names(lock: &Lock, plan: &LayerPlan) -> BTreeMap<BTreeSet<(String, bool)>, String> {
        let members = |layer: &PlannedLayer| {
            let segments = layer.segments.iter();
            let named = segments
                .map(|it| (lock.member_name(it.member).to_owned(), it.kind == super::super::SegmentKind::Files));
            named.collect()
        };
        plan.layers.iter().map(|layer| (members(layer), layer.name.clone())).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn no_two_layers_have_one_name(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            for policy in ["default", "shared", "tiers", "single"] {
                let lock = lock(&packages);
                let plan = planned_by(policy, &lock, max, true);
                let names: BTreeSet<&str> = plan.layers.iter().map(|layer| layer.name.as_str()).collect();
                prop_assert_eq!(names.len(), plan.layers.len());
            }
        }

        /// Whatever else is in the image, and whatever versions they have.
        #[test]
        fn equal_membership_has_an_equal_name(packages in environments(), max in MIN_LAYERS..=MAX_LAYERS) {
            prop_assume!(!packages.is_empty());
            let later: Vec<Made> =
                packages[1..].iter().map(|made| Made { version: Some("4.0"), ..made.clone() }).collect();
            let (before, after) = (lock(&packages), lock(&later));
            let old = names(&before, &planned_by("default", &before, max, true));
            let new = names(&after, &planned_by("default", &after, max, true));
            for (members, name) in &new {
                prop_assert!(old.get(members).is_none_or(|old| old == name), "{:?}: {}", old.get(members), name);
            }
        }
    }

    #[test]
    fn names_say_what_is_inside() {
        let packages = [
            Made::new("requests", 60_000).noarch(),
            Made::new("idna", 10_000).noarch(),
            Made::new("urllib3", 30_000).noarch(),
            Made::new("numpy", 9_000_000),
        ];
        let lock = lock(&packages);
        let names = |policy: &str| {
            let layers = planned_by(policy, &lock, 32, true).layers;
            layers.into_iter().map(|layer| (layer.role().name(), layer.name)).collect::<Vec<_>>()
        };
        let named = |all: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
            all.iter().map(|(role, name)| (*role, (*name).to_owned())).collect()
        };
        assert_eq!(names("single"), named(&[("packages", "numpy + 3 more")]));
        let by_tier =
            [("packages", "numpy"), ("packages", "requests + 2 more"), ("bytecode", "requests + 2 more (bytecode)")];
        assert_eq!(names("tiers"), named(&by_tier));
    }

    #[test]
    fn a_package_takes_no_reserved_name() {
        let lock = lock(&[Made::new("environment", 9_000_000)]);
        let plan = planned_by("default", &lock, 32, true);
        assert_eq!(plan.layers[0].name, "environment (package)");
    }
}
