//! Packages of PyPI as the locks of other tools pin them.

use url::Url;

use crate::lock::WheelSource;
use crate::model::git::is_commit;
use crate::util::{Digest, redact};

/// The index of what is pinned without one: a pixi.lock leaves this one out (rattler_lock reads it so), a conda-lock.yml
/// names none at all. A part of those formats; nothing is asked of it.
const PYPI: &str = "https://pypi.org/simple";

/// A package of PyPI as a file pins it: a wheel, or what a wheel can be built of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedWheel {
    /// The normalised name (PEP 503).
    pub name: String,
    /// The version (PEP 440); a folder has none.
    pub version: Option<String>,
    /// Where the wheel or source distribution is, without credentials; `git+https:...#COMMIT` for a repository, `file:`
    /// for what lies on this machine.
    pub url: Url,
    /// Its sha256.
    pub sha256: Option<Digest>,
    /// The index that lists it; nothing for what somebody asked for by its place.
    pub index: Option<Url>,
    /// What it needs (PEP 508).
    pub requires_dist: Vec<String>,
    /// The versions of Python that it is for.
    pub requires_python: Option<String>,
}

impl PinnedWheel {
    /// A distribution at a URL, which may have its hash behind `#sha256=`. `direct`: no index lists it. (pixi writes
    /// `direct+` before the URLs of such ones; that of a repository or of a path on this machine tells by itself.)
    pub(super) fn at(name: &str, version: Option<String>, url: &Url, sha256: Option<Digest>, direct: bool) -> Self {
        let plain = url.as_str().strip_prefix("direct+").and_then(|plain| Url::parse(plain).ok());
        let direct = direct || plain.is_some();
        let url = plain.as_ref().unwrap_or(url);
        let fragment = url.fragment().unwrap_or_default().to_owned();
        let field = |key: &str| fragment.split('&').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        let sha256 = sha256.or(field("sha256").and_then(|hash| Digest::from_hex(hash).ok()));
        let is_git = url.scheme().starts_with("git+");
        let mut location = redact::canonical(url);
        if is_git {
            // pixi has the commit in the fragment and the folder of the project in the query.
            let folder =
                url.query_pairs().find(|(key, _)| key == "subdirectory").map(|(_, folder)| folder.into_owned());
            let folder = folder.or(field("subdirectory").map(str::to_owned));
            location.set_query(folder.map(|folder| format!("subdirectory={folder}")).as_deref());
            // pip and conda-lock write the commit behind the path, and the folder in the fragment.
            if let Some((path, commit)) = location.path().to_owned().rsplit_once('@') {
                location.set_path(path);
                location.set_fragment(Some(commit));
            }
        } else {
            location.set_fragment(None);
        }
        let index = (!direct && !is_git && location.scheme() != "file").then(|| Url::parse(PYPI).ok()).flatten();
        Self {
            name: normalised(name),
            version,
            url: location,
            sha256,
            index,
            requires_dist: Vec::new(),
            requires_python: None,
        }
    }

    /// Pins a repository to a commit that stands beside its URL.
    ///
    /// # Errors
    /// When it is no commit, or another one than that in the URL.
    pub(super) fn pin_to(&mut self, commit: &str) -> Result<(), String> {
        if !is_commit(commit) {
            return Err(format!("the hash of its repository, `{commit}`, is not the hash of a commit"));
        }
        match self.url.fragment().filter(|own| is_commit(own)) {
            Some(own) if !own.eq_ignore_ascii_case(commit) => {
                Err(format!("its URL names the commit {own}, and its hash is {commit}"))
            }
            _ => {
                self.url.set_fragment(Some(commit));
                Ok(())
            }
        }
    }

    /// The commit of a repository.
    ///
    /// # Errors
    /// When it is pinned to none: to a branch, or to the beginning of a commit's hash.
    pub fn commit(&self) -> Result<WheelSource, String> {
        crate::lock::pypi::git_source(&self.url).map_err(|what| match self.url.fragment().is_some_and(is_commit) {
            true => what,
            false => format!("`{}` names no whole commit", redact::url(&self.url)),
        })
    }
}

/// A name as PEP 503 has it.
fn normalised(name: &str) -> String {
    let mut parts: Vec<&str> = name.split(['-', '_', '.']).collect();
    parts.retain(|part| !part.is_empty());
    parts.join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_tell_where_a_package_comes_from() {
        const COMMIT: &str = "5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d5c9b8a7d";
        let at = |text: &str| PinnedWheel::at("A_b.C", None, &text.parse().expect("a URL"), None, false);
        let listed = at("https://files.example/a-1-py3-none-any.whl");
        assert_eq!((listed.name.as_str(), listed.index.map(String::from).as_deref()), ("a-b-c", Some(PYPI)));
        let direct = at("direct+https://me:hush@files.example/a-1.whl");
        assert_eq!((direct.url.as_str(), direct.index), ("https://files.example/a-1.whl", None));
        assert_eq!(at("file:///a/b").index, None);
        for text in [
            format!("git+https://host.example/a.git?subdirectory=lib&rev=main#{COMMIT}"),
            format!("git+https://host.example/a.git@{COMMIT}#subdirectory=lib"),
        ] {
            let source = WheelSource::Git {
                url: "https://host.example/a.git".parse().expect("a URL"),
                commit: COMMIT.to_owned(),
                subdirectory: Some("lib".to_owned()),
            };
            assert_eq!(at(&text).commit(), Ok(source), "{text}");
        }
        for text in ["git+https://host.example/a.git", "git+https://host.example/a.git@main"] {
            assert!(at(text).commit().expect_err(text).contains("names no whole commit"));
        }
    }
}
