//! What `pip freeze` says of packages that conda installed: `certifi @ file:///croot/certifi_1707229174982/work`, the
//! folder in which the package was built, on a machine that nobody has.

use std::path::Path;

use super::{PipDirect, PipLocation, PipRequirement, PipWanted};
use crate::model::WheelName;
use crate::util::{Error, Result, plural};

/// More lines than this are only counted.
const MOST_LINES: usize = 30;

/// The lines of that kind.
#[derive(Default)]
pub(super) struct Lines {
    /// Whether a package of any version is taken where the line tells none.
    any_version: bool,
    /// Place and text of those that cannot be used.
    refused: Vec<String>,
    /// What is taken instead, and where.
    taken: Vec<String>,
}

impl Lines {
    pub(super) fn new(any_version: bool) -> Self {
        Self { any_version, ..Self::default() }
    }

    /// The requirement that is meant; nothing if only the user knows. Others stay as they are.
    pub(super) fn instead(&mut self, mut read: PipRequirement) -> Option<PipRequirement> {
        let PipWanted::Direct(direct) = &read.what else { return Some(read) };
        let PipDirect { name: Some(name), extras, marker, location: PipLocation::Path(path) } = direct.as_ref() else {
            return Some(read);
        };
        if !is_of_build(path) || path.exists() {
            return Some(read);
        }
        let extras = match extras.as_slice() {
            [] => String::new(),
            extras => format!("[{}]", extras.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
        };
        let text = match version(path) {
            Some(version) => format!("{name}{extras}=={version}"),
            None if self.any_version => format!("{name}{extras}"),
            None => {
                self.refused.push(format!("{}: `{}`", read.place, read.text));
                return None;
            }
        };
        let Ok(mut wanted) = text.parse::<pep508_rs::Requirement<url::Url>>() else { return Some(read) };
        wanted.marker = marker.clone();
        self.taken.push(format!("`{text}` ({})", read.place));
        (read.text, read.what) = (wanted.to_string(), PipWanted::Index(Box::new(wanted)));
        Some(read)
    }

    /// What was taken instead, for people.
    ///
    /// # Errors
    /// All lines that cannot be used.
    pub(super) fn finish(self) -> Result<Option<String>> {
        if !self.refused.is_empty() {
            let count = plural(self.refused.len(), "requirement");
            let lines = shown(&self.refused, "\n  ");
            return Err(Error::user(format!(
                "{count} of `pip freeze` name the folder in which a conda package was built, not a version:\n  {lines}"
            ))
            .hint("write `NAME==VERSION` instead; `pip list --format=freeze` prints them so")
            .hint("or install them from conda: name them among the `dependencies:` of an environment.yml")
            .hint("`--drop-conda-build-paths` takes the newest version that fits of each"));
        }
        let taken = self.taken;
        Ok((!taken.is_empty()).then(|| {
            format!(
                "folders in which conda packages were built are taken as packages of the index: {}",
                shown(&taken, ", ")
            )
        }))
    }
}

fn shown(lines: &[String], between: &str) -> String {
    let mut shown = lines.iter().take(MOST_LINES).cloned().collect::<Vec<_>>();
    if let Some(more) = lines.len().checked_sub(MOST_LINES).filter(|more| *more > 0) {
        shown.push(format!("and {more} more"));
    }
    shown.join(between)
}

/// Whether conda-build or rattler-build work in such folders: `.../NAME_TIME/work`.
fn is_of_build(path: &Path) -> bool {
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
    let has_time = |part: &str| {
        part.rsplit_once('_').is_some_and(|(_, time)| time.len() >= 9 && time.chars().all(|char| char.is_ascii_digit()))
    };
    let is_work = parts.windows(2).any(|pair| has_time(&pair[0]) && pair[1] == "work");
    is_work || parts.iter().any(|part| ["croot", "conda-bld", "feedstock_root"].contains(&&**part))
}

/// The version of a wheel, by its name.
fn version(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_string_lossy();
    let version = WheelName::parse(&name)?.version;
    version.parse::<pep440_rs::Version>().ok().map(|version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_builds_are_told_by_their_form() {
        for (path, expected) in [
            ("/croot/certifi_1707229174982/work/certifi", true),
            ("/tmp/build/80754af9/attrs_1620827162558/work", true),
            (
                "/home/conda/feedstock_root/build_artifacts/numpy_1707225359967/work/dist/numpy-1.26.4-cp311-cp311-linux_x86_64.whl",
                true,
            ),
            ("/home/conda/feedstock_root/build_artifacts/bld/rattler-build_rich_1733342254/work", true),
            ("/opt/conda/conda-bld/requests_1/work", true),
            ("/C:/b/abs_1f5b4/croots/recipe/x_1682537536268/work", true),
            ("/home/me/work", false),
            ("/home/me/project_2024/work", false),
            ("/srv/lib", false),
        ] {
            assert_eq!(is_of_build(Path::new(path)), expected, "{path}");
        }
    }
}
