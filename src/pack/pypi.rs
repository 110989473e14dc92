//! What a conda package is to pip: the distributions whose metadata it brings. Known by their folders' names, never by
//! that of the conda package (`pytorch` is `torch`).

use std::collections::BTreeMap;
use std::str::FromStr as _;

use pep440_rs::Version;
use rattler::install::PythonInfo;

use super::wheel::normalise_name;

/// Normalised name → version of the distributions among paths of the prefix: `NAME-VERSION.dist-info/METADATA`
/// (recording installed projects), `NAME-VERSION[-pyX.Y].egg-info`, a file or a folder with `PKG-INFO` (setuptools).
/// Only directly in site-packages: what a package vendors is not installed.
pub fn distributions<'a>(targets: impl Iterator<Item = &'a str>, python: &PythonInfo) -> BTreeMap<String, String> {
    let site_packages = format!("{}/", python.site_packages_path.display());
    targets.filter_map(|target| distribution(target.strip_prefix(&site_packages)?)).collect()
}

fn distribution(path: &str) -> Option<(String, String)> {
    let stem = match path.split_once('/') {
        Some((folder, "METADATA")) => folder.strip_suffix(".dist-info")?,
        Some((folder, "PKG-INFO")) => folder.strip_suffix(".egg-info")?,
        None => path.strip_suffix(".egg-info")?,
        Some(_) => return None,
    };
    let mut parts = stem.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    // In normal form: a file name has `_` where the version has `-`.
    Some((normalise_name(name)?, Version::from_str(version).ok()?.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distributions_are_known_by_their_folders() {
        let version = "3.11.2".parse().expect("a version");
        let python = PythonInfo::from_version(&version, None, rattler_conda_types::Subdir::Linux64).expect("a Python");
        let targets = [
            "lib/python3.11/site-packages/torch-2.1.0.dist-info/METADATA",
            "lib/python3.11/site-packages/torch-2.1.0.dist-info/RECORD",
            "lib/python3.11/site-packages/Ruamel.Yaml-0.18.dist-info/METADATA",
            "lib/python3.11/site-packages/old_style-1.0.post1-py3.11.egg-info/PKG-INFO",
            "lib/python3.11/site-packages/file-2.0-py3.11.egg-info",
            "lib/python3.11/site-packages/setuptools/_vendor/wheel-0.43.0.dist-info/METADATA",
            "lib/python3.11/site-packages/nameless.egg-info/PKG-INFO",
            "lib/python3.10/site-packages/other-1.0.dist-info/METADATA",
            "share/foo-1.0.dist-info/METADATA",
        ];
        let found = distributions(targets.into_iter(), &python);
        let shown: Vec<String> = found.iter().map(|(name, version)| format!("{name}=={version}")).collect();
        assert_eq!(shown, ["file==2.0", "old-style==1.0.post1", "ruamel-yaml==0.18", "torch==2.1.0"]);
    }
}
