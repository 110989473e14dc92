//! The tokens that `anaconda login` and `conda token set` leave behind. conda puts them into the URLs of the servers
//! that they are for (`/t/<token>/`), and so does this (`conda/gateways/anaconda_client.py`).

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;
use url::form_urlencoded;

use crate::util::{Error, Result, ResultExt as _};

/// Ending of the files, which are named by the URL they are for.
const ENDING: &str = ".token";

/// Tokens by the URL of their server.
#[derive(Clone, Default)]
pub(super) struct Tokens(Vec<(Url, String)>);

/// Shows the servers, never the tokens.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(url, _)| url.as_str())).finish()
    }
}

impl Tokens {
    /// Reads them from the folders that conda and anaconda-client keep them in.
    ///
    /// # Errors
    /// When one of the files cannot be read.
    pub(super) fn read() -> Result<Self> {
        let mut tokens = Self::default();
        for folder in folders() {
            tokens.add(&folder)?;
        }
        Ok(tokens)
    }

    /// The servers that there are tokens for.
    pub(super) fn servers(&self) -> impl Iterator<Item = &Url> {
        self.0.iter().map(|(url, _)| url)
    }

    fn add(&mut self, folder: &Path) -> Result<()> {
        let Ok(entries) = fs_err::read_dir(folder) else { return Ok(()) };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.sort();
        for file in files {
            let Some(server) = file.file_name().and_then(|name| server(name.to_str()?)) else { continue };
            let token = fs_err::read_to_string(&file).map_err(Error::from);
            let token = token.context(|| format!("the token for `{server}` cannot be read"))?;
            let token = token.trim();
            if token.is_empty() {
                continue;
            }
            for url in [without_api(&server), server] {
                if !self.0.iter().any(|(known, _)| *known == url) {
                    self.0.push((url, token.to_owned()));
                }
            }
        }
        Ok(())
    }

    /// The URL with the token of its server, if there is one and the URL has none.
    pub(super) fn put_into(&self, url: &Url) -> Option<Url> {
        if url.path().split('/').any(|segment| segment == "t") {
            return None;
        }
        let (_, token) = self.0.iter().find(|(server, _)| is_below(url, server))?;
        let path = url.path().trim_start_matches('/');
        // Where Anaconda's servers keep channels below a folder, the token comes after it.
        let (folder, rest) = match path.strip_prefix("conda/") {
            Some(rest) => ("/conda", rest),
            None => ("", path),
        };
        let mut signed = url.clone();
        signed.set_path(&format!("{folder}/t/{token}/{rest}"));
        Some(signed)
    }
}

/// Where they are: `$BINSTAR_CONFIG_DIR/data`, else conda's folder and those of anaconda-client, today's and older.
fn folders() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(folder) = variable("BINSTAR_CONFIG_DIR") {
        return vec![folder.join("data")];
    }
    let home = std::env::home_dir();
    let at_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let configuration = variable("XDG_CONFIG_HOME").or_else(|| at_home(".config"));
    let data = variable("XDG_DATA_HOME").or_else(|| at_home(".local/share"));
    [
        configuration.map(|folder| folder.join("binstar")),
        at_home(".continuum/anaconda-client/tokens"),
        data.map(|folder| folder.join("binstar")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The server that a file's name gives, as Python's `quote_plus` writes it.
fn server(name: &str) -> Option<Url> {
    let quoted = name.strip_suffix(ENDING)?;
    let (url, _) = form_urlencoded::parse(quoted.as_bytes()).next()?;
    Url::parse(&url).ok().filter(Url::has_host)
}

/// The server of the channels, for that of the interface: `conda` in the place of the first `api`.
fn without_api(server: &Url) -> Url {
    let text = server.as_str();
    let borders = |at: usize| {
        let before = text[..at].chars().next_back();
        let behind = text[at + 3..].chars().next();
        matches!(before, Some('.' | '/')) && matches!(behind, None | Some('.' | '/'))
    };
    let Some((at, _)) = text.match_indices("api").find(|(at, _)| borders(*at)) else { return server.clone() };
    Url::parse(&format!("{}conda{}", &text[..at], &text[at + 3..])).unwrap_or_else(|_| server.clone())
}

/// Whether a URL is on this server, and below its path. (conda compares the beginnings of the texts, so that
/// `https://conda.anaconda.org.evil.example` would get the token of `https://conda.anaconda.org`.)
fn is_below(url: &Url, server: &Url) -> bool {
    let folder = server.path().trim_end_matches('/');
    let rest = url.path().strip_prefix(folder);
    url.origin() == server.origin() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_the_servers_that_they_are_for() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, token) in [
            ("https%3A%2F%2Fapi.anaconda.org.token", "tk-1\n"),
            ("https%3A%2F%2Fhost.example%2Fapi.token", "tk-2"),
            ("https%3A%2F%2Frepo.anaconda.cloud%2Frepo%2F.token", "tk-3"),
            ("https%3A%2F%2Fempty.example.token", " \n"),
            ("notes.txt", "hush"),
        ] {
            fs_err::write(folder.path().join(name), token).expect("writes");
        }
        let mut tokens = Tokens::default();
        tokens.add(folder.path()).expect("reads");
        let signed = |url: &str| tokens.put_into(&url.parse().expect("a URL")).map(String::from);
        for (url, expected) in [
            ("https://conda.anaconda.org/team/noarch/a", "https://conda.anaconda.org/t/tk-1/team/noarch/a"),
            ("https://host.example/conda/team/noarch/a", "https://host.example/conda/t/tk-2/team/noarch/a"),
            ("https://repo.anaconda.cloud/repo/main/a", "https://repo.anaconda.cloud/t/tk-3/repo/main/a"),
        ] {
            assert_eq!(signed(url).as_deref(), Some(expected));
        }
        for url in [
            "https://conda.anaconda.org.evil.example/team/a",
            "http://conda.anaconda.org/team/a",
            "https://conda.anaconda.org:8443/team/a",
            "https://host.example/conda-other/a",
            "https://repo.anaconda.cloud/pkgs/main/a",
            "https://empty.example/a",
            "https://conda.anaconda.org/t/mine/team/a",
        ] {
            assert_eq!(signed(url), None, "{url}");
        }
        assert!(!format!("{tokens:?}").contains("tk-"), "{tokens:?}");
        tokens.add(&folder.path().join("nowhere")).expect("is none");
    }
}
