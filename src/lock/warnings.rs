//! What a user should know of an environment before relying on its image.

use std::collections::BTreeMap;

use super::{Lock, LockedPackage, RESERVED_VARIABLES};
use crate::model::pyc::module_of;

/// The warnings about a lock: variables that are ignored, paths that two packages bring, scripts that are not run.
pub fn warnings(lock: &Lock) -> Vec<String> {
    let reserved = RESERVED_VARIABLES.into_iter().filter(|name| lock.variables.contains_key(*name)).map(|name| {
        format!("`variables:` sets `{name}`, which conda reserves: it is ignored (`--env {name}=VALUE` sets it)")
    });
    let wheels = lock.wheels.iter().flat_map(|wheel| clobbered(&wheel.name, &wheel.facts.clobbered));
    reserved.chain(lock.packages.iter().flat_map(of_package)).chain(wheels).collect()
}

fn of_package(package: &LockedPackage) -> Vec<String> {
    let name = package.name();
    let facts = &package.facts;
    let mut warnings = clobbered(name, &facts.clobbered);
    if let Some(script) = &facts.post_link {
        warnings.push(format!(
            "`{name}` has a post-link script (`{script}`), which is not run: what it would do is missing in the image"
        ));
    }
    warnings
}

/// The paths that a package loses, a line for each of those that win. Byte code goes with its module, and has a line
/// of its own where the package has no such module.
fn clobbered(name: &str, lost: &BTreeMap<String, String>) -> Vec<String> {
    let mut by_winner: BTreeMap<(bool, &str), Vec<&str>> = BTreeMap::new();
    for (path, winner) in lost {
        let module = module_of(path);
        if !module.as_ref().is_some_and(|module| lost.contains_key(module)) {
            by_winner.entry((module.is_some(), winner)).or_default().push(path);
        }
    }
    let line = |((is_bytecode, winner), paths): ((bool, &str), Vec<&str>)| {
        let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
        let first = paths.first().copied().unwrap_or_default();
        match is_bytecode {
            true => format!("left out `{first}`{more} of `{name}`: byte code for modules of `{winner}`"),
            false => {
                format!("`{winner}` and `{name}` both bring `{first}`{more}: the one of `{winner}` is in the image")
            }
        }
    };
    by_winner.into_iter().map(line).collect()
}
