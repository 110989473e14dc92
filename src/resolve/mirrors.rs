//! Mirrors of channels: where requests go that are for a channel's canonical URL. Locks and messages name the channel.

use std::collections::HashMap;
use std::io::ErrorKind;

use rattler_config::locations::config_search_paths;
use rattler_config::{ConfigBase, NoExtension};
use rattler_networking::mirror_middleware::Mirror;
use url::Url;

use super::client::Credentials;
use super::condarc::Condarc;
use super::expand::expand;
use super::names::Names;
use crate::util::{Error, Result, ResultExt as _, redact};

/// The mirrors of channels, by canonical URL; both with a slash at the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Mirrors(HashMap<Url, Vec<Url>>);

impl Mirrors {
    /// `mirrors` of rattler's configuration, and `mirrored_channels` of conda's, which goes before it. What is secret
    /// in their URLs is remembered by `credentials`.
    ///
    /// # Errors
    /// When what conda's configuration names is no channel or no URL.
    pub(super) fn new(condarc: &Condarc, names: &Names<'_>, credentials: &mut Credentials) -> Result<Self> {
        let mut mirrors = Self::default();
        for (channel, urls) in &condarc.rattler_mirrors {
            mirrors.set(&redact::canonical(channel), urls, credentials);
        }
        let Some(said) = &condarc.mirrored else { return Ok(mirrors) };
        for (name, texts) in &said.value {
            let here = || format!("`mirrored_channels` ({}) cannot be used", said.origin);
            let supported = texts.iter().filter(|text| is_supported(text));
            let urls = supported.map(|text| read_url(text)).collect::<Result<Vec<_>>>().context(here)?;
            for channel in names.urls(name).context(here)? {
                mirrors.set(&channel, &urls, credentials);
            }
        }
        Ok(mirrors)
    }

    fn set(&mut self, channel: &Url, mirrors: &[Url], credentials: &mut Credentials) {
        let mirrors: Vec<Url> = mirrors.iter().map(|url| credentials.remember(&folder(url))).collect();
        if !mirrors.is_empty() {
            self.0.insert(folder(channel), mirrors);
        }
    }

    /// What is asked instead of a URL's own server, without credentials.
    pub(super) fn of(&self, url: &Url) -> Option<&[Url]> {
        let fits = self.0.iter().filter(|(channel, _)| url.as_str().starts_with(channel.as_str()));
        fits.max_by_key(|(channel, _)| channel.as_str().len()).map(|(_, mirrors)| mirrors.as_slice())
    }

    /// All, by channel.
    pub(super) fn all(&self) -> Vec<(&Url, &[Url])> {
        let mut all: Vec<_> = self.0.iter().map(|(channel, mirrors)| (channel, mirrors.as_slice())).collect();
        all.sort();
        all
    }

    /// As rattler's middleware wants them; nothing when there are none. It asks the one that failed least, and would
    /// say that nothing is there at all if it gave up those that failed often.
    pub(super) fn for_rattler(&self) -> Option<HashMap<Url, Vec<Mirror>>> {
        let mirror = |url: &Url| Mirror { url: url.clone(), no_zstd: false, no_bz2: false, max_failures: None };
        let all = self.0.iter().map(|(channel, urls)| (channel.clone(), urls.iter().map(mirror).collect()));
        (!self.0.is_empty()).then(|| all.collect())
    }
}

/// The mirrors that the configuration of rattler and pixi names, the most important last.
///
/// # Errors
/// When a configuration cannot be read.
pub(super) fn of_rattler() -> Result<Vec<(Url, Vec<Url>)>> {
    let mut mirrors = Vec::new();
    for location in config_search_paths("pixi") {
        let text = match fs_err::read_to_string(&location.path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(error.into()),
        };
        // The parser's reason is not told: it quotes the line, which may hold a password.
        let (config, _) = ConfigBase::<NoExtension>::from_toml_str_shared(&text).map_err(|_| {
            Error::user(format!("the configuration `{}` cannot be read", location.path.display()))
                .hint("`pixi config list` says what is wrong with it; `--no-condarc` does without it")
        })?;
        for (channel, urls) in &config.mirrors {
            tracing::debug!(file = %location.path.display(), channel = %redact::url(channel), "has mirrors");
            let supported = urls.iter().filter(|url| is_supported(url.as_str()));
            mirrors.push((channel.clone(), supported.cloned().collect()));
        }
    }
    Ok(mirrors)
}

/// Whether a mirror is reached by http. Those in registries (`oci://`) and buckets are not; a list may hold both kinds.
pub(super) fn is_supported(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://") || !url.contains("://")
}

/// A mirror of conda's configuration.
fn read_url(text: &str) -> Result<Url> {
    Url::parse(&expand(text)?)
        .ok()
        .filter(Url::has_host)
        .ok_or_else(|| Error::user("a mirror is no URL").hint("write it as `https://host/channel`"))
}

/// With a slash at the end, so that it can be compared as the beginning of others.
pub(super) fn folder(url: &Url) -> Url {
    let mut url = url.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}
