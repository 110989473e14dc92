//! The order of activation: what ends up in the image's `Env` is done before any script that needs a shell, whatever their
//! names. A static script that conda would source after one of those is sourced by the entry script, too, unless
//! neither can notice the difference.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, file};
use crate::lock::{ActivationStep, Lock, LockedPackage};

/// Words of a script that may set a variable which it does not name.
const OPEN_ENDED: [&str; 9] = [".", "source", "eval", "declare", "typeset", "printf", "read", "mapfile", "readarray"];

/// Which scripts are done where.
#[derive(Debug, Clone, Default)]
pub struct Order<'a> {
    /// What `env_vars.d` does.
    pub variables: Vec<&'a ActivationStep>,
    /// What scripts do that is done in `Env`, in their order.
    pub steps: Vec<&'a ActivationStep>,
    /// The scripts that the entry script sources.
    pub sourced: BTreeSet<&'a str>,
    /// Those of them that need no shell, by package.
    pub late: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

/// Decides what is done where; `is_sourced` is whether the image has an entry script at all. A base that a lock of ours
/// describes has the variables of its environment already, and perhaps others on purpose: its packages are not heard
/// again.
pub fn order(lock: &Lock, is_sourced: bool) -> Order<'_> {
    let is_active = lock.extended().is_some_and(|extended| extended.lock.is_some());
    let of_base = |package: &LockedPackage| is_active && lock.is_of_base(package.name());
    let dynamic = scripts(lock.packages.iter());
    let dynamic_of_base = scripts(lock.packages.iter().filter(|package| of_base(package)));
    let mut order = Order { sourced: dynamic.keys().copied().collect(), ..Order::default() };
    for package in &lock.packages {
        let (of_base, facts) = (of_base(package), &package.facts);
        let mut files: BTreeMap<&str, Vec<&ActivationStep>> = BTreeMap::new();
        for step in facts.activation.steps.iter().filter(|step| !facts.leaves_out(&step.file)) {
            files.entry(&step.file).or_default().push(step);
        }
        for (name, steps) in files {
            let is_script = file(name) == Some(File::Script);
            let mut earlier = if of_base { &dynamic_of_base } else { &dynamic }.range(..name);
            if is_script && is_sourced && !earlier.all(|(_, text)| leaves_alone(*text, &steps)) {
                order.sourced.insert(name);
                order.late.entry(package.name()).or_default().insert(name);
            } else if !of_base {
                let list = if is_script { &mut order.steps } else { &mut order.variables };
                list.extend(steps);
            }
        }
    }
    // Stable: several steps of one file stay in their order.
    order.steps.sort_by(|a, b| a.file.cmp(&b.file));
    order.variables.sort_by(|a, b| a.file.cmp(&b.file));
    order
}

/// The scripts of packages that need a shell, with their texts.
fn scripts<'a>(packages: impl Iterator<Item = &'a LockedPackage>) -> BTreeMap<&'a str, Option<&'a str>> {
    let of_package = |package: &'a LockedPackage| {
        let (activation, facts) = (&package.facts.activation, &package.facts);
        let files = activation.dynamic.iter().filter(|file| !facts.leaves_out(file));
        files.map(|file| (file.as_str(), activation.scripts.get(file).map(String::as_str)))
    };
    packages.flat_map(of_package).collect()
}

/// Whether a script that needs a shell and steps that conda would do after it come to the same in any order.
fn leaves_alone(script: Option<&str>, steps: &[&ActivationStep]) -> bool {
    let Some(script) = script else { return false };
    let mut words = script.split(|char: char| char.is_whitespace() || ";|&(){}`\"'$\\".contains(char));
    if words.any(|word| OPEN_ENDED.contains(&word)) || script.contains("export $") || script.contains("export \"$") {
        return false;
    }
    steps.iter().all(|step| {
        let is_fixed = step.value.as_ref().is_some_and(|value| !value.contains("${PATH}"));
        is_fixed && !step.if_set && step.name != "PATH" && !script.contains(&step.name)
    })
}

#[cfg(test)]
mod tests {
    use super::super::add_script;
    use super::*;
    use crate::lock::sample;

    const FOLDER: &str = "etc/conda/activate.d/";

    fn lock(scripts: &[(&str, &str)]) -> Lock {
        let packages = scripts.iter().map(|(name, script)| {
            let mut package = sample::package(name, "1", 1);
            let file = format!("{FOLDER}{name}.sh");
            add_script(&mut package.facts.activation, &file, Some(script.as_bytes()), None);
            package
        });
        sample::lock(packages.collect())
    }

    /// Names of what is in `Env`, and of the scripts that are sourced.
    fn split(lock: &Lock, is_sourced: bool) -> (Vec<&str>, Vec<&str>) {
        let order = order(lock, is_sourced);
        let sourced = order.sourced.iter().map(|file| file.trim_start_matches(FOLDER).trim_end_matches(".sh"));
        (order.steps.iter().map(|step| step.name.as_str()).collect(), sourced.collect())
    }

    #[test]
    fn static_scripts_after_dynamic_ones_keep_their_place() {
        for (second, third, is_late) in [
            ("export X=$(echo dyn)", "export X=final", true),
            ("echo $Y", "export Y=late", true),
            ("export X=$(echo dyn)", "export PATH=/b:$PATH", true),
            ("export X=$(echo dyn)", "export Y=$PATH", true),
            ("export X=$(echo dyn)", "unset Y", true),
            ("export X=$(echo dyn)", "XX=/x", true),
            (". \"$CONDA_PREFIX/x\"", "export Y=1", true),
            ("eval \"$Z\"", "export Y=1", true),
            ("export X=$(echo dyn)", "export Y=$CONDA_PREFIX/y", false),
        ] {
            let lock = lock(&[("a", "export FIRST=1\nexport PATH=/a:$PATH"), ("b", second), ("c", third)]);
            let (env, sourced) = split(&lock, true);
            assert_eq!(env[..2], ["FIRST", "PATH"], "{third}");
            assert_eq!(sourced, if is_late { vec!["b", "c"] } else { vec!["b"] }, "{second}, {third}");
            assert_eq!(env.len(), if is_late { 2 } else { 3 }, "{second}, {third}");
            // Without an entry script there is nothing that could come between.
            assert_eq!(split(&lock, false).0.len(), 3, "{third}");
        }
    }

    #[test]
    fn a_script_that_another_package_replaces_is_not_heard() {
        let mut lock = lock(&[("a", "export A=$(date)"), ("b", "export B=1")]);
        for (index, name) in ["a", "b"].into_iter().enumerate() {
            let clobbered = &mut lock.packages[index].facts.clobbered;
            clobbered.insert(format!("{FOLDER}{name}.sh"), "other".to_owned());
        }
        assert_eq!(split(&lock, true), (Vec::new(), Vec::new()));
    }
}
