//! What a user should know of an environment before relying on its image.

use std::collections::BTreeMap;

use super::{Lock, LockedPackage, RESERVED_VARIABLES};
use crate::model::pyc::module_of;

/// The warnings about a lock: variables that are ignored, paths that two packages bring, scripts that are not run.
pub fn warnings(lock: &Lock) -> Vec<String> {
    let reserved = RESERVED_VARIABLES.into_iter().filter(|name| lock.variables.contains_key(*name)).map(|name| {
        format!("`variables:` sets `{name}`, which conda reserves: it is ignored (`--env {name}=VALUE` sets it)")
    });
    let wheels = lock.wheels.iter().flat_map(|wheel| clobbered(&wheel.name, &wheel.facts.clobbered, &BTreeMap::new()));
    reserved.chain(lock.packages.iter().flat_map(of_package)).chain(wheels).collect()
}

fn of_package(package: &LockedPackage) -> Vec<String> {
    let name = package.name();
    let facts = &package.facts;
    let mut warnings = clobbered(name, &facts.clobbered, &facts.obstacles);
    if let Some(script) = &facts.post_link {
        warnings.push(format!(
            "`{name}` has a post-link script (`{script}`), which is not run: what it would do is missing in the image"
        ));
    }
    warnings
}

/// The paths that a package loses, a line for each of those that win. Byte code goes with its module, and has a line
/// of its own where the package has no such module. So has what a file of the winner is in the way of: `obstacles`.
fn clobbered(name: &str, lost: &BTreeMap<String, String>, obstacles: &BTreeMap<String, String>) -> Vec<String> {
    let mut by_winner: BTreeMap<(bool, &str, Option<&str>), Vec<&str>> = BTreeMap::new();
    for (path, winner) in lost {
        let module = module_of(path);
        if !module.as_ref().is_some_and(|module| lost.contains_key(module)) {
            let obstacle = obstacles.get(path).map(String::as_str);
            let is_bytecode = obstacle.is_none() && module.is_some();
            by_winner.entry((is_bytecode, winner, obstacle)).or_default().push(path);
        }
    }
    let line = |((is_bytecode, winner, obstacle), paths): ((bool, &str, Option<&str>), Vec<&str>)| {
        let more = if paths.len() > 1 { format!(" and {} more", paths.len() - 1) } else { String::new() };
        let first = paths.first().copied().unwrap_or_default();
        match obstacle {
            None if is_bytecode => format!("left out `{first}`{more} of `{name}`: byte code for modules of `{winner}`"),
            None => {
                format!("`{winner}` and `{name}` both bring `{first}`{more}: the one of `{winner}` is in the image")
            }
            Some(file) if file.len() < first.len() => {
                format!("left out `{first}`{more} of `{name}`: `{winner}` has a file at `{file}`")
            }
            Some(file) => {
                format!("left out the file `{first}` of `{name}`: `{winner}` has a folder there, with `{file}` in it")
            }
        }
    };
    by_winner.into_iter().map(line).collect()
}
