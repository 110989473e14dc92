//! What a user should know of files and only packing finds out. The store keeps it by the key of the segment, so that
//! it is told by each build that has the segment, packed or not.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::util::plural;

/// Files that a message names of one package.
const NAMED: usize = 10;

/// Paths in the prefix, by package.
type Files = BTreeMap<String, BTreeSet<String>>;

/// What the image does not give the files of one segment, by path in the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Losses {
    /// Lost their setuid or setgid bits.
    pub setuid: BTreeSet<String>,
    /// Lost their capabilities.
    pub capabilities: BTreeSet<String>,
    /// Byte code that did not fit its module and was left out.
    pub unfit: BTreeSet<String>,
    /// The same, where byte code is made in its place, if any is made of the package.
    pub remade: BTreeSet<String>,
}

impl Losses {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The losses of all segments of a build.
#[derive(Debug, Default)]
pub struct Findings {
    setuid: Files,
    capabilities: Files,
    unfit: Files,
}

impl Findings {
    /// Adds those of a segment of a package; `is_compiled`, if byte code is made of it.
    pub fn add(&mut self, package: &str, losses: Losses, is_compiled: bool) {
        let Losses { setuid, capabilities, mut unfit, remade } = losses;
        if !is_compiled {
            unfit.extend(remade);
        }
        for (files, paths) in
            [(&mut self.setuid, setuid), (&mut self.capabilities, capabilities), (&mut self.unfit, unfit)]
        {
            if !paths.is_empty() {
                files.entry(package.to_owned()).or_default().extend(paths);
            }
        }
    }

    /// The warnings: one for each kind of loss.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.setuid.is_empty() {
            warnings.push(format!(
                "dropped the setuid and setgid bits of {}: `--keep-setuid` keeps them",
                named(&self.setuid)
            ));
        }
        if !self.capabilities.is_empty() {
            warnings.push(format!("dropped the file capabilities of {}", named(&self.capabilities)));
        }
        warnings
    }

    /// The notices: one for all byte code.
    pub fn notices(&self) -> Vec<String> {
        let unfit = &self.unfit;
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
        let mut findings = Findings::default();
        assert!(findings.warnings().is_empty() && findings.notices().is_empty());
        let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect::<BTreeSet<_>>();
        let setuid = |path: &str| Losses { setuid: paths(&[path]), ..Losses::default() };
        findings.add("b-1-0", setuid("bin/b"), false);
        let unfit = paths(&["lib/__pycache__/x.cpython-311.pyc"]);
        findings.add("a-1-0", Losses { unfit, ..setuid("bin/a") }, true);
        let capabilities = (0..12).map(|number| format!("bin/{number:02}")).collect();
        findings.add("c-1-0", Losses { capabilities, ..Losses::default() }, false);
        let remade = || Losses { remade: paths(&["lib/__pycache__/y.cpython-311.pyc"]), ..Losses::default() };
        findings.add("d-1-0", remade(), false);
        findings.add("e-1-0", remade(), true);
        let warnings = findings.warnings();
        assert!(warnings[0].contains("`bin/a` (`a-1-0`), `bin/b` (`b-1-0`)"), "{warnings:?}");
        assert!(warnings[1].contains("`bin/09` and 2 more (`c-1-0`)"), "{warnings:?}");
        let notices = findings.notices();
        assert_eq!(notices.len(), 1);
        assert!(notices[0].contains("2 stale .pyc files of `a-1-0` and 1 other package,"), "{notices:?}");
    }
}
