//! The platform that an image is for.

use std::fmt;
use std::str::FromStr;

use rattler_conda_types::Subdir;

use crate::util::Error;

/// An OCI platform (`linux/amd64[/v3]`) and the conda subdir that fills it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// The conda subdir (`linux-64`).
    pub subdir: Subdir,
    /// `architecture` of the image config, as Go spells it (`amd64`).
    pub architecture: &'static str,
    /// `variant` of the platform (`v3`), where it matters.
    pub variant: Option<String>,
}

/// conda subdir, architecture, variants that are accepted.
const KNOWN: [(Subdir, &str, &[&str]); 5] = [
    (Subdir::Linux64, "amd64", &["v1", "v2", "v3", "v4"]),
    (Subdir::LinuxAarch64, "arm64", &["v8"]),
    (Subdir::LinuxPpc64le, "ppc64le", &[]),
    (Subdir::LinuxS390X, "s390x", &[]),
    (Subdir::LinuxRiscv64, "riscv64", &[]),
];

impl Platform {
    /// `os` of the image config; condaimg makes Linux images only.
    pub const OS: &'static str = "linux";

    /// Names of `__archspec` that are platforms of their own, each with its platform.
    pub const VARIANTS: [(&'static str, &'static str); 3] =
        [("x86_64_v2", "linux/amd64/v2"), ("x86_64_v3", "linux/amd64/v3"), ("x86_64_v4", "linux/amd64/v4")];

    /// The platform of the machine that condaimg runs on, if it is one that images can be for. Only for what
    /// the builder itself executes; never for what an image holds.
    pub fn of_builder() -> Option<Subdir> {
        Subdir::current().filter(|subdir| KNOWN.iter().any(|(known, ..)| known == subdir))
    }

    /// The platform's name in a lock: the subdir, with the variant where that makes a difference to what is solved
    /// (`linux-64`, `linux-64-v3`).
    pub fn lock_name(&self) -> String {
        let plain = self.baseline();
        match &plain.variant {
            Some(variant) => format!("{}-{variant}", plain.subdir),
            None => plain.subdir.to_string(),
        }
    }

    /// The platform that has this name in locks.
    pub fn from_lock_name(name: &str) -> Option<Self> {
        let named = |(subdir, architecture, variants): (Subdir, &'static str, &[&str])| {
            let rest = name.strip_prefix(subdir.as_str())?;
            let variant = rest.strip_prefix('-').filter(|variant| variants.contains(variant)).map(str::to_owned);
            let platform = Self { subdir, architecture, variant };
            (platform.lock_name() == name).then_some(platform)
        };
        KNOWN.into_iter().find_map(named)
    }

    /// The platform without a variant that every machine of its architecture is (`linux/amd64/v1`,
    /// `linux/arm64/v8`), as container engines normalise it.
    #[must_use]
    pub fn baseline(&self) -> Self {
        let is_baseline = matches!(
            (self.subdir, self.variant.as_deref()),
            (Subdir::Linux64, Some("v1")) | (Subdir::LinuxAarch64, Some("v8"))
        );
        Self { variant: self.variant.clone().filter(|_| !is_baseline), ..*self }
    }

    /// The platforms of a list (`linux/amd64,linux/arm64`), sorted. Those that are the same to a container engine
    /// are one, in the spelling that comes first.
    ///
    /// # Errors
    /// When one of them is no platform, or there is none: wrong usage.
    pub fn list<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, Error> {
        let mut platforms: Vec<Self> = Vec::new();
        for text in texts {
            let platform: Self = text.trim().parse()?;
            if !platforms.iter().any(|known| known.baseline() == platform.baseline()) {
                platforms.push(platform);
            }
        }
        platforms.sort_by_key(ToString::to_string);
        match platforms.is_empty() {
            true => Err(Error::usage("`--platform` names no platform").hint("write `--platform linux/amd64`")),
            false => Ok(platforms),
        }
    }

    /// The `__archspec` that the variant stands for (`v3` → `x86_64_v3`); none: the subdir's baseline.
    pub fn archspec(&self) -> Option<String> {
        match (self.subdir, self.variant.as_deref()) {
            (Subdir::Linux64, Some(variant)) if variant != "v1" => Some(format!("x86_64_{variant}")),
            _ => None,
        }
    }
}

impl Default for Platform {
    fn default() -> Self {
        Self { subdir: Subdir::Linux64, architecture: "amd64", variant: None }
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let names = || KNOWN.map(|(_, architecture, _)| format!("linux/{architecture}")).join(", ");
        let refuse =
            || Error::usage(format!("`{text}` is no platform for an image")).hint(format!("use one of {}", names()));
        let mut parts = text.split('/');
        let (Some(Self::OS), Some(architecture)) = (parts.next(), parts.next()) else { return Err(refuse()) };
        let (variant, None) = (parts.next(), parts.next()) else { return Err(refuse()) };
        let (subdir, architecture, variants) =
            KNOWN.into_iter().find(|(_, known, _)| *known == architecture).ok_or_else(refuse)?;
        if variant.is_some_and(|variant| !variants.contains(&variant)) {
            return Err(refuse());
        }
        Ok(Self { subdir, architecture, variant: variant.map(str::to_owned) })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Self::OS, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(platforms: &[&str]) -> String {
        let platforms = Platform::list(platforms.iter().copied()).expect("platforms");
        platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_same_platform_is_taken_once() {
        assert_eq!(shown(&["linux/arm64", "linux/amd64", "linux/arm64"]), "linux/amd64 linux/arm64");
        assert_eq!(
            shown(&["linux/arm64/v8", "linux/arm64", "linux/amd64", "linux/amd64/v1"]),
            "linux/amd64 linux/arm64/v8"
        );
        assert_eq!(shown(&["linux/amd64/v3", "linux/amd64"]), "linux/amd64 linux/amd64/v3");
        assert!(Platform::list([""]).is_err() && Platform::list([]).is_err());
    }

    #[test]
    fn names_in_locks_tell_platforms_apart() {
        for (platform, name) in [
            ("linux/amd64", "linux-64"),
            ("linux/amd64/v1", "linux-64"),
            ("linux/amd64/v3", "linux-64-v3"),
            ("linux/arm64/v8", "linux-aarch64"),
            ("linux/ppc64le", "linux-ppc64le"),
        ] {
            let platform: Platform = platform.parse().expect("a platform");
            assert_eq!(platform.lock_name(), name);
            assert_eq!(Platform::from_lock_name(name), Some(platform.baseline()));
        }
        for name in ["linux-64-v1", "linux-64-v9", "linux-aarch64-v8", "linux", "linux-64-", "osx-64"] {
            assert_eq!(Platform::from_lock_name(name), None, "{name}");
        }
    }
}
