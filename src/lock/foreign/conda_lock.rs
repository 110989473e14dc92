//! conda-lock.yml, version 1 (CEP 37): the packages of several platforms in one list, each with a category.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rattler_digest::{Md5, Sha256, parse_digest_from_hex};
use serde::Deserialize;
use url::Url;

use super::{ChannelList, Pinned, PinnedPackage, PinnedWheel, environment_of, not_for, record_of};
use crate::model::Platform;
use crate::util::{Digest, Error, Result, ResultExt as _, redact, variables, yaml};

/// The category of what is always installed.
const MAIN: &str = "main";

/// What matters here of the file. (`rattler_conda_lock` reads it, too, but refuses what conda-lock itself has written,
/// as absolute paths of sources.)
#[derive(Deserialize)]
struct Document {
    version: u32,
    metadata: Metadata,
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Metadata {
    channels: Vec<Channel>,
    platforms: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Channel {
    Name(String),
    Whole {
        url: String,
        #[serde(default)]
        used_env_vars: Vec<String>,
    },
}

#[derive(Debug, Clone, Deserialize)]
struct Package {
    name: String,
    version: String,
    manager: Manager,
    platform: String,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    url: String,
    #[serde(default)]
    hash: Hashes,
    #[serde(default)]
    source: Option<Source>,
    #[serde(default = "main_category")]
    category: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Manager {
    Conda,
    Pip,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Hashes {
    md5: Option<String>,
    sha256: Option<String>,
}

/// Where a package of pip is built from.
#[derive(Debug, Clone, Deserialize)]
struct Source {
    url: String,
}

fn main_category() -> String {
    MAIN.to_owned()
}

/// The content of such a file, and what is taken of it.
#[derive(Debug, Clone)]
pub(super) struct CondaLock {
    pub(super) channels: Vec<String>,
    platforms: Vec<String>,
    packages: Vec<Package>,
    categories: Vec<String>,
    /// Categories that are not taken.
    others: BTreeSet<String>,
}

impl CondaLock {
    pub(super) fn parse(file: &Path, text: &str, category: Option<&str>) -> Result<Self> {
        let broken = || {
            Error::user(format!("`{}` is no conda-lock.yml that can be read", file.display()))
                .hint("make it again with conda-lock 1.0 or newer")
        };
        yaml::check(text).context(|| format!("failed to read `{}`", file.display()))?;
        let lock: Document = serde_yaml::from_str(text)
            .map_err(|error| broken().caused_by(std::io::Error::other(redact::within(&error.to_string()))))?;
        if lock.version != 1 {
            return Err(broken().caused_by(std::io::Error::other(format!("its version is {}, not 1", lock.version))));
        }
        let mut others: BTreeSet<String> = lock.package.iter().map(|package| package.category.clone()).collect();
        let mut categories = vec![MAIN.to_owned()];
        if let Some(category) = category.filter(|category| ![MAIN, "default"].contains(category)) {
            if !others.contains(category) {
                let known = others.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                return Err(Error::user(format!("`{}` has no category `{category}`", file.display()))
                    .hint(format!("it has {known}")));
            }
            categories.push(category.to_owned());
        }
        others.retain(|other| !categories.contains(other));
        let mut packages = lock.package;
        packages.retain(|package| categories.contains(&package.category));
        let mut names = Vec::new();
        let mut channels = ChannelList::default();
        for channel in &lock.metadata.channels {
            match channel {
                Channel::Name(name) => channels.add(name),
                Channel::Whole { url, used_env_vars } => {
                    channels.add(url);
                    names.extend(used_env_vars.iter().cloned());
                }
            }
        }
        let variables = environment_of(&names)?;
        for package in &mut packages {
            package.url = expanded(&package.url, &variables)?;
            if let Some(source) = &mut package.source {
                source.url = expanded(&source.url, &variables)?;
            }
            if package.manager == Manager::Pip {
                package.url = with_login(&package.url, variables::value)?;
            }
            if let (Manager::Conda, Ok(url)) = (package.manager, Url::parse(&package.url))
                && redact::canonical(&url) != url
            {
                channels.add_of(&url);
            }
        }
        Ok(Self { channels: channels.texts, platforms: lock.metadata.platforms, packages, categories, others })
    }

    pub(super) fn notices(&self, file: &Path) -> Vec<String> {
        match self.others.is_empty() {
            true => Vec::new(),
            false => vec![format!(
                "{}: packages of the category {} are left out; `--environment NAME` takes one beside {MAIN}",
                file.display(),
                self.others.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            )],
        }
    }

    pub(super) fn pip_urls(&self) -> Vec<Url> {
        let packages = self.packages.iter().filter(|package| package.manager == Manager::Pip);
        let texts = packages.map(|package| package.source.as_ref().map_or(&package.url, |source| &source.url));
        texts.filter_map(|url| pip_url(url).ok()).collect()
    }

    pub(super) fn pinned(&self, file: &Path, platform: &Platform) -> Result<Pinned> {
        let subdir = platform.subdir.to_string();
        if !self.platforms.contains(&subdir) {
            return Err(not_for(file, platform, &self.platforms));
        }
        let mut pinned = Pinned { packages: Vec::new(), wheels: Vec::new() };
        // A package may be in several categories; two of one name that differ are told by whoever sorts them.
        let mut seen = BTreeSet::new();
        for package in self.packages.iter().filter(|package| package.platform == subdir) {
            if !seen.insert((package.manager, &package.name, &package.url)) {
                continue;
            }
            let wrong = |reason: String| {
                Error::user(format!("`{}` pins `{}` ({subdir}) wrongly: {reason}", file.display(), package.name))
                    .hint("make the file again with conda-lock")
            };
            match package.manager {
                Manager::Conda => pinned.packages.push(conda(package).map_err(wrong)?),
                Manager::Pip => pinned.wheels.push(wheel(package).map_err(wrong)?),
            }
        }
        if pinned.packages.is_empty() {
            return Err(Error::user(format!(
                "`{}` has no package of the category {} for {subdir}",
                file.display(),
                self.categories.join(" or ")
            ))
            .hint("make the file again with conda-lock"));
        }
        Ok(pinned)
    }
}

fn expanded(url: &str, variables: &BTreeMap<String, String>) -> Result<String> {
    let (mut url, mut names) = (url.to_owned(), Vec::new());
    for (name, value) in variables {
        let replaced = url.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
        if replaced != url {
            names.push(name.clone());
        }
        url = replaced;
    }
    variables::permit(&names, &url)?;
    Ok(url)
}

/// A URL of pip's with the variables in its user and password: conda-lock leaves those there as `pip-repositories` has
/// them, and names them nowhere. Of what is not set it stays as it is.
fn with_login(url: &str, variable: impl Fn(&str) -> Result<Option<String>>) -> Result<String> {
    let parts = url.split_once("://").and_then(|(scheme, rest)| {
        let host = rest.find('/').unwrap_or(rest.len());
        let login = rest[..host].rfind('@')?;
        Some((scheme, &rest[..login], &rest[login..]))
    });
    let Some((scheme, login, rest)) = parts else { return Ok(url.to_owned()) };
    let mut names = Vec::new();
    let mut pieces = login.split('$');
    let mut expanded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let (name, behind) = match piece.strip_prefix('{').and_then(|piece| piece.split_once('}')) {
            Some(braced) => braced,
            None => piece.split_at(piece.find(|char| !is_part(char)).unwrap_or(piece.len())),
        };
        let value = if name.is_empty() { None } else { variable(name)? };
        match value {
            Some(value) => {
                expanded.extend([value.as_str(), behind]);
                names.push(name.to_owned());
            }
            None => expanded.extend(["$", piece]),
        }
    }
    let url = format!("{scheme}://{expanded}{rest}");
    variables::permit(&names, &url)?;
    Ok(url)
}

fn url_of(package: &Package) -> Result<Url, String> {
    Url::parse(&package.url).map_err(|error| format!("its URL is none ({error})"))
}

fn conda(package: &Package) -> Result<PinnedPackage, String> {
    let mut record = record_of(&url_of(package)?)?;
    let said = &mut record.package_record;
    if said.name.as_normalized() != package.name.to_lowercase() || said.version.as_str() != package.version {
        return Err(format!("its URL is that of {} {}", said.name.as_normalized(), said.version));
    }
    let wrong = |what: &str| format!("its {what} is none");
    let hash = &package.hash;
    said.md5 =
        hash.md5.as_deref().map(|md5| parse_digest_from_hex::<Md5>(md5).ok_or_else(|| wrong("md5"))).transpose()?;
    said.sha256 = hash
        .sha256
        .as_deref()
        .map(|sha256| parse_digest_from_hex::<Sha256>(sha256).ok_or_else(|| wrong("sha256")))
        .transpose()?;
    said.depends = package
        .dependencies
        .iter()
        .map(|(name, constraint)| format!("{name} {constraint}").trim_end().to_owned())
        .collect();
    Ok(PinnedPackage { record, complete: false })
}

fn wheel(package: &Package) -> Result<PinnedWheel, String> {
    let url = package.source.as_ref().map_or(&package.url, |source| &source.url);
    let url = pip_url(url).map_err(|error| format!("its URL is none ({error})"))?;
    let (sha256, direct, version) =
        (package.hash.sha256.as_deref(), package.source.is_some(), Some(package.version.clone()));
    if url.scheme().starts_with("git+") {
        let mut wheel = PinnedWheel::at(&package.name, version, &url, None, direct);
        // conda-lock writes the commit there.
        sha256.map_or(Ok(()), |commit| wheel.pin_to(commit))?;
        return Ok(wheel);
    }
    let sha256 = sha256.map(Digest::from_hex).transpose().map_err(|_| "its sha256 is none".to_owned())?;
    Ok(PinnedWheel::at(&package.name, version, &url, sha256, direct))
}

/// The URL of a package of pip; conda-lock has that of a repository as its user writes it, also as scp does
/// (`git+git@host:team/tool.git@COMMIT`).
fn pip_url(text: &str) -> Result<Url, url::ParseError> {
    let of_scp = text.strip_prefix("git+").filter(|place| !place.contains("://"));
    match of_scp.and_then(|place| place.split_once(':')) {
        Some((host, path)) if !host.contains('/') => {
            Url::parse(&format!("git+ssh://{host}/{}", path.trim_start_matches('/')))
        }
        _ => Url::parse(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_pinned_by_the_hash_of_a_commit() {
        const COMMIT: &str = "5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d";
        let wheel = |url: &str, hash: &str| {
            let package = serde_json::json!({
                "name": "tool", "version": "1.0", "manager": "pip", "platform": "linux-64", "url": url,
                "hash": {"sha256": hash}, "source": {"url": url},
            });
            wheel(&serde_json::from_value(package).expect("a package"))
        };
        for url in [
            "git+https://host.example/team/tool.git@5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d",
            "git+https://host.example/team/tool.git",
            "git+https://host.example/team/tool.git@main",
            "git+ssh://git@host.example/team/tool.git@5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d",
            "git+git@host.example:team/tool.git@5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d",
        ] {
            let wheel = wheel(url, COMMIT).expect(url);
            assert_eq!(wheel.sha256, None, "a commit is no digest of a file");
            let source = wheel.commit().expect(url);
            let crate::lock::WheelSource::Git { url: repository, commit, .. } = source else { panic!("{url}") };
            assert_eq!((repository.path(), commit.as_str()), ("/team/tool.git", COMMIT), "{url}");
        }
        let other = COMMIT.replace('5', "6");
        let reason = wheel(&format!("git+https://host.example/tool.git@{COMMIT}"), &other).expect_err("are two");
        assert!(reason.contains(COMMIT) && reason.contains(&other), "{reason}");
        assert!(wheel("git+https://host.example/tool.git", "abc").is_err());
        assert!(wheel("https://host.example/tool-1.0-py3-none-any.whl", COMMIT).is_err(), "of a file it is none");
    }

    #[test]
    fn logins_have_variables() {
        let variable = |name: &str| Ok(["USER", "PASS_1"].contains(&name).then(|| name.to_lowercase()));
        for (url, expected) in [
            ("https://$USER:${PASS_1}@host.example/a$USER.whl", "https://user:pass_1@host.example/a$USER.whl"),
            ("https://$USER-x:$OTHER@host.example", "https://user-x:$OTHER@host.example"),
            ("https://${USER:$@host.example/a", "https://${USER:$@host.example/a"),
            ("https://host.example/$USER@1/a", "https://host.example/$USER@1/a"),
            ("./$USER/a.whl", "./$USER/a.whl"),
        ] {
            assert_eq!(with_login(url, variable).expect(url), expected);
        }
    }
}
