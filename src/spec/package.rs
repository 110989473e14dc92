//! One package as users write it, and what they usually mean by what is none.

use rattler_conda_types::{MatchSpec, ParseStrictness, StringMatcher};

use super::Dependency;
use crate::util::redact;

const EXAMPLES: &str = "write for example `numpy`, `numpy=1.21`, `numpy>=1.21,<2`, `conda-forge::numpy=1.21=py39*`";

/// Why a text is no package.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) reason: String,
    /// What to write instead.
    pub(super) hint: String,
}

impl Refused {
    fn new(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { reason: reason.into(), hint: hint.into() }
    }
}

/// A line of `dependencies:`, or what is wrong with it.
pub(super) fn dependency(text: &str) -> Result<Dependency, Refused> {
    if let Some(refused) = mistake(text) {
        return Err(refused);
    }
    let spec = package(text).map_err(|reason| Refused::new(redact::within(&reason), EXAMPLES))?;
    Ok(Dependency { text: redact::within(text), written: text.to_owned(), spec })
}

/// The package of PyPI that a line of conda's tools is about, in pip's form: they list it as `NAME=VERSION=pypi_0`.
pub(super) fn of_pypi(text: &str) -> Option<String> {
    let mut parts = text.split('=').map(str::trim).filter(|part| !part.is_empty());
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(version), Some("pypi_0" | "pypi"), None) => Some(format!("{name}=={version}")),
        _ => None,
    }
}

/// What stands in many files and means something to other tools, or to nobody.
fn mistake(text: &str) -> Option<Refused> {
    let is_archive = text.ends_with(".conda") || text.ends_with(".tar.bz2");
    if text.contains("{{") || text.contains("{%") {
        return Some(Refused::new(
            "templates (jinja) are not rendered",
            "write the value itself, or render the file first",
        ));
    }
    if let Some((before, _)) = text.split_once(" - ").filter(|(before, _)| before.chars().all(is_of_name)) {
        let hint = match before {
            "pip" => "put a colon behind `pip`: `- pip:`, with its list indented below",
            _ => "give all items of the list the same indentation",
        };
        return Some(Refused::new("a list is folded into it", hint));
    }
    if let Some(line) = of_pypi(text) {
        return Some(Refused::new("it was installed by pip, and is in no channel", below_pip(&line)));
    }
    let is_line_of_pip = text.starts_with(['-', '.', '/']) || text.starts_with("git+") || text.contains(" @ ");
    if is_line_of_pip && !is_archive {
        return Some(Refused::new("it is a line for pip", below_pip(&redact::within(text))));
    }
    if has_extras(text) {
        return Some(Refused::new(
            "extras (`[...]`) are of pip's packages",
            format!("{}; or name the conda packages that it needs", below_pip(text)),
        ));
    }
    let two = || Refused::new("it is more than one package", "write each package in a line of its own");
    is_several(text).then(two)
}

fn below_pip(line: &str) -> String {
    format!("write it below `- pip:`, as `- {line}`")
}

fn is_of_name(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-_.".contains(char)
}

/// Whether it is `NAME[EXTRA,...]`: in brackets of conda, everything is `key=value`.
fn has_extras(text: &str) -> bool {
    let Some((name, rest)) = text.split_once('[') else { return false };
    let Some((inner, _)) = rest.split_once(']') else { return false };
    let is_extra = |text: &str| !text.trim().is_empty() && text.trim().chars().all(is_of_name);
    !name.is_empty() && name.chars().all(is_of_name) && inner.split(',').all(is_extra)
}

/// Whether several packages stand in one line. No version begins with a letter, and no build is only a word.
fn is_several(text: &str) -> bool {
    let text = text.split('[').next().unwrap_or_default();
    let begins_name = |text: &str| text.starts_with(|char: char| char.is_ascii_alphabetic());
    if text.split(',').skip(1).any(|part| begins_name(part.trim_start())) {
        return true;
    }
    let mut words = text.split_whitespace();
    let (Some(first), Some(second)) = (words.next(), words.next()) else { return false };
    let operators = ['=', '<', '>', '~', '!'];
    // `name>=1 build` is conda's, too.
    let is_build = |text: &str| !text.contains(operators) && text.contains(['_', '*']);
    let open = first.ends_with(operators) || first.ends_with([',', '|']);
    !open && begins_name(second) && (!first.contains(operators) || !is_build(second))
}

/// Reads a package as conda does in environment files.
fn package(text: &str) -> Result<MatchSpec, String> {
    // No real specification is longer; the parser's time grows faster than the text.
    if text.len() > 2_000 {
        return Err("it is too long".to_owned());
    }
    let spec = MatchSpec::from_str(text, ParseStrictness::Lenient).map_err(|error| error.to_string())?;
    if spec.name.as_exact().is_none() {
        return Err("the name must be exact".to_owned());
    }
    // Read leniently, `a==1==2` asks for the build `=2`, which nothing can have.
    if let Some(StringMatcher::Exact(build)) = &spec.build
        && build.contains(['=', '<', '>', ' '])
    {
        return Err(format!("`{build}` is no build string"));
    }
    if spec.url.is_some() {
        return Err("packages by URL are not supported yet".to_owned());
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(spec: &str, version: &str, build: &str) -> bool {
        use rattler_conda_types::{Matches as _, PackageName, PackageRecord};
        let record = PackageRecord::new(
            PackageName::new_unchecked("numpy"),
            version.parse::<rattler_conda_types::Version>().expect("a version"),
            build.parse::<rattler_conda_types::package::BuildString>().expect("a build"),
        );
        package(spec).expect("parses").matches(&record)
    }

    #[test]
    fn packages_mean_what_conda_means() {
        for (spec, version, build, expected) in [
            ("numpy=1.21", "1.21.6", "0", true),
            ("numpy=1.2", "1.21.6", "0", false),
            ("numpy=1.21.6", "1.21.6", "0", true),
            ("numpy=1.21.6", "1.21.6.1", "0", true),
            ("numpy==1.21", "1.21.6", "0", false),
            ("numpy 1.21", "1.21.6", "0", false),
            ("numpy 1.21.*", "1.21.6", "0", true),
            ("numpy=1.21.*", "1.21.6", "0", true),
            ("numpy=1.21.*", "1.22.0", "0", false),
            ("numpy>=1.21,<1.22", "1.21.6", "0", true),
            ("numpy >=1.21, <1.22", "1.21.6", "0", true),
            ("numpy >= 1.21, < 1.22", "1.22", "0", false),
            ("numpy>=1.21,<1.22", "1.22", "0", false),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0", "py39h6214cd0_0", true),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0", "py310h6214cd0_0", false),
            ("numpy=1.21.0=py39h6214cd0_0", "1.21.0.1", "py39h6214cd0_0", false),
            ("numpy=1.21.0=py39*", "1.21.0", "py39h6214cd0_0", true),
            ("numpy[version='>=1',build='py39*']", "1.21.0", "py39h6214cd0_0", true),
            ("numpy[version='>=2']", "1.21.0", "0", false),
            ("numpy~=1.21", "1.22", "0", true),
            ("numpy!=1.21.0", "1.21.0", "0", false),
            ("numpy=1.20|=1.21", "1.21", "0", true),
            ("conda-forge::numpy", "1.21.0", "0", true),
            ("conda-forge/linux-64::numpy", "1.21.0", "0", true),
            ("NumPy", "1.21.0", "0", true),
        ] {
            assert_eq!(matches(spec, version, build), expected, "{spec} against {version} {build}");
        }
    }

    #[test]
    fn lines_of_other_tools_are_told_from_packages() {
        for (text, reason, hint) in [
            ("numpy={{ numpy }}", "jinja", "render"),
            ("pip - requests - flask", "folded", "`- pip:`"),
            ("python - numpy", "folded", "same indentation"),
            ("requests=2.31.0=pypi_0", "installed by pip", "`- requests==2.31.0`"),
            ("-r requirements.txt", "line for pip", "`- -r requirements.txt`"),
            ("git+https://me:hush@host/a@v1", "line for pip", "`- git+https://host/a@v1`"),
            ("a @ https://host/a.whl", "line for pip", "`- a @"),
            ("requests[socks]", "extras", "`- requests[socks]`"),
            ("uvicorn[standard,fast]>=0.2", "extras", "`- uvicorn[standard,fast]>=0.2`"),
            ("numpy pandas", "more than one", "line of its own"),
            ("numpy, pandas", "more than one", "line of its own"),
            ("numpy>=1.2,<2, pandas", "more than one", "line of its own"),
            ("python=3.11 numpy", "more than one", "line of its own"),
            ("python=3.11 numpy=1.26", "more than one", "line of its own"),
        ] {
            let refused = dependency(text).expect_err(text);
            assert!(refused.reason.contains(reason) && refused.hint.contains(hint), "{text}: {refused:?}");
            assert!(!refused.hint.contains("hush"), "{refused:?}");
        }
        for text in [
            "python >=3.8,<3.12",
            "python >= 3.8, < 3.12",
            "python=3.11 h1_0",
            "python 3.11 h1_0",
            "blas * openblas",
            "blas=*=openblas",
            "numpy>=1.21 py39*",
            "numpy[version='>=1', build='py39*']",
            "conda-forge::numpy 1.21.*",
            "x264=1!164.3095",
            "numpy 1.20|1.21",
        ] {
            assert!(dependency(text).is_ok(), "{text}: {:?}", dependency(text));
        }
    }
}
