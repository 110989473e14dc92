//! The variables of an image.

use std::collections::{BTreeMap, BTreeSet};

use super::Base;

/// `PATH` where the base has none: Debian's and Docker's.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `Env` of an image, in an order that depends on nothing but the base and the variables: first the
/// base's variables in the base's order, with our values where both have one, `PATH` among them (last of them
/// when the base has none); then ours, sorted by name.
///
/// `PATH` is the prefix folders, then the base's own, without the prefix folders it has already. A `PATH`
/// among `ours` was asked for as it is, and stays so.
pub(super) fn variables(base: &[String], ours: &BTreeMap<String, String>, path_prefix: &[String]) -> Vec<String> {
    let mut names: Vec<&str> = Vec::new();
    let mut values: BTreeMap<&str, String> = BTreeMap::new();
    for variable in base {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if !names.contains(&name) {
            names.push(name);
        }
        values.insert(name, value.to_owned());
    }
    if !names.contains(&"PATH") {
        names.push("PATH");
    }
    let path = extended(values.get("PATH").map(String::as_str), path_prefix);
    values.insert("PATH", path);
    for (name, value) in ours {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
        values.insert(name, value.clone());
    }
    names.into_iter().filter_map(|name| Some(format!("{name}={}", values.get(name)?))).collect()
}

/// Variables without those of some names.
pub(super) fn without(variables: &[String], removed: &BTreeSet<String>) -> Vec<String> {
    let is_kept = |variable: &&String| variable.split('=').next().is_none_or(|name| !removed.contains(name));
    variables.iter().filter(is_kept).cloned().collect()
}

fn variables_of(base: &Base) -> Vec<String> {
    base.config.config().as_ref().and_then(|config| config.env().clone()).unwrap_or_default()
}

/// The names of a base's variables.
pub fn variable_names(base: &Base) -> BTreeSet<String> {
    let name = |variable: String| variable.split('=').next().map(str::to_owned);
    variables_of(base).into_iter().filter_map(name).collect()
}

/// The value of a variable of a base.
pub fn variable_of(base: &Base, name: &str) -> Option<String> {
    let variables = variables_of(base);
    let value = variables.iter().rev().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='));
    value.map(str::to_owned)
}

/// The `PATH` of an image on a base, with folders before the base's own.
pub fn path(base: &Base, prefix: &[String]) -> String {
    let variables = variables_of(base);
    let path = variables.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    extended(path, prefix)
}

fn extended(path: Option<&str>, prefix: &[String]) -> String {
    let path = path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH);
    let rest = path.split(':').filter(|folder| !prefix.iter().any(|ours| ours == folder));
    prefix.iter().map(String::as_str).chain(rest).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &[&str], ours: &[(&str, &str)], prefix: &[&str], expected: &[&str]) {
        let base: Vec<String> = base.iter().map(|&text| text.to_owned()).collect();
        let ours = ours.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        let prefix: Vec<String> = prefix.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(variables(&base, &ours, &prefix), expected);
    }

    #[test]
    fn what_is_removed_of_the_base_is_gone() {
        let base = ["PYTHONPATH=/x=y", "PYTHON=1", "EMPTY"].map(str::to_owned);
        let removed = ["PYTHONPATH", "EMPTY", "OTHER"].map(str::to_owned).into();
        assert_eq!(without(&base, &removed), ["PYTHON=1"]);
    }

    #[test]
    fn the_base_comes_first_and_path_is_extended() {
        check(
            &["LANG=C", "PATH=/usr/bin:/opt/x/bin", "A=1"],
            &[("B", "2=3"), ("A", "new")],
            &["/opt/x/bin"],
            &["LANG=C", "PATH=/opt/x/bin:/usr/bin", "A=new", "B=2=3"],
        );
        check(&[], &[("A", "1")], &["/p"], &[&format!("PATH=/p:{DEFAULT_PATH}"), "A=1"]);
        check(&["PATH=/usr/bin"], &[("PATH", "/mine")], &["/p"], &["PATH=/mine"]);
        check(&["A=1", "A=2", "EMPTY"], &[], &[], &["A=2", "EMPTY=", &format!("PATH={DEFAULT_PATH}")]);
    }
}
