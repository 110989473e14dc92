//! Packages that no channel has: told before the solver is asked, all at once, with what they may be instead.

use std::collections::BTreeSet;
use std::time::Duration;

use rattler_conda_types::{Channel, Subdir};
use rattler_repodata_gateway::{ChannelRelationsMode, Gateway};
use tokio::time::timeout;
use url::Url;

use super::solve::Task;
use crate::util::near;
use crate::util::{Error, Result};

/// More unknown packages than this are only counted.
const MOST_UNKNOWN: usize = 10;

/// How long the channels are asked which other platforms have a package.
const LONGEST: Duration = Duration::from_secs(10);

/// Subdirs of other platforms that environments are exported on.
const PLATFORMS: [Subdir; 5] = [Subdir::Linux64, Subdir::LinuxAarch64, Subdir::Win64, Subdir::Osx64, Subdir::OsxArm64];

/// Modules that are not called like the package that has them, with that package.
const MODULES: [(&str, &str); 8] = [
    ("bs4", "beautifulsoup4"),
    ("crypto", "pycryptodome"),
    ("cv2", "opencv"),
    ("pil", "pillow"),
    ("skimage", "scikit-image"),
    ("sklearn", "scikit-learn"),
    ("torch", "pytorch"),
    ("yaml", "pyyaml"),
];

/// The names of a channel's packages; none when they cannot be told.
pub(super) struct Names<'a> {
    pub(super) channel: &'a Channel,
    pub(super) names: Option<BTreeSet<String>>,
}

impl Names<'_> {
    fn may_have(&self, name: &str) -> bool {
        self.names.as_ref().is_none_or(|known| known.contains(name))
    }
}

/// Refuses specs whose package no channel has that they may come from.
///
/// # Errors
/// It names them with their places, similar names, and other channels and platforms that have them.
pub(super) async fn refuse(task: &Task<'_>, names: &[Names<'_>], gateway: &Gateway) -> Result<()> {
    let mut unknown: Vec<(usize, &str)> = Vec::new();
    for (spec, wanted) in task.specs.iter().enumerate() {
        let Some(name) = wanted.name.as_exact().map(|name| name.as_normalized()) else { continue };
        let is_there = task.options.present.package(name).is_some();
        if !is_there && !name.starts_with("__") && !searched(task, names, spec).any(|names| names.may_have(name)) {
            unknown.push((spec, name));
        }
    }
    if unknown.is_empty() {
        return Ok(());
    }
    let more = unknown.len().saturating_sub(MOST_UNKNOWN);
    unknown.truncate(MOST_UNKNOWN);
    let listed = unknown
        .iter()
        .map(|(spec, _)| format!("`{}` ({})", task.spec.dependencies[*spec].text, task.spec.place_of(*spec)));
    let listed = listed.collect::<Vec<_>>().join(", ");
    let message = match (unknown.len(), more) {
        (1, _) => format!("no channel has the package {listed}"),
        (_, 0) => format!("no channel has the packages {listed}"),
        _ => format!("no channel has the packages {listed}, and {more} more"),
    };
    let mut error = Error::user(message);
    let elsewhere = on_other_platforms(task, gateway, &unknown).await;
    for (spec, name) in &unknown {
        let of_several = |hint: String| match unknown.len() {
            1 => hint,
            _ => format!("`{name}`: {hint}"),
        };
        error = hints(task, names, *spec, name, &elsewhere).into_iter().map(of_several).fold(error, Error::hint);
    }
    let flag = "list a package that only PyPI has below `- pip:`";
    Err(error.hint(task.searched()).hint(flag))
}

/// The channels that a spec may be satisfied from.
fn searched<'n>(task: &Task<'_>, names: &'n [Names<'_>], spec: usize) -> impl Iterator<Item = &'n Names<'n>> {
    let allowed: Vec<Url> =
        task.channels.allowed(&task.specs[spec]).map(|channel| Url::clone(channel.base_url.url())).collect();
    names.iter().filter(move |names| allowed.contains(names.channel.base_url.url()))
}

/// What an unknown package may be.
fn hints(
    task: &Task<'_>,
    names: &[Names<'_>],
    spec: usize,
    name: &str,
    elsewhere: &[(Subdir, BTreeSet<String>)],
) -> Vec<String> {
    let mut hints = Vec::new();
    // Those that were searched do not have it.
    if let Some(other) = names.iter().find(|names| names.names.is_some() && names.may_have(name)) {
        hints.push(format!("`{name}` is in {}", other.channel.base_url.as_str()));
    }
    let platforms: Vec<&str> =
        elsewhere.iter().filter(|(_, names)| names.contains(name)).map(|(subdir, _)| subdir.as_str()).collect();
    if !platforms.is_empty() {
        let subdir = task.options.platform.subdir;
        hints.push(format!("it is there for {}, not for {subdir}: leave it out", platforms.join(", ")));
    }
    let known: BTreeSet<&str> =
        searched(task, names, spec).filter_map(|names| names.names.as_ref()).flatten().map(String::as_str).collect();
    let near = similar(name, &known);
    if !near.is_empty() {
        let near: Vec<String> = near.iter().map(|name| format!("`{name}`")).collect();
        hints.push(format!("did you mean {}?", near.join(" or ")));
    }
    hints
}

/// Names like this one: of packages with a module of this name, with the usual beginnings and ends, and with slips.
fn similar(name: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let module = MODULES.iter().find(|(module, _)| *module == name).map(|(_, package)| (*package).to_owned());
    let varied = ["python-", "py", "lib"].map(|start| format!("{start}{name}"));
    let ended = ["-python", "-base"].map(|end| format!("{name}{end}"));
    let bare = ["python-", "py", "lib"].iter().filter_map(|start| name.strip_prefix(start)).map(str::to_owned);
    let varied = module.into_iter().chain(varied).chain(ended).chain(bare);
    let mut similar: Vec<String> = varied.filter(|name| known.contains(name.as_str())).collect();
    similar.extend(near::names(name, known.iter().copied()).into_iter().map(str::to_owned));
    let mut seen = BTreeSet::new();
    similar.retain(|name| seen.insert(name.clone()));
    similar.truncate(3);
    similar
}

/// Which of these packages the channels have for other platforms; what cannot be told in time is left out.
async fn on_other_platforms(
    task: &Task<'_>,
    gateway: &Gateway,
    unknown: &[(usize, &str)],
) -> Vec<(Subdir, BTreeSet<String>)> {
    let own = task.options.platform.subdir;
    let look = PLATFORMS.into_iter().filter(|subdir| *subdir != own).map(|subdir| async move {
        let channels: Vec<Channel> = task.channels.members().cloned().collect();
        let asked = gateway.names(channels, [subdir]).channel_relations(ChannelRelationsMode::Disabled).execute();
        let answer = timeout(LONGEST, asked).await.ok()?.ok()?;
        let has = |name: &&str| answer.names.iter().any(|known| known.as_normalized() == *name);
        let names: BTreeSet<String> = unknown.iter().map(|(_, name)| *name).filter(has).map(str::to_owned).collect();
        Some((subdir, names))
    });
    futures::future::join_all(look).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_found() {
        let known = ["numpy", "scikit-learn", "pytorch", "python-dateutil", "libxml2", "requests", "opencv"];
        let known: BTreeSet<&str> = known.into_iter().collect();
        for (name, expected) in [
            ("nunpy", "numpy"),
            ("sklearn", "scikit-learn"),
            ("torch", "pytorch"),
            ("dateutil", "python-dateutil"),
            ("xml2", "libxml2"),
            ("python-requests", "requests"),
            ("scikit_learn", "scikit-learn"),
        ] {
            assert_eq!(similar(name, &known), [expected], "{name}");
        }
        assert!(similar("tensorflow", &known).is_empty());
    }
}
