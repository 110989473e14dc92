//! Names and versions of PyPI.

use std::str::FromStr as _;

use pep440_rs::Version;
use pep508_rs::PackageName;

/// A project's name in the form in which names are compared (PEP 503); nothing when it is no name.
pub fn normalise_name(name: &str) -> Option<String> {
    PackageName::from_str(name).ok().map(|name| name.to_string()).filter(|name| !name.is_empty())
}

/// Whether two texts are the same version (PEP 440). File names write `_` for what they cannot hold.
pub fn same_version(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let parse = |text: &str| Version::from_str(text).ok();
    parse(a).zip(parse(b)).is_some_and(|(a, b)| a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_compared_as_pypi_does() {
        assert_eq!(normalise_name("Foo._Bar-").as_deref(), None);
        assert_eq!(normalise_name("Foo._Bar").as_deref(), Some("foo-bar"));
        assert_eq!(normalise_name("ruamel.yaml.clib").as_deref(), Some("ruamel-yaml-clib"));
        for wrong in ["", "a/b", "a b"] {
            assert_eq!(normalise_name(wrong), None, "{wrong}");
        }
        assert!(
            same_version("1.0", "1.0.0") && same_version("1.0.post1", "1.0-1") && same_version("1.0+a_b", "1.0+a.b")
        );
        assert!(!same_version("1.0", "1.0+local") && !same_version("1.0", "1.1") && same_version("x", "x"));
    }
}
