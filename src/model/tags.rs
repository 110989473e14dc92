//! Which wheels fit an environment, and which of them is best: file names of wheels (binary distribution format,
//! "File name convention") and compatibility tags (PEP 425, 600, 656; packaging.python.org, "Platform compatibility
//! tags"), of the *target*, in the order in which pip and uv prefer them.

use std::fmt;

use rattler_conda_types::Subdir;

use crate::util::{Error, Result};

/// One tag: for which interpreter, with which ABI, on which platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    /// `cp311`, `py3`.
    pub python: String,
    /// `cp311`, `abi3`, `none`.
    pub abi: String,
    /// `manylinux_2_17_x86_64`, `any`.
    pub platform: String,
}

/// The Python that wheels are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TargetPython {
    /// Major and minor version.
    pub version: (u64, u64),
    /// Which Python it is.
    pub flavour: Flavour,
}

/// Kinds of Python that load different extension modules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// CPython.
    CPython,
    /// CPython without the global lock (PEP 703): no stable ABI, and `t` in its tags.
    FreeThreaded,
    /// Another one (PyPy, GraalPy): wheels without extension modules fit it.
    Other,
}

/// A CPython, which nearly all environments have.
impl From<(u64, u64)> for TargetPython {
    fn from(version: (u64, u64)) -> Self {
        Self { version, flavour: Flavour::CPython }
    }
}

impl fmt::Display for TargetPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.flavour {
            Flavour::CPython => "CPython",
            Flavour::FreeThreaded => "free-threaded CPython",
            Flavour::Other => "a Python that is no CPython,",
        };
        write!(f, "{name} {}.{}", self.version.0, self.version.1)
    }
}

/// The oldest glibc of each architecture that a tag names: PEP 513 for x86_64, PEP 599 for the others.
const OLDEST_GLIBC_X86_64: u64 = 5;
const OLDEST_GLIBC: u64 = 17;

/// Names that tags had before they named the glibc (PEP 600, "Legacy manylinux tags").
const LEGACY: [(u64, &str); 3] = [(17, "manylinux2014"), (12, "manylinux2010"), (5, "manylinux1")];

/// All tags that fit a Linux target, best first: exact extension modules, those of the stable ABI, pure Python;
/// among equals the newest glibc first. `glibc` is the target's, `subdir` its conda platform. As `packaging.tags`
/// has them.
pub fn compatible_tags(python: impl Into<TargetPython>, glibc: Option<(u64, u64)>, subdir: Subdir) -> Vec<Tag> {
    let python = python.into();
    let platforms = platforms(glibc, subdir);
    let (major, minor) = python.version;
    let (interpreter, abi) = match python.flavour {
        Flavour::CPython if python.version < (3, 8) => (format!("cp{major}{minor}"), format!("cp{major}{minor}m")),
        Flavour::CPython => (format!("cp{major}{minor}"), format!("cp{major}{minor}")),
        Flavour::FreeThreaded => (format!("cp{major}{minor}"), format!("cp{major}{minor}t")),
        Flavour::Other => (format!("pp{major}{minor}"), "none".to_owned()),
    };
    let has_stable_abi = python.flavour == Flavour::CPython && major == 3 && minor >= 2;
    let mut tags = Vec::new();
    let mut all = |python: &str, abi: &str| {
        let on = |platform: &String| Tag::new(python, abi, platform);
        tags.extend(platforms.iter().map(on));
    };
    if python.flavour != Flavour::Other {
        all(&interpreter, &abi);
    }
    if has_stable_abi {
        all(&interpreter, "abi3");
    }
    all(&interpreter, "none");
    if has_stable_abi {
        (2..minor).rev().for_each(|older| all(&format!("cp{major}{older}"), "abi3"));
    }
    let generic = generic(python.version);
    generic.iter().for_each(|version| all(version, "none"));
    tags.push(Tag::new(&interpreter, "none", "any"));
    tags.extend(generic.iter().map(|version| Tag::new(version, "none", "any")));
    tags
}

/// `py311`, `py3`, `py310`, ... `py30`.
fn generic((major, minor): (u64, u64)) -> Vec<String> {
    let newest = [format!("py{major}{minor}"), format!("py{major}")];
    newest.into_iter().chain((0..minor).rev().map(|older| format!("py{major}{older}"))).collect()
}

/// The platform tags of a Linux target, best first.
fn platforms(glibc: Option<(u64, u64)>, subdir: Subdir) -> Vec<String> {
    let Some(architecture) = architecture(subdir) else { return Vec::new() };
    let oldest = if subdir == Subdir::Linux64 { OLDEST_GLIBC_X86_64 } else { OLDEST_GLIBC };
    let mut platforms = Vec::new();
    if let Some((2, minor)) = glibc {
        for minor in (oldest..=minor).rev() {
            platforms.push(format!("manylinux_2_{minor}_{architecture}"));
            let legacy = LEGACY.iter().filter(|(of, _)| *of == minor);
            platforms.extend(legacy.map(|(_, name)| format!("{name}_{architecture}")));
        }
    }
    platforms.push(format!("linux_{architecture}"));
    platforms
}

/// How the tags of wheels name the architecture of a conda platform; nothing for what images cannot be for.
fn architecture(subdir: Subdir) -> Option<&'static str> {
    match subdir {
        Subdir::Linux64 => Some("x86_64"),
        Subdir::LinuxAarch64 => Some("aarch64"),
        Subdir::LinuxPpc64le => Some("ppc64le"),
        Subdir::LinuxS390X => Some("s390x"),
        Subdir::LinuxRiscv64 => Some("riscv64"),
        _ => None,
    }
}

impl Tag {
    fn new(python: &str, abi: &str, platform: &str) -> Self {
        Self { python: python.to_owned(), abi: abi.to_owned(), platform: platform.to_owned() }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.python, self.abi, self.platform)
    }
}

/// What the file name of a wheel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelName {
    /// The distribution as the name spells it (`Foo_Bar`); compare it normalised.
    pub distribution: String,
    /// Version as the name spells it.
    pub version: String,
    /// Which of several builds: compares as the specification says, a higher one is preferred.
    pub build: Option<(u64, String)>,
    /// Interpreters, ABIs and platforms; the wheel has each combination of them as a tag.
    pub pythons: Vec<String>,
    /// See `pythons`.
    pub abis: Vec<String>,
    /// See `pythons`.
    pub platforms: Vec<String>,
}

impl WheelName {
    /// Reads `NAME-VERSION[-BUILD]-PYTHON-ABI-PLATFORM.whl`; nothing when it is not that.
    pub fn parse(file_name: &str) -> Option<Self> {
        let parts: Vec<&str> = file_name.strip_suffix(".whl")?.split('-').collect();
        let (distribution, version, build, tags) = match parts.as_slice() {
            [distribution, version, tags @ ..] if tags.len() == 3 => (distribution, version, None, tags),
            [distribution, version, build, tags @ ..] if tags.len() == 3 => {
                (distribution, version, Some(build_tag(build)?), tags)
            }
            _ => return None,
        };
        // Parts of a path or of a line must not come from here.
        let is_plain = |part: &&str| {
            !part.is_empty()
                && part.chars().all(|char| !char.is_whitespace() && !char.is_control() && !"/\\".contains(char))
        };
        if !parts.iter().all(is_plain) {
            return None;
        }
        let expand = |part: &str| part.split('.').map(str::to_ascii_lowercase).collect();
        let [pythons, abis, platforms] = tags else { return None };
        Some(Self {
            distribution: (*distribution).to_owned(),
            version: (*version).to_owned(),
            build,
            pythons: expand(pythons),
            abis: expand(abis),
            platforms: expand(platforms),
        })
    }

    /// Whether it has a tag.
    pub fn has(&self, tag: &Tag) -> bool {
        self.pythons.contains(&tag.python) && self.abis.contains(&tag.abi) && self.platforms.contains(&tag.platform)
    }

    /// Its tags as the file name has them (`cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64`).
    pub fn tags(&self) -> String {
        format!("{}-{}-{}", self.pythons.join("."), self.abis.join("."), self.platforms.join("."))
    }
}

/// Digits, then anything.
fn build_tag(text: &str) -> Option<(u64, String)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].to_owned()))
}

/// How well a wheel fits: the place of its best tag among those that fit, so that the lowest is best. Nothing when it
/// does not fit. Of several wheels with the same place, the one with the highest build is preferred.
pub fn rank(wheel: &WheelName, tags: &[Tag]) -> Option<usize> {
    tags.iter().position(|tag| wheel.has(tag))
}

/// Refuses a wheel that is for another Python, ABI, architecture or newer glibc than the target's. `what` is the
/// wheel, for the message.
///
/// # Errors
/// They name the wheel, its tags and the target.
pub fn check_fit(
    what: &str,
    wheel: &WheelName,
    python: impl Into<TargetPython>,
    glibc: Option<(u64, u64)>,
    subdir: Subdir,
) -> Result<()> {
    let python = python.into();
    if rank(wheel, &compatible_tags(python, glibc, subdir)).is_some() {
        return Ok(());
    }
    let glibc = glibc.map_or_else(|| "no known glibc".to_owned(), |(major, minor)| format!("glibc {major}.{minor}"));
    let tags = wheel.tags();
    Err(Error::user(format!(
        "the wheel `{what}` does not fit: it is for {tags}, the image has {python}, {glibc}, {subdir}"
    ))
    .hint("choose another version of the package, of `python`, or of the base (`--base`, `--glibc`)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(python: impl Into<TargetPython>) -> Vec<Tag> {
        compatible_tags(python, Some((2, 36)), Subdir::Linux64)
    }

    fn rank_of(tags: &[Tag], rest: &str) -> Option<usize> {
        rank(&WheelName::parse(&format!("foo-1.0-{rest}.whl")).expect("a wheel"), tags)
    }

    /// The order of `packaging.tags` for CPython 3.11 on Debian 12.
    #[test]
    fn tags_are_in_the_order_of_packaging() {
        let tags = tags((3, 11));
        let texts: Vec<String> = tags.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], "cp311-cp311-manylinux_2_36_x86_64");
        let place = |text: &str| texts.iter().position(|it| it == text).unwrap_or_else(|| panic!("no {text}"));
        let ascending = [
            "cp311-cp311-manylinux_2_17_x86_64",
            "cp311-cp311-manylinux2014_x86_64",
            "cp311-cp311-manylinux_2_12_x86_64",
            "cp311-cp311-manylinux2010_x86_64",
            "cp311-cp311-manylinux1_x86_64",
            "cp311-cp311-linux_x86_64",
            "cp311-abi3-manylinux_2_36_x86_64",
            "cp311-none-manylinux_2_36_x86_64",
            "cp310-abi3-manylinux_2_36_x86_64",
            "cp32-abi3-linux_x86_64",
            "py311-none-manylinux_2_36_x86_64",
            "py3-none-manylinux_2_36_x86_64",
            "py30-none-linux_x86_64",
            "cp311-none-any",
            "py311-none-any",
            "py3-none-any",
            "py310-none-any",
            "py30-none-any",
        ];
        let places: Vec<usize> = ascending.into_iter().map(place).collect();
        assert!(places.is_sorted(), "{places:?}");
        assert_eq!(places.last(), Some(&(texts.len() - 1)));
        // 35 platforms and linux; cp311 (3 ABIs), cp310 to cp32, py311, py3, py310 to py30; then `any`.
        assert_eq!(texts.len(), 36 * (3 + 9 + 13) + 14);
    }

    #[test]
    fn what_does_not_fit_has_no_rank() {
        let tags = tags((3, 11));
        for fits in ["cp311-cp311-manylinux_2_36_x86_64", "py2.py3-none-any", "cp38-abi3-manylinux1_x86_64.other"] {
            assert!(rank_of(&tags, fits).is_some(), "{fits}");
        }
        for misfit in [
            "cp312-cp312-manylinux_2_17_x86_64",
            "cp312-abi3-manylinux_2_17_x86_64",
            "cp311-cp311-manylinux_2_37_x86_64",
            "cp311-cp311-manylinux_2_17_aarch64",
            "cp311-cp311-musllinux_1_2_x86_64",
            "cp311-cp311-macosx_11_0_arm64",
            "cp311-cp311-win_amd64",
            "cp310-cp310-linux_x86_64",
            "cp311-cp311t-linux_x86_64",
            "py2-none-any",
            "py312-none-any",
        ] {
            assert_eq!(rank_of(&tags, misfit), None, "{misfit}");
        }
    }

    #[test]
    fn the_best_of_several_wheels_is_found() {
        let tags = tags((3, 11));
        let ordered = [
            "cp311-cp311-manylinux_2_28_x86_64",
            "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
            "cp39-abi3-manylinux_2_28_x86_64",
            "py3-none-manylinux_2_28_x86_64",
            "py2.py3-none-any",
        ];
        let ranks: Vec<Option<usize>> = ordered.iter().map(|rest| rank_of(&tags, rest)).collect();
        assert!(ranks.iter().all(Option::is_some) && ranks.is_sorted(), "{ranks:?}");
    }

    #[test]
    fn other_pythons_and_platforms() {
        let free = TargetPython { version: (3, 13), flavour: Flavour::FreeThreaded };
        assert!(rank_of(&tags(free), "cp313-cp313t-manylinux_2_28_x86_64").is_some());
        assert_eq!(rank_of(&tags(free), "cp313-cp313-manylinux_2_28_x86_64"), None);
        assert_eq!(rank_of(&tags(free), "cp39-abi3-manylinux_2_28_x86_64"), None);
        let other = TargetPython { version: (3, 9), flavour: Flavour::Other };
        assert!(rank_of(&tags(other), "py3-none-any").is_some());
        assert_eq!(rank_of(&tags(other), "cp39-cp39-manylinux_2_17_x86_64"), None);
        assert!(rank_of(&tags((3, 7)), "cp37-cp37m-manylinux_2_17_x86_64").is_some());
        let arm = compatible_tags((3, 11), Some((2, 36)), Subdir::LinuxAarch64);
        assert!(rank_of(&arm, "cp311-cp311-manylinux2014_aarch64").is_some());
        assert_eq!(rank_of(&arm, "cp311-cp311-manylinux_2_12_aarch64"), None);
        // Without a known glibc only what promises none fits.
        let unknown = compatible_tags((3, 11), None, Subdir::Linux64);
        assert_eq!(rank_of(&unknown, "cp311-cp311-manylinux1_x86_64"), None);
        assert!(rank_of(&unknown, "py3-none-any").is_some());
    }

    #[test]
    fn file_names_are_read() {
        let name = WheelName::parse("Foo_Bar-1.0+local.1-1abc-py2.py3-none-any.whl").expect("a wheel");
        assert_eq!((name.distribution.as_str(), name.version.as_str()), ("Foo_Bar", "1.0+local.1"));
        assert_eq!(name.build, Some((1, "abc".to_owned())));
        assert_eq!(name.tags(), "py2.py3-none-any");
        assert!(WheelName::parse("foo-1-2-py3-none-any.whl").expect("a wheel").build > None);
        for wrong in [
            "foo-1.0.whl",
            "foo-1.0-py3-none-any.zip",
            "foo-1.0-py3-none-any",
            "foo-1.0-x-py3-none-any.whl",
            "-1.0-py3-none-any.whl",
            "../foo-1.0-py3-none-any.whl",
            "foo-1.0-1-2-py3-none-any.whl",
        ] {
            assert_eq!(WheelName::parse(wrong), None, "{wrong}");
        }
    }
}
