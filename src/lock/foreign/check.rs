//! Whether pinned packages can work together, and on the machine that the image is for. A solver would have seen to
//! it; tools that install from locks do not ask.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rattler_conda_types::{
    GenericVirtualPackage, MatchSpec, Matches as _, PackageRecord, ParseStrictness, RepoDataRecord,
};

use super::some;
use crate::lock::dependency_name;
use crate::model::flag_for_virtual_package;
use crate::util::{Error, Result};

/// What packages need and the set does not have, one line each: the package, its need, and what is there instead.
pub fn missing_dependencies(records: &[RepoDataRecord]) -> Vec<String> {
    let by_name: BTreeMap<&str, &PackageRecord> =
        records.iter().map(|record| (record.package_record.name.as_normalized(), &record.package_record)).collect();
    let mut missing = Vec::new();
    for (name, record) in &by_name {
        for text in record.depends.iter().filter(|text| !text.starts_with("__")) {
            let found = by_name.get(dependency_name(text)).copied();
            match (found, MatchSpec::from_str(text, ParseStrictness::Lenient)) {
                (None, _) => missing.push(format!("`{name}` needs `{text}`, which is not there")),
                (Some(found), Ok(spec)) if !spec.matches(found) => {
                    missing.push(format!("`{name}` needs `{text}`, and there is {} {}", found.version, found.build));
                }
                _ => {}
            }
        }
    }
    missing
}

/// Refuses packages that do not run on the target: their dependencies on virtual packages (`__glibc >=2.28`).
///
/// # Errors
/// Names the packages, what they need, and how to declare it.
pub fn refuse_unfit_target(file: &Path, records: &[RepoDataRecord], target: &[GenericVirtualPackage]) -> Result<()> {
    // By what is needed: one driver too old is one reason, however many packages want it.
    let mut unfit: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for record in records.iter().map(|record| &record.package_record) {
        for text in record.depends.iter().filter(|text| text.starts_with("__")) {
            let Ok(spec) = MatchSpec::from_str(text, ParseStrictness::Lenient) else { continue };
            if !target.iter().any(|package| spec.matches(package)) {
                unfit.entry(text).or_default().push(record.name.as_normalized().to_owned());
            }
        }
        // Constraints hold for what is there.
        for text in record.constrains.iter().filter(|text| text.starts_with("__")) {
            let Ok(spec) = MatchSpec::from_str(text, ParseStrictness::Lenient) else { continue };
            if target.iter().any(|package| spec.name.matches(&package.name) && !spec.matches(package)) {
                unfit.entry(text).or_default().push(record.name.as_normalized().to_owned());
            }
        }
    }
    if unfit.is_empty() {
        return Ok(());
    }
    let needs: Vec<String> = unfit.iter().map(|(need, packages)| format!("`{need}` ({})", some(packages))).collect();
    let names: BTreeSet<&str> = unfit.keys().map(|need| dependency_name(need)).collect();
    let assumed = |name: &str| target.iter().find(|package| package.name.as_normalized() == name);
    let has = names.iter().map(|name| match assumed(name) {
        Some(package) => package.to_string(),
        None => format!("no {name}"),
    });
    let error = Error::user(format!(
        "the packages of `{}` do not run on the target: they need {}, and the target has {}",
        file.display(),
        needs.join("; "),
        has.collect::<Vec<_>>().join(" and ")
    ));
    let mut hints: Vec<String> = Vec::new();
    for need in unfit.keys() {
        let version = assumed(dependency_name(need)).map(|package| package.version.to_string());
        let hint = flag_for_virtual_package(need, version.as_deref());
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    Err(hints.into_iter().fold(error, Error::hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, version: &str, depends: &[&str], constrains: &[&str]) -> RepoDataRecord {
        let file = format!("{name}-{version}-0.conda");
        serde_json::from_value(serde_json::json!({
            "name": name, "version": version, "build": "0", "build_number": 0, "subdir": "linux-64",
            "depends": depends, "constrains": constrains, "fn": file,
            "url": format!("https://host/c/linux-64/{file}"), "channel": "https://host/c",
        }))
        .expect("a record")
    }

    fn target(packages: &[(&str, &str)]) -> Vec<GenericVirtualPackage> {
        let package = |(name, version): &(&str, &str)| GenericVirtualPackage {
            name: name.parse().expect("a name"),
            version: version.parse().expect("a version"),
            build_string: "0".parse().expect("a build"),
        };
        packages.iter().map(package).collect()
    }

    #[test]
    fn an_incomplete_set_is_told() {
        let records = [
            record("app", "1", &["lib >=2", "gone", "python >=3", "__unix"], &[]),
            record("lib", "1", &["app"], &[]),
            record("python", "3.11", &[], &[]),
        ];
        let expected = ["`app` needs `lib >=2`, and there is 1 0", "`app` needs `gone`, which is not there"];
        assert_eq!(missing_dependencies(&records), expected);
    }

    #[test]
    fn packages_must_fit_the_target() {
        let check = |depends: &[&str], constrains: &[&str], has: &[(&str, &str)]| {
            let records = [record("app", "1", depends, constrains)];
            refuse_unfit_target(Path::new("pixi.lock"), &records, &target(has))
        };
        let has = [("__glibc", "2.36"), ("__unix", "0")];
        check(&["__glibc >=2.28,<3.0.a0", "__unix"], &["__cuda >=12"], &has).expect("fits");
        for (depends, constrains, hint) in [
            (&["__glibc >=2.38"][..], &[][..], "--glibc"),
            (&["__cuda"], &[], "--cuda"),
            (&[], &["__glibc >=2.38"], "--glibc"),
            (&["__archspec"], &[], "--virtual-package __archspec"),
        ] {
            let error = check(depends, constrains, &has).expect_err(hint);
            let need = depends.iter().chain(constrains).next().expect("a need");
            assert!(error.to_string().contains(&format!("`{need}` (app)")), "{error}");
            assert!(error.hints().iter().any(|line| line.contains(hint)), "{:?}", error.hints());
        }
    }
}
