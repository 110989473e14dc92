//! Packages of PyPI that another tool's lock pins: nothing is resolved; wheels are downloaded as they are, and what is
//! no wheel is built like the sources of a `pip:` section.

use super::{Found, FoundFile, Work, folder_digest};
use crate::cli::locking::options::EnvironmentOptions;
use crate::cli::world::World;
use crate::lock::{Lock, LockedWheel, Locks, Pinned, PinnedWheel, Pins, WheelSource, file_name};
use crate::model::{WheelName, check_fit};
use crate::pack::wheel::same_version;
use crate::resolve::{SaidBy, Wanted};
use crate::spec::Spec;
use crate::util::{Digest, Error, Result, redact};

/// What lies on this machine may change under the same name: its content is an input. What is in the network is known
/// by the file, whose digest is another input ([`Pinned::digest`]).
///
/// # Errors
/// When a folder or file that is pinned cannot be read.
pub(super) fn lines(pinned: &Pinned) -> Result<Vec<String>> {
    let local = pinned.wheels.iter().filter_map(|wheel| Some((wheel, path_of(wheel)?)));
    let line = |(wheel, path): (&PinnedWheel, std::path::PathBuf)| {
        let digest = folder_digest(&path)
            .map_err(|error| Error::user(format!("the package `{}` cannot be read", wheel.name)).caused_by(error))?;
        Ok(format!("{} (content {})", wheel.name, &digest.hex()[..16]))
    };
    local.map(line).collect()
}

fn path_of(wheel: &PinnedWheel) -> Option<std::path::PathBuf> {
    (wheel.url.scheme() == "file").then(|| wheel.url.to_file_path().ok()).flatten()
}

/// The wheels of a new lock, which has its conda packages already.
///
/// # Errors
/// Wheels that do not fit the target; files that cannot be had or are not what was pinned; sources that must not be
/// built, or cannot be.
pub(super) async fn wheels(
    pinned: Vec<PinnedWheel>,
    options: &EnvironmentOptions,
    (spec, pins): (&Spec, &Pins),
    (lock, old, others): (&Lock, Option<&Lock>, &Locks),
    world: &World,
) -> Result<Vec<LockedWheel>> {
    if let Some(more) = spec.pip.requirements.first() {
        return Err(Error::user(format!(
            "{}: `{}` is asked for beside the packages of PyPI that `{}` pins, which nobody resolved together",
            more.place,
            more.text,
            pins.file().display()
        ))
        .hint("add it with the tool that wrote the file"));
    }
    let work = Work::new(options, spec, lock, world)?;
    let mut found = Vec::with_capacity(pinned.len());
    for wheel in &pinned {
        found.push(work.pinned(wheel, pins).await?);
    }
    tell_unhashed(&pinned, pins, world);
    let is_source = |found: &Found| matches!(found.file, FoundFile::Source { .. });
    let uv = if found.iter().any(is_source) { Some(work.uv(lock, others).await?) } else { None };
    let preferred = old.map_or(&[][..], |old| &old.wheels);
    let wheels = work.obtain(&found, preferred, &work.sources(old), uv.as_ref(), None).await?;
    pinned.iter().zip(&wheels).try_for_each(|(pinned, wheel)| check_identity(pins, pinned, wheel))?;
    Ok(wheels)
}

impl Work<'_> {
    /// Where a pinned package lies.
    async fn pinned(&self, wheel: &PinnedWheel, pins: &Pins) -> Result<Found> {
        let wrong = |reason: &str| {
            Error::user(format!("`{}` pins `{}`, but {reason}", pins.file().display(), wheel.name))
                .hint("make the file again with the tool that wrote it")
        };
        let (url, index) = (wheel.url.clone(), wheel.index.clone());
        let listed = index.is_some();
        let source = |source, name| FoundFile::Source { source, name, listed, index: index.clone() };
        let file = match (url.scheme(), path_of(wheel)) {
            (scheme, _) if scheme.starts_with("git+") => source(wheel.commit().map_err(|reason| wrong(&reason))?, None),
            ("file", Some(path)) if path.is_dir() => {
                source(WheelSource::Folder { digest: folder_digest(&path)?, url }, None)
            }
            ("file" | "http" | "https", _) => {
                let name = file_name(&url).ok_or_else(|| wrong("its URL names no file"))?;
                match name.ends_with(".whl") {
                    true => {
                        self.check_fit(&name)?;
                        FoundFile::Wheel { name, url, sha256: wheel.sha256, size: None, listed, index }
                    }
                    false => {
                        let sha256 = self.archive(wheel, &name).await?;
                        source(WheelSource::Sdist { url, sha256 }, Some(name))
                    }
                }
            }
            _ => return Err(wrong(&format!("`{}` is nothing that can be fetched", redact::url(&url)))),
        };
        Ok(Found { name: wheel.name.clone(), file, hashes: Vec::new() })
    }

    /// Before anything is fetched.
    fn check_fit(&self, name: &str) -> Result<()> {
        let parsed = WheelName::parse(name).ok_or_else(|| Error::user(format!("`{name}` is no name of a wheel")))?;
        check_fit(name, &parsed, self.target.python, self.target.glibc, self.target.subdir)
    }

    /// The digest of a source archive; of one that is pinned without, by fetching it.
    async fn archive(&self, wheel: &PinnedWheel, name: &str) -> Result<Digest> {
        match wheel.sha256 {
            Some(sha256) => Ok(sha256),
            None => {
                let stored = self.bring(&[Wanted::of_pypi(name, &wheel.url, None, None, SaidBy::Pins)]).await?;
                let stored = stored.first().ok_or_else(|| Error::bug("an archive was not downloaded"))?;
                Ok(stored.sha256)
            }
        }
    }
}

/// Says which files the server alone says the content of.
fn tell_unhashed(pinned: &[PinnedWheel], pins: &Pins, world: &World) {
    let in_network = |wheel: &&PinnedWheel| wheel.url.scheme().starts_with("http");
    let bare: Vec<&str> = pinned
        .iter()
        .filter(in_network)
        .filter(|wheel| wheel.sha256.is_none())
        .map(|wheel| wheel.name.as_str())
        .collect();
    if !bare.is_empty() {
        world.reporter.notice(&format!(
            "{}: packages of PyPI without a hash ({}); the lock pins them by the sha256 of what the server sends today",
            pins.file().display(),
            bare.join(", ")
        ));
    }
}

/// What a wheel says of itself counts.
fn check_identity(pins: &Pins, pinned: &PinnedWheel, wheel: &LockedWheel) -> Result<()> {
    let is_version = |said: &String| same_version(said, &wheel.version);
    if wheel.name == pinned.name && pinned.version.as_ref().is_none_or(is_version) {
        return Ok(());
    }
    let said = format!("{} {}", pinned.name, pinned.version.as_deref().unwrap_or_default());
    Err(Error::user(format!(
        "`{}` pins `{}`, and what it names there is `{} {}`",
        pins.file().display(),
        said.trim_end(),
        wheel.name,
        wheel.version
    ))
    .hint("make the file again with the tool that wrote it"))
}
