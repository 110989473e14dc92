//! Conda environments as they lie in a file system: what is there by `conda-meta`, the activation files and the
//! `dist-info` folders of site-packages. Made of files that somebody else read; any conda client may have written them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rattler_conda_types::{PrefixRecord, RepoDataRecord};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{UNSET, canonical_channel};
use crate::util::{Digest, Error, Result, python, redact};

/// Raised whenever something else would be kept of the same files.
pub const VERSION: u32 = 2;
/// The largest file that lists every file of its package, and the largest other one, in bytes.
const RECORD_LIMIT: u64 = 64 << 20;
const TEXT_LIMIT: u64 = 1 << 20;

const RECORDS: &str = "conda-meta";
/// What every environment has.
const HISTORY: &str = "conda-meta/history";
const STATE: &str = "conda-meta/state";
const ACTIVATION: [(&str, &str); 2] = [("etc/conda/activate.d", ".sh"), ("etc/conda/env_vars.d", ".json")];

/// What is wanted of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Nothing,
    /// That it is there.
    Name,
    /// Its content, of at most so many bytes.
    Content(u64),
}

/// What is wanted of the file with this path in a file system.
pub fn wish(path: &str) -> Wish {
    let Some((folder, name)) = path.rsplit_once('/') else { return Wish::Nothing };
    if is_in(folder, RECORDS) {
        return match name {
            "history" => Wish::Name,
            "state" => Wish::Content(TEXT_LIMIT),
            _ if name.ends_with(".json") => Wish::Content(RECORD_LIMIT),
            _ => Wish::Nothing,
        };
    }
    if matches!(name, "METADATA" | "RECORD") && distribution(path).is_some() {
        return Wish::Content(RECORD_LIMIT);
    }
    match ACTIVATION.iter().any(|(place, end)| is_in(folder, place) && name.ends_with(end)) {
        true => Wish::Content(TEXT_LIMIT),
        false => Wish::Nothing,
    }
}

/// Whether a folder is `place` in some prefix.
fn is_in(folder: &str, place: &str) -> bool {
    folder.strip_suffix(place).is_some_and(|before| before.ends_with('/'))
}

/// What is kept of a file's content.
pub fn digest_of_content(path: &str, content: &[u8]) -> String {
    let is_record = path.ends_with(".json") && path.rsplit_once('/').is_some_and(|(folder, _)| is_in(folder, RECORDS));
    match is_record {
        // What cannot be read is told only when it is needed.
        true => serde_json::from_slice::<PrefixRecord>(content)
            .ok()
            .and_then(|record| serde_json::to_string(&Package::from(record)).ok())
            .unwrap_or_default(),
        false => {
            let text = String::from_utf8_lossy(content);
            match (distribution(path), path.rsplit_once('/')) {
                (Some(_), Some((_, "RECORD"))) => recorded(content),
                (Some(_), _) => {
                    requires_dist(&text).filter(|line| line.contains("extra")).collect::<Vec<_>>().join("\n")
                }
                _ => text.into_owned(),
            }
        }
    }
}

/// `Requires-Dist` of a METADATA (core metadata specification).
pub fn requires_dist(text: &str) -> impl Iterator<Item = &str> {
    // Only the headers: the description follows an empty line.
    let headers = text.lines().take_while(|line| !line.trim().is_empty());
    headers.filter_map(|line| line.strip_prefix("Requires-Dist:")).map(str::trim)
}

/// The files in a RECORD (recording installed projects), one a line: the path, relative to site-packages, a tab, and
/// the digest, if there is one. Those that lie elsewhere are left out.
fn recorded(content: &[u8]) -> String {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut text = String::new();
    for row in reader.records().filter_map(|row| row.ok()) {
        let path = row.get(0).filter(|path| !path.is_empty() && !path.starts_with('/') && !path.contains(['\t', '\n']));
        let Some(path) = path else { continue };
        let hash = row.get(1).and_then(|hash| hash.strip_prefix("sha256="));
        let bytes = hash.and_then(|hash| URL_SAFE_NO_PAD.decode(hash.trim_end_matches('=')).ok());
        let digest = bytes.and_then(|bytes| bytes.try_into().ok()).map(Digest::from_bytes);
        let _ = writeln!(text, "{path}\t{}", digest.map(|digest| digest.to_string()).unwrap_or_default());
    }
    text
}

/// A path relative to a folder, in that folder; nothing of one that climbs out of the root.
fn below(folder: &str, path: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').collect();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        match part {
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Where it comes from; without credentials.
    pub record: RepoDataRecord,
    /// The paths of its files in the prefix.
    pub files: Vec<String>,
    /// What was asked for when it was installed; nothing of what only others need.
    pub requested: Vec<String>,
}

impl From<PrefixRecord> for Package {
    #[expect(deprecated, reason = "conda and mamba write `requested_spec`")]
    fn from(record: PrefixRecord) -> Self {
        let mut requested = record.requested_specs;
        let single = record.requested_spec.filter(|spec| !spec.is_empty() && spec != "None");
        requested.extend(single.filter(|spec| !requested.contains(spec)));
        let listed = record.files.into_iter();
        let of_paths = record.paths_data.paths.into_iter().map(|entry| entry.relative_path);
        let files: BTreeSet<String> =
            listed.chain(of_paths).filter_map(|path| path.to_str().map(str::to_owned)).collect();
        let mut record = record.repodata_record;
        record.url = redact::canonical(&record.url);
        // Some clients write the name, some the URL with the subdir.
        record.channel = channel_of(&record).or_else(|| record.channel.as_deref().map(canonical_channel));
        Self { record, files: files.into_iter().collect(), requested }
    }
}

/// The channel in a record's URL: what is before subdir and file.
fn channel_of(record: &RepoDataRecord) -> Option<String> {
    let (folder, _) = record.url.as_str().rsplit_once('/')?;
    let (channel, subdir) = folder.rsplit_once('/')?;
    (subdir == record.package_record.subdir).then(|| canonical_channel(channel))
}

/// The normalised name (PEP 503) and the version in the path of a file of a `dist-info` folder.
pub fn distribution(path: &str) -> Option<(String, String)> {
    let (folder, _) = path.rsplit_once('/')?;
    let (parent, folder) = folder.rsplit_once('/')?;
    if !parent.ends_with("site-packages") {
        return None;
    }
    // pip calls what it did not finish to remove `~NAME`.
    let (name, version) =
        folder.strip_suffix(".dist-info")?.split_once('-').filter(|(name, _)| !name.starts_with('~'))?;
    Some((normalised_name(name), version.to_owned()))
}

/// A name as PyPI compares it (PEP 503): lower case, runs of `-`, `_` and `.` as one dash.
fn normalised_name(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// The files of environments, wherever they lie, by their paths in the file system without a leading slash; with what
/// [`digest_of_content`] keeps of them.
#[derive(Debug, Clone, Default)]
pub struct Files(pub BTreeMap<String, String>);

/// One environment.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Sorted by name.
    pub packages: Vec<Package>,
    /// Its activation files by their paths in the prefix.
    pub activation: BTreeMap<String, String>,
    /// Its variables (`conda env config vars`).
    pub variables: BTreeMap<String, String>,
    /// The distributions of Python packages (normalised name → version) that no conda package brings.
    pub distributions: BTreeMap<String, String>,
    /// `Requires-Dist` of all distributions, by normalised name, as far as extras need it.
    pub requirements: BTreeMap<String, Vec<String>>,
    /// The files of the distributions that no conda package brings, by their paths in the prefix: whose they are, and
    /// what is in them, as far as RECORD says.
    pub recorded: BTreeMap<String, (String, Option<Digest>)>,
}

impl Files {
    /// Where environments lie, without a leading slash.
    pub fn prefixes(&self) -> Vec<&str> {
        let histories = self.0.keys().filter_map(|path| path.strip_suffix(HISTORY));
        histories.map(|prefix| prefix.trim_end_matches('/')).filter(|prefix| !prefix.is_empty()).collect()
    }

    /// The environment in a prefix (without a leading slash).
    ///
    /// # Errors
    /// A record that cannot be read; two packages of one name.
    pub fn environment(&self, prefix: &str) -> Result<Environment> {
        let folder = format!("{prefix}/");
        let inside = self.0.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let mut found = Environment::default();
        let mut distributions = BTreeMap::new();
        let mut records = BTreeMap::new();
        for (path, content) in inside {
            let relative = &path[folder.len()..];
            let record = relative.strip_prefix(RECORDS).and_then(|name| name.strip_prefix('/'));
            if relative == STATE {
                found.variables = variables(content);
            } else if record.is_some_and(|name| name.ends_with(".json") && !name.contains('/')) {
                found.packages.push(serde_json::from_str(content).map_err(|error| {
                    Error::user(format!("`/{path}` is no record of a conda package")).caused_by(error)
                })?);
            } else if ACTIVATION.iter().any(|(place, _)| relative.starts_with(place)) {
                found.activation.insert(relative.to_owned(), content.clone());
            } else if let Some((name, version)) = distribution(path) {
                if path.ends_with("/RECORD") {
                    records.insert(relative, (name, content));
                } else {
                    let lines = content.lines().map(str::to_owned);
                    found.requirements.entry(name.clone()).or_default().extend(lines);
                    distributions.insert(relative.to_owned(), (name, version));
                }
            }
        }
        let of_conda: BTreeSet<&str> =
            found.packages.iter().flat_map(|package| &package.files).map(String::as_str).collect();
        distributions.retain(|path, _| !of_conda.contains(path.as_str()));
        found.distributions = distributions.into_values().collect();
        for (path, (name, content)) in records.into_iter().filter(|(path, _)| !of_conda.contains(path)) {
            let site_packages = path.rsplitn(3, '/').nth(2).unwrap_or_default();
            let files = content.lines().filter_map(|line| {
                let (path, hash) = line.split_once('\t')?;
                Some((below(site_packages, path)?, (name.clone(), hash.parse().ok())))
            });
            found.recorded.extend(files);
        }
        found.packages.sort_by(|a, b| a.name().cmp(b.name()));
        match found.packages.windows(2).find(|pair| pair[0].name() == pair[1].name()) {
            Some(pair) => Err(Error::user(format!("`/{prefix}/{RECORDS}` has two packages `{}`", pair[0].name()))
                .hint("repair the environment in the base: conda allows one package of a name")),
            None => Ok(found),
        }
    }
}

impl Package {
    /// The normalised name.
    pub fn name(&self) -> &str {
        self.record.package_record.name.as_normalized()
    }

    /// What it is to pip: normalised name → version of each `dist-info` that it brings.
    pub fn distributions(&self) -> BTreeMap<String, String> {
        let metadata = self.files.iter().filter(|path| path.ends_with("/METADATA"));
        metadata.filter_map(|path| distribution(path)).collect()
    }
}

/// `env_vars` of a state file; what conda would not export is left out.
fn variables(state: &str) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct State<'a> {
        #[serde(default, borrow)]
        env_vars: BTreeMap<String, &'a RawValue>,
    }
    let variables = serde_json::from_str::<State<'_>>(state).map(|state| state.env_vars).unwrap_or_default();
    let text = |(name, raw): (String, &RawValue)| Some((name, python::scalar(raw)??));
    variables.into_iter().filter_map(text).filter(|(_, value)| value != UNSET).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METADATA: &str =
        "Name: By.Pip\nRequires-Dist: a\nRequires-Dist: b ; extra == 'fast'\n\nRequires-Dist: c; extra == 'text'\n";

    fn record(name: &str, more: &str) -> String {
        format!(
            r#"{{"name": "{name}", "version": "1.0", "build": "0", "build_number": 0, "subdir": "linux-64",
                "fn": "{name}-1.0-0.conda", "url": "https://me:secret@host/t/token/c/linux-64/{name}-1.0-0.conda",
                "channel": "https://host/c/linux-64", "depends": [], "files": ["lib/{name}"]{more}}}"#
        )
    }

    fn files(contents: &[(&str, String)]) -> Files {
        let wanted = contents.iter().filter(|(path, _)| wish(path) != Wish::Nothing);
        Files(wanted.map(|(path, content)| ((*path).to_owned(), digest_of_content(path, content.as_bytes()))).collect())
    }

    #[test]
    fn environments_are_found_with_what_is_in_them() {
        let metadata = r#", "requested_spec": "b >=1",
            "paths_data": {"paths_version": 1, "paths": [{"_path": "lib/python3.11/site-packages/B_b-1.0.dist-info/METADATA", "path_type": "hardlink"}]}"#;
        let hash = URL_SAFE_NO_PAD.encode(Digest::of("x").as_bytes());
        let by_pip = format!(
            "by_pip.py,sha256={hash},1\n../../../bin/by-pip,,\n\"odd,name\",,\n/etc/other,,\n../../../../../../x,,\n"
        );
        let files = files(&[
            ("opt/conda/conda-meta/history", String::new()),
            ("opt/conda/conda-meta/b-1.0-0.json", record("b", metadata)),
            ("opt/conda/conda-meta/a-1.0-0.json", record("a", "")),
            ("opt/conda/conda-meta/state", r#"{"env_vars": {"A": "1", "B": "***unset***", "C": 2}}"#.to_owned()),
            ("opt/conda/lib/python3.11/site-packages/B_b-1.0.dist-info/METADATA", String::new()),
            ("opt/conda/lib/python3.11/site-packages/By.Pip-2.dist-info/METADATA", METADATA.to_owned()),
            ("opt/conda/lib/python3.11/site-packages/By.Pip-2.dist-info/RECORD", by_pip),
            ("opt/conda/lib/python3.11/site-packages/by_pip/__init__.py", String::new()),
            ("opt/conda/lib/python3.11/site-packages/~umpy-1.0.dist-info/METADATA", String::new()),
            ("opt/conda/etc/conda/activate.d/a.sh", "export A=1".to_owned()),
            ("opt/conda/envs/other/conda-meta/history", String::new()),
            ("opt/conda/pkgs/a/info/index.json", "{}".to_owned()),
        ]);
        assert_eq!(files.prefixes(), ["opt/conda", "opt/conda/envs/other"]);
        let found = files.environment("opt/conda").expect("reads");
        let names: Vec<&str> = found.packages.iter().map(Package::name).collect();
        assert_eq!(names, ["a", "b"]);
        let [_, b] = found.packages.as_slice() else { panic!("two packages") };
        assert_eq!(b.record.url.as_str(), "https://host/c/linux-64/b-1.0-0.conda");
        assert_eq!(b.record.channel.as_deref(), Some("https://host/c"));
        assert_eq!(b.requested, ["b >=1"]);
        assert_eq!(b.distributions(), [("b-b".to_owned(), "1.0".to_owned())].into());
        assert_eq!(found.distributions, [("by-pip".to_owned(), "2".to_owned())].into());
        assert_eq!(found.requirements["by-pip"], ["b ; extra == 'fast'"]);
        let site = "lib/python3.11/site-packages";
        let expected = [
            ("bin/by-pip".to_owned(), None),
            (format!("{site}/by_pip.py"), Some(Digest::of("x"))),
            (format!("{site}/odd,name"), None),
        ];
        let expected = expected.map(|(path, digest)| (path, ("by-pip".to_owned(), digest)));
        assert_eq!(found.recorded, BTreeMap::from(expected));
        let variables = [("A", "1"), ("C", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.variables, BTreeMap::from(variables));
        assert_eq!(found.activation.keys().collect::<Vec<_>>(), ["etc/conda/activate.d/a.sh"]);
        assert!(files.environment("opt/conda/envs/other").expect("reads").packages.is_empty());
    }

    #[test]
    fn records_that_cannot_be_used_are_named() {
        let broken = files(&[("p/conda-meta/a-1.0-0.json", "{}".to_owned())]);
        let message = broken.environment("p").expect_err("is broken").to_string();
        assert!(message.contains("`/p/conda-meta/a-1.0-0.json`"), "{message}");
        let twice =
            files(&[("p/conda-meta/a-1.0-0.json", record("a", "")), ("p/conda-meta/a-0.9-0.json", record("a", ""))]);
        let message = twice.environment("p").expect_err("is ambiguous").to_string();
        assert!(message.contains("two packages `a`"), "{message}");
    }
}
