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

    /// The platform of the machine that condaimg runs on, if it is one that images can be for. Only for what
    /// the builder itself executes; never for what an image holds.
    pub fn of_builder() -> Option<Subdir> {
        Subdir::current().filter(|subdir| KNOWN.iter().any(|(known, ..)| known == subdir))
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
