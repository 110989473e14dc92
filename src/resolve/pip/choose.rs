//! Which file of a package that uv found is taken: the wheel that fits the target best, else the source archive.

use std::path::Path;

use super::pylock::{File, Package};
use super::{FoundFile, PipTarget};
use crate::lock::WheelSource;
use crate::model::{WheelName, compatible_tags, rank};
use crate::spec::pip::PipOptions;
use crate::util::{Error, Result, redact};

/// The file of a package. `hashes` are those that the user allows, all when there are none.
///
/// # Errors
/// When no file fits, or none has an allowed hash.
pub(super) fn choose(
    package: &Package,
    target: &PipTarget,
    options: &PipOptions,
    hashes: &[String],
    folder: &Path,
) -> Result<FoundFile> {
    if let Some(archive) = &package.archive {
        return file(archive, false, package, folder);
    }
    let allowed = |file: &&File| {
        let sha256: Vec<&str> = hashes.iter().filter_map(|hash| hash.strip_prefix("sha256:")).collect();
        // Hashes of other algorithms are compared when the file is here.
        sha256.len() < hashes.len()
            || hashes.is_empty()
            || file.sha256().is_none_or(|digest| sha256.contains(&digest.hex().as_str()))
    };
    let tags = compatible_tags(target.python, target.glibc, target.subdir);
    let wheels = package.wheels.iter().filter(|_| !is_listed(&options.no_binary, &package.name));
    let named = wheels.filter_map(|file| Some((file, WheelName::parse(&file.name(folder).ok()?)?)));
    let mut fitting: Vec<_> =
        named.filter_map(|(file, name)| Some((rank(&name, &tags)?, std::cmp::Reverse(name.build), file))).collect();
    fitting.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    if let Some((_, _, best)) = fitting.iter().find(|(_, _, file)| allowed(file)) {
        return file(best, true, package, folder);
    }
    match &package.sdist {
        Some(sdist) if allowed(&sdist) && !is_listed(&options.only_binary, &package.name) => {
            file(sdist, true, package, folder)
        }
        _ => Err(none(package, target, !fitting.is_empty() || package.sdist.is_some() && !hashes.is_empty())),
    }
}

/// Whether `--no-binary` or `--only-binary` means a package. The last word counts.
fn is_listed(list: &[String], name: &str) -> bool {
    let said = list.iter().rev().find_map(|item| match item.as_str() {
        ":all:" => Some(true),
        ":none:" => Some(false),
        item => item.parse::<pep508_rs::PackageName>().is_ok_and(|item| item.to_string() == name).then_some(true),
    });
    said.unwrap_or(false)
}

fn file(file: &File, listed: bool, package: &Package, folder: &Path) -> Result<FoundFile> {
    let (url, name) = (redact::canonical(&file.url(folder)?), file.name(folder)?);
    let index = package.index.as_ref().map(redact::canonical);
    if name.ends_with(".whl") {
        return Ok(FoundFile::Wheel { name, url, sha256: file.sha256(), size: file.size, listed, index });
    }
    let sha256 = file.sha256().ok_or_else(|| {
        Error::user(format!("the index gives no sha256 of `{name}`, so that it cannot be pinned"))
            .hint("take a version that has a wheel")
    })?;
    Ok(FoundFile::Source { source: WheelSource::Sdist { url, sha256 }, name: Some(name), listed, index })
}

fn none(package: &Package, target: &PipTarget, hashes: bool) -> Error {
    let version = package.version.as_deref().unwrap_or_default();
    let name = format!("{} {version}", package.name);
    if hashes {
        return Error::user(format!("no file of `{name}` that fits has a hash that the requirements give"))
            .hint("the index serves other files than those that were hashed, or the hashes are for another platform");
    }
    let has: Vec<String> = package
        .wheels
        .iter()
        .filter_map(|file| file.name(Path::new("")).ok())
        .filter_map(|name| Some(WheelName::parse(&name)?.tags()))
        .take(8)
        .collect();
    Error::user(format!("no wheel of `{name}` fits {}, {}", target.python, target.subdir))
        .hint(format!("it has wheels for {}", if has.is_empty() { "nothing".to_owned() } else { has.join(", ") }))
        .hint("choose another version of it, or of `python`")
}
