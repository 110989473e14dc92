//! Finding the version of the GNU C library.

use object::{Object as _, ObjectSection as _};

/// The folders of the C library; Debian's and Ubuntu's have one more level, `x86_64-linux-gnu`.
pub(super) const FOLDERS: [&str; 4] = ["lib", "lib64", "usr/lib", "usr/lib64"];

/// Whether the path is where a C library lies.
pub(super) fn is_library(path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return false };
    let multiarch = folder.rsplit_once('/').filter(|(_, last)| is_multiarch(last));
    is_name(name) && (FOLDERS.contains(&folder) || multiarch.is_some_and(|(parent, _)| FOLDERS.contains(&parent)))
}

/// Whether a file with this name is a C library.
pub(super) fn is_name(name: &str) -> bool {
    name == "libc.so.6" || of_name(name).is_some()
}

/// Whether a directory of libraries with this name is for one architecture, as Debian has them.
pub(super) fn is_multiarch(name: &str) -> bool {
    name.contains("-linux-gnu")
}

/// The version in the name of the file, as glibc before 2.34 was installed: `libc-2.31.so`.
pub(super) fn of_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    let version = name.strip_prefix("libc-")?.strip_suffix(".so")?;
    is_version(version).then(|| version.to_owned())
}

/// The version that the library itself states, else the newest version of its symbols.
pub(super) fn of_library(bytes: &[u8]) -> Option<String> {
    banner(bytes).or_else(|| newest_symbol(bytes))
}

/// The line that `/lib/libc.so.6` prints when it is run:
/// `GNU C Library (Debian GLIBC 2.36-9+deb12u9) stable release version 2.36.`
fn banner(bytes: &[u8]) -> Option<String> {
    const RELEASE: &[u8] = b"release version ";
    let start = find(bytes, b"GNU C Library ")?;
    let line = &bytes[start..bytes.len().min(start + 256)];
    let version = &line[find(line, RELEASE)? + RELEASE.len()..];
    let end = version.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let version = std::str::from_utf8(&version[..end]).ok()?.trim_end_matches('.');
    is_version(version).then(|| version.to_owned())
}

/// The highest `GLIBC_2.x` among the names of its dynamic symbols' versions.
fn newest_symbol(bytes: &[u8]) -> Option<String> {
    let file = object::File::parse(bytes).ok()?;
    let names = file.section_by_name(".dynstr")?.data().ok()?;
    let versions = names.split(|byte| *byte == 0).filter_map(|name| {
        let version = std::str::from_utf8(name).ok()?.strip_prefix("GLIBC_")?;
        is_version(version).then_some(version)
    });
    versions.max_by_key(|version| numbers(version)).map(str::to_owned)
}

fn is_version(text: &str) -> bool {
    text.contains('.') && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_where_distributions_put_them() {
        for path in [
            "lib/x86_64-linux-gnu/libc.so.6",
            "usr/lib/aarch64-linux-gnu/libc.so.6",
            "lib64/libc.so.6",
            "usr/lib64/libc-2.28.so",
            "usr/lib/libc.so.6",
        ] {
            assert!(is_library(path), "{path}");
        }
        for path in ["libc.so.6", "opt/conda/lib/libc.so.6", "lib/ld-musl-x86_64.so.1", "usr/lib/perl/libc.so.6"] {
            assert!(!is_library(path), "{path}");
        }
    }

    #[test]
    fn versions_are_read_from_names_and_banners() {
        assert_eq!(of_name("libc-2.31.so").as_deref(), Some("2.31"));
        assert_eq!(of_name("libc-client.so"), None);
        let debian = b"\0GNU C Library (Debian GLIBC 2.36-9+deb12u9) stable release version 2.36.\nCopyright\0";
        assert_eq!(of_library(debian).as_deref(), Some("2.36"));
        assert_eq!(of_library(b"something else"), None);
    }
}
