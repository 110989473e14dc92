//! What a user should know of files and only packing finds out: told when everything is packed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::util::{Error, Result, plural};

/// Files that a message names of one package.
const NAMED: usize = 10;

/// Paths in the prefix, by package.
type Files = BTreeMap<String, BTreeSet<String>>;

/// Collects from many threads.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    setuid: Files,
    capabilities: Files,
    unfit: Files,
    misstated: Files,
}

impl Findings {
    /// A file lost its setuid or setgid bits.
    pub fn setuid(&self, package: &str, path: &str) {
        add(&mut self.found().setuid, package, path);
    }

    /// A file lost its capabilities.
    pub fn capabilities(&self, package: &str, path: &str) {
        add(&mut self.found().capabilities, package, path);
    }

    /// Byte code did not fit its module, was left out, and nothing takes its place.
    pub fn unfit(&self, package: &str, path: &str) {
        add(&mut self.found().unfit, package, path);
    }

    /// The package's `paths.json` states another size or sha256 than a file has.
    pub fn misstated(&self, package: &str, path: &str) {
        add(&mut self.found().misstated, package, path);
    }

    /// Refuses files that are not what their package states.
    ///
    /// # Errors
    /// When there are such.
    pub fn refuse_misstated(&self) -> Result<()> {
        let misstated = &self.found().misstated;
        match misstated.is_empty() {
            true => Ok(()),
            false => Err(Error::user(format!("`paths.json` states another size or sha256 for {}", named(misstated)))
                .hint("tell the package's maintainers, or build without `--strict`: the image's records have the true ones")),
        }
    }

    /// The warnings: one for each kind of loss.
    pub fn warnings(&self) -> Vec<String> {
        let found = self.found();
        let mut warnings = Vec::new();
        if !found.setuid.is_empty() {
            warnings.push(format!(
                "dropped the setuid and setgid bits of {}: `--keep-setuid` keeps them",
                named(&found.setuid)
            ));
        }
        if !found.capabilities.is_empty() {
            warnings.push(format!("dropped the file capabilities of {}", named(&found.capabilities)));
        }
        if !found.misstated.is_empty() {
            warnings.push(format!(
                "`paths.json` states another size or sha256 for {}: the image's records have the true ones (`--strict` refuses)",
                named(&found.misstated)
            ));
        }
        warnings
    }

    /// The notices: one for all byte code.
    pub fn notices(&self) -> Vec<String> {
        let unfit = &self.found().unfit;
        let count: usize = unfit.values().map(BTreeSet::len).sum();
        let (Some(package), Some(path)) = (unfit.keys().next(), unfit.values().flatten().next()) else {
            return Vec::new();
        };
        let others = match unfit.len() - 1 {
            0 => String::new(),
            others => format!(" and {}", plural(others, "other package")),
        };
        vec![format!(
            "left out {} of `{package}`{others}, e.g. `{path}`: Python compiles such a module when it is imported",
            plural(count, "stale .pyc file")
        )]
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(files: &mut Files, package: &str, path: &str) {
    files.entry(package.to_owned()).or_default().insert(path.to_owned());
}

/// Files with their packages, for a message.
fn named(files: &Files) -> String {
    let of_package = |(package, paths): (&String, &BTreeSet<String>)| {
        let shown: Vec<String> = paths.iter().take(NAMED).map(|path| format!("`{path}`")).collect();
        let more = match paths.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{}{more} (`{package}`)", shown.join(", "))
    };
    files.iter().map(of_package).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_with_their_packages() {
        let findings = Findings::default();
        assert!(findings.warnings().is_empty() && findings.notices().is_empty());
        findings.setuid("b-1-0", "bin/b");
        findings.setuid("a-1-0", "bin/a");
        (0..12).for_each(|number| findings.capabilities("c-1-0", &format!("bin/{number:02}")));
        findings.unfit("a-1-0", "lib/__pycache__/x.cpython-311.pyc");
        findings.unfit("d-1-0", "lib/__pycache__/y.cpython-311.pyc");
        let warnings = findings.warnings();
        assert!(warnings[0].contains("`bin/a` (`a-1-0`), `bin/b` (`b-1-0`)"), "{warnings:?}");
        assert!(warnings[1].contains("`bin/09` and 2 more (`c-1-0`)"), "{warnings:?}");
        let notices = findings.notices();
        assert_eq!(notices.len(), 1);
        assert!(notices[0].contains("2 stale .pyc files of `a-1-0` and 1 other package,"), "{notices:?}");
    }
}
