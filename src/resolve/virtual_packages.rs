//! The virtual packages of the machine that the image will run on: declared, never the builder's.

use rattler_conda_types::{GenericVirtualPackage, PackageName, Subdir, Version, package::BuildString};

use crate::model::Platform;
use crate::util::{Error, Result};

/// The oldest kernel assumed: that of RHEL 8, which conda-forge builds for.
const LINUX: &str = "4.18";

/// What is said about the target machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VirtualPackageOptions {
    /// Version of the GNU C library: the base's, or `--glibc`. None: there is none.
    pub glibc: Option<String>,
    /// Newest CUDA version that the driver supports (`--cuda`). None: no GPU is assumed.
    pub cuda: Option<String>,
    /// Name and version of any other (`--virtual-package NAME=VERSION`); they replace the defaults of the same
    /// name. `VERSION=BUILD` sets the build string too; an empty version takes the package away.
    pub extra: Vec<(String, String)>,
}

/// The virtual packages of a platform: `__unix=0`, `__linux=4.18`, `__glibc` and `__cuda` as declared, `__archspec`
/// the baseline of the subdir or the platform's variant. Sorted by name.
///
/// # Errors
/// When a name or version is malformed: wrong usage.
pub fn virtual_packages(platform: &Platform, options: &VirtualPackageOptions) -> Result<Vec<GenericVirtualPackage>> {
    let archspec = platform.archspec().or_else(|| baseline(platform.subdir).map(str::to_owned));
    let mut declared = vec![
        ("__unix".to_owned(), "0".to_owned()),
        ("__linux".to_owned(), LINUX.to_owned()),
        ("__glibc".to_owned(), options.glibc.clone().unwrap_or_default()),
        ("__cuda".to_owned(), options.cuda.clone().unwrap_or_default()),
        ("__archspec".to_owned(), archspec.map(|name| format!("1={name}")).unwrap_or_default()),
    ];
    for (name, version) in &options.extra {
        if !name.starts_with("__") {
            return Err(Error::usage(format!("`{name}` is no virtual package"))
                .hint("their names begin with two underscores, as in `--virtual-package __cuda=12.4`"));
        }
        declared.retain(|(known, _)| known != name);
        declared.push((name.clone(), version.clone()));
    }
    let mut packages = declared
        .iter()
        .filter(|(_, version)| !version.is_empty())
        .map(|(name, version)| package(name, version))
        .collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a, b| a.name.as_normalized().cmp(b.name.as_normalized()));
    Ok(packages)
}

fn package(name: &str, version: &str) -> Result<GenericVirtualPackage> {
    let refuse = |reason: String| {
        Error::usage(format!("`{name}={version}` is no virtual package: {reason}"))
            .hint("write a name and a version, as in `__cuda=12.4`")
    };
    let (number, build) = version.split_once('=').unwrap_or((version, "0"));
    Ok(GenericVirtualPackage {
        name: name.parse::<PackageName>().map_err(|error| refuse(error.to_string()))?,
        version: number.parse::<Version>().map_err(|error| refuse(error.to_string()))?,
        build_string: build.parse::<BuildString>().map_err(|error| refuse(error.to_string()))?,
    })
}

/// The name that archspec has for what every machine of a subdir can do.
fn baseline(subdir: Subdir) -> Option<&'static str> {
    Some(match subdir {
        Subdir::Linux64 => "x86_64",
        Subdir::LinuxAarch64 => "aarch64",
        Subdir::LinuxPpc64le => "ppc64le",
        Subdir::LinuxS390X => "s390x",
        Subdir::LinuxRiscv64 => "riscv64",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(platform: &str, options: &VirtualPackageOptions) -> String {
        let platform = platform.parse().expect("a platform");
        let packages = virtual_packages(&platform, options).expect("fits");
        packages.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn they_are_the_targets() {
        let mut options = VirtualPackageOptions { glibc: Some("2.36".into()), ..VirtualPackageOptions::default() };
        assert_eq!(shown("linux/amd64", &options), "__archspec=1=x86_64 __glibc=2.36=0 __linux=4.18=0 __unix=0=0");
        options.cuda = Some("12.4".into());
        options.extra = vec![("__linux".into(), "5.10".into()), ("__unix".into(), String::new())];
        assert_eq!(
            shown("linux/amd64/v3", &options),
            "__archspec=1=x86_64_v3 __cuda=12.4=0 __glibc=2.36=0 __linux=5.10=0"
        );
        assert_eq!(
            shown("linux/arm64", &VirtualPackageOptions::default()),
            "__archspec=1=aarch64 __linux=4.18=0 __unix=0=0"
        );
    }

    #[test]
    fn malformed_ones_are_wrong_usage() {
        for (name, version) in [("cuda", "12"), ("__cuda", "a b"), ("__c uda", "1"), ("__a", "1=b c")] {
            let options = VirtualPackageOptions {
                extra: vec![(name.into(), version.into())],
                ..VirtualPackageOptions::default()
            };
            let error = virtual_packages(&Platform::default(), &options).expect_err(name);
            assert_eq!(error.kind(), crate::util::ErrorKind::Usage, "{error}");
        }
    }
}
