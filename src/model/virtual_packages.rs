//! Which flag declares a virtual package of the target machine.

use super::Platform;

/// A hint that names the flag with which the target machine is declared to have what `need` asks for, a dependency such
/// as `__cuda >=12`. `assumed` is the version that the target has of it, if any.
pub fn flag_for_virtual_package(need: &str, assumed: Option<&str>) -> String {
    let name = need.split(|char: char| !char.is_ascii_alphanumeric() && char != '_' && char != '-').next();
    match (name.unwrap_or(need), assumed) {
        ("__cuda", None) => {
            "no GPU is assumed: declare the CUDA version of the target machine's driver with `--cuda VERSION`"
                .to_owned()
        }
        ("__cuda", Some(version)) => {
            format!("the declared driver has CUDA {version}: declare a newer one with `--cuda VERSION`")
        }
        ("__glibc", None) => {
            "the base image has no GNU C library: choose another base, or declare one with `--glibc VERSION`".to_owned()
        }
        ("__glibc", Some(version)) => format!(
            "the C library is glibc {version}, that of the base image unless declared: take a newer base, or declare one with `--glibc VERSION`"
        ),
        ("__archspec", _) => {
            let declare = "declare the CPU of the target machine with `--virtual-package __archspec=1=NAME`";
            match Platform::VARIANTS.iter().find(|(archspec, _)| need.contains(archspec)) {
                Some((_, platform)) => format!("{declare}, or choose `--platform {platform}`"),
                None => format!("{declare} (`x86_64_v3` is `--platform linux/amd64/v3`)"),
            }
        }
        ("__linux", _) => {
            "declare the kernel of the target machine with `--virtual-package __linux=VERSION`".to_owned()
        }
        ("__win" | "__osx", _) => "the package is not for Linux: leave it out, or ask for another build".to_owned(),
        (name, _) => {
            format!("declare it with `--virtual-package {name}=VERSION` if the target machine has it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_virtual_package_has_a_flag() {
        for (need, assumed, flag) in [
            ("__cuda >=12", None, "--cuda VERSION"),
            ("__cuda >=12", Some("11.8"), "--cuda VERSION"),
            ("__glibc >=2.38,<3.0.a0", Some("2.36"), "--glibc VERSION"),
            ("__glibc", None, "--glibc VERSION"),
            ("__archspec 1 x86_64_v4", Some("1"), "--platform linux/amd64/v4"),
            ("__archspec=*=zen4", Some("1"), "--virtual-package __archspec=1=NAME"),
            ("__linux>=5", Some("4.18"), "--virtual-package __linux=VERSION"),
            ("__own-thing", None, "--virtual-package __own-thing=VERSION"),
        ] {
            assert!(flag_for_virtual_package(need, assumed).contains(flag), "{need}");
        }
        assert!(!flag_for_virtual_package("__win", None).contains("--"));
    }
}
