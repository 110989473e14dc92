//! Events of commands: what machines read as fields in JSON lines (docs/log.md), and people as text.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::locking::options::{BaseOrigin, EnvironmentOptions};
use super::summary::{LayerRow, PlatformMetadata, table};
use crate::lock::Locks;
use crate::model::{BaseRef, Platform};
use crate::ship::Destination;
use crate::spec::Spec;
use crate::util::report::Event;
use crate::util::{Digest, human, plural};

/// What a command is about to do, told before it does anything.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Start {
    command: &'static str,
    file: String,
    base: String,
    base_from: &'static str,
    extends: bool,
    platforms: Vec<String>,
    tags: Vec<String>,
    push: bool,
    outputs: Vec<String>,
}

/// Where an image goes.
#[derive(Debug, Clone, Default)]
pub struct Goal {
    /// Its references.
    pub tags: Vec<String>,
    /// Whether it is pushed to them.
    pub push: bool,
    /// Layouts and archives, as users name them.
    pub outputs: Vec<String>,
}

/// Tells what is made of what, on what, for which platforms and tags.
pub fn start(command: &'static str, spec: &Spec, options: &EnvironmentOptions, goal: Goal) -> Event {
    let verb = match command {
        "lock" => "locking",
        "warm" => "preparing",
        _ => "building",
    };
    let platforms: Vec<String> = options.platforms.iter().map(ToString::to_string).collect();
    let (file, base) = (plain(&spec.file), options.base.to_string());
    let on = if options.extends { "from" } else { "on" };
    let origin = match &options.base_origin {
        BaseOrigin::Given => "",
        BaseOrigin::Lock(_) => " (the lock's base)",
        BaseOrigin::Default => " (the default base)",
    };
    let mut text = format!("{verb} {file} {on} {base}{origin} for {}", platforms.join(", "));
    if !goal.tags.is_empty() {
        text.push_str(&format!(" as {}", goal.tags.join(", ")));
    }
    let mut to: Vec<String> = goal.outputs.clone();
    if goal.push {
        to.insert(0, "the registry".to_owned());
    }
    if !to.is_empty() {
        text.push_str(&format!(", to {}", to.join(", ")));
    }
    let Goal { tags, push, outputs } = goal;
    let fields = Start {
        command,
        file,
        base,
        base_from: options.base_origin.name(),
        extends: options.extends,
        platforms,
        tags,
        push,
        outputs,
    };
    Event::new("start", &fields, text)
}

/// Tells which of several platforms is made now.
pub fn platform(platform: &Platform) -> Event {
    let name = platform.to_string();
    Event::new("platform", &serde_json::json!({"platform": name}), name)
}

/// A path without `./` at its beginning.
fn plain(path: &Path) -> String {
    path.strip_prefix(".").unwrap_or(path).display().to_string()
}

/// A lock file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LockFile {
    file: String,
    /// Whether it was written just now; else it was current.
    written: bool,
    platforms: Vec<LockedPlatform>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LockedPlatform {
    platform: String,
    packages: usize,
    wheels: usize,
    base: String,
    base_digest: Digest,
}

/// Tells that a lock file was written, or that it is current, with what it holds.
pub fn lock_file(file: &Path, locks: &Locks, written: bool) -> Event {
    let platforms = locks.iter().map(|lock| LockedPlatform {
        platform: lock.platform.to_string(),
        packages: lock.packages.len(),
        wheels: lock.wheels.len(),
        base: lock.base.reference.clone(),
        base_digest: lock.base.digest,
    });
    let counts: Vec<String> = locks.iter().map(|lock| format!("{}: {}", lock.platform, lock.counted())).collect();
    let (verb, counts) = (if written { "wrote the lock" } else { "the lock is current:" }, counts.join("; "));
    let fields = LockFile { file: plain(file), written, platforms: platforms.collect() };
    Event::new("lock", &fields, format!("{verb} `{}` ({counts})", plain(file)))
}

/// What a build came to.
pub struct Built<'a> {
    /// Digest of the manifest; of the index, when there are several platforms.
    pub digest: Digest,
    /// The pushed references with the digest.
    pub references: &'a [String],
    /// Where the image went.
    pub goal: Goal,
    /// Its platforms.
    pub platforms: &'a [PlatformMetadata],
    /// The layers that its goal did not have (docs/log.md).
    pub new: &'a BTreeSet<Digest>,
    /// Bytes of layers and configs that went to registries.
    pub uploaded_bytes: u64,
}

/// How many layers there are, and what of them is new.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Counts {
    layers: usize,
    new_layers: usize,
    pull_bytes: u64,
    size_bytes: u64,
}

impl Counts {
    /// Counts each layer that is there several times once.
    fn of<'a>(rows: impl Iterator<Item = &'a LayerRow>, new: &BTreeSet<Digest>) -> Self {
        let sizes: BTreeMap<Digest, u64> = rows.map(|row| (row.digest, row.size)).collect();
        let new: Vec<u64> = sizes.iter().filter(|(digest, _)| new.contains(digest)).map(|(_, size)| *size).collect();
        Self {
            layers: sizes.len(),
            new_layers: new.len(),
            pull_bytes: new.iter().sum(),
            size_bytes: sizes.values().sum(),
        }
    }

    /// `3 of 28 layers new, 1.09 MiB to pull`.
    fn sentence(&self) -> String {
        let Self { layers, new_layers, pull_bytes, .. } = self;
        format!("{new_layers} of {} new, {} to pull", plural(*layers, "layer"), human(*pull_bytes))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BuiltFields<'a> {
    digest: Digest,
    references: &'a [String],
    tags: &'a [String],
    pushed: bool,
    outputs: &'a [String],
    #[serde(flatten)]
    counts: Counts,
    uploaded_bytes: u64,
    platforms: Vec<BuiltPlatform<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct BuiltPlatform<'a> {
    platform: &'a str,
    digest: Digest,
    config_digest: Digest,
    lock_digest: Digest,
    #[serde(flatten)]
    counts: Counts,
    new: Vec<NewLayer<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NewLayer<'a> {
    name: &'a str,
    digest: Digest,
    size_bytes: u64,
    packages: usize,
}

impl Built<'_> {
    /// The result of the command; for people a table of the new layers, or with `all` of all.
    pub fn event(&self, all: bool) -> Event {
        let texts: Vec<String> = self.platforms.iter().map(|platform| self.text(platform, all)).collect();
        let fields = BuiltFields {
            digest: self.digest,
            references: self.references,
            tags: &self.goal.tags,
            pushed: self.goal.push,
            outputs: &self.goal.outputs,
            counts: Counts::of(self.platforms.iter().flat_map(|platform| &platform.layers), self.new),
            uploaded_bytes: self.uploaded_bytes,
            platforms: self.platforms.iter().map(|platform| self.fields(platform)).collect(),
        };
        Event::new("result", &fields, texts.join("\n"))
    }

    fn fields<'a>(&self, platform: &'a PlatformMetadata) -> BuiltPlatform<'a> {
        let new = platform.layers.iter().filter(|row| self.new.contains(&row.digest)).map(|row| NewLayer {
            name: &row.name,
            digest: row.digest,
            size_bytes: row.size,
            packages: row.packages.len(),
        });
        BuiltPlatform {
            platform: &platform.platform,
            digest: platform.digest,
            config_digest: platform.config_digest,
            lock_digest: platform.lock,
            counts: Counts::of(platform.layers.iter(), self.new),
            new: new.collect(),
        }
    }

    fn text(&self, platform: &PlatformMetadata, all: bool) -> String {
        let rows = platform.layers.iter().map(|row| (row, self.new.contains(&row.digest)));
        let rows = rows.filter(|(_, new)| all || *new);
        let table = if rows.clone().next().is_some() { table(rows) } else { String::new() };
        let heading = match self.platforms.len() {
            1 => String::new(),
            _ => format!("{}  {}\n", platform.platform, platform.digest),
        };
        format!("{heading}{table}{}", Counts::of(platform.layers.iter(), self.new).sentence())
    }
}

/// A destination as users name it.
pub fn shown(destination: &Destination) -> String {
    match destination {
        Destination::Registry(target) => target.to_string(),
        Destination::Layout(folder, tag) => BaseRef::Layout(folder.clone(), tag.clone()).to_string(),
        Destination::OciArchive(file) => BaseRef::OciArchive(file.clone()).to_string(),
    }
}

/// What came of copying an image.
pub struct Moved {
    /// What the destination's name stands for now.
    pub digest: Digest,
    /// Bytes that were sent or written.
    pub bytes: u64,
    /// Referrers that went with it.
    pub referrers: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MovedFields {
    digest: Option<Digest>,
    destinations: Vec<MovedTo>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct MovedTo {
    destination: String,
    digest: Digest,
    bytes: u64,
    referrers: usize,
}

/// The result of `push` and `copy`: nothing for people, who were told at the end of each step.
pub fn moved(moved: &[(Destination, Moved)]) -> Event {
    let destinations: Vec<MovedTo> = moved
        .iter()
        .map(|(to, moved)| MovedTo {
            destination: shown(to),
            digest: moved.digest,
            bytes: moved.bytes,
            referrers: moved.referrers,
        })
        .collect();
    let digest = destinations.first().map(|first| first.digest);
    Event::new("result", &MovedFields { digest, destinations }, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::DiffId;

    fn row(name: &str, size: u64) -> LayerRow {
        let digest = Digest::of(name);
        LayerRow {
            name: name.to_owned(),
            packages: Vec::new(),
            files: None,
            size,
            digest,
            diff_id: DiffId(digest),
            new: false,
        }
    }

    #[test]
    fn new_layers_are_counted_once() {
        let rows = [row("base", 1 << 20), row("a", 1 << 10), row("a", 1 << 10), row("b", 512)];
        let new = BTreeSet::from([Digest::of("a"), Digest::of("b"), Digest::of("elsewhere")]);
        let counts = Counts::of(rows.iter(), &new);
        assert_eq!(counts, Counts { layers: 3, new_layers: 2, pull_bytes: 1536, size_bytes: (1 << 20) + 1536 });
        assert_eq!(counts.sentence(), "2 of 3 layers new, 1.50 KiB to pull");
    }
}
