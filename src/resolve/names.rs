//! What channels' names mean, as conda looks them up (`conda/models/channel.py`): names for several channels, channels
//! at places of their own, and the place of all others.

use std::path::Path;

use rattler_conda_types::{Channel, ChannelConfig};
use url::Url;

use super::channels::without_subdir;
use super::condarc::Condarc;
use super::expand::expand;
use crate::util::{Error, Result, ResultExt as _, redact};

/// Where channels are that are only named, unless conda's configuration says otherwise.
const ALIAS: &str = "https://conda.anaconda.org";

/// What the name `defaults` stands for, as in conda on Linux.
const DEFAULTS: [&str; 2] = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"];

/// Channels at a place of their own, as in conda.
const CUSTOM: [(&str, &str); 1] = [("pkgs/pro", "https://repo.anaconda.com")];

/// The names that conda knows, with those of its configuration.
#[derive(Clone, Copy)]
pub(super) struct Names<'a> {
    /// None: as without any.
    condarc: Option<&'a Condarc>,
}

/// What a name or URL means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What it says: it is a URL or a path, or no channel at all.
    Itself,
    /// The channel at this URL, which may hold credentials.
    At(String),
    /// Several channels that share a priority.
    Several(Vec<String>),
}

impl<'a> Names<'a> {
    /// With those of a configuration.
    pub(super) fn new(condarc: &'a Condarc) -> Self {
        Self { condarc: Some(condarc) }
    }

    /// Only those that conda knows without one.
    pub(super) fn plain() -> Self {
        Self { condarc: None }
    }

    /// The place of channels that are only named, without credentials.
    pub(super) fn alias(&self) -> Result<Url> {
        self.written_alias().map(|url| redact::canonical(&url))
    }

    /// The same as written.
    pub(super) fn written_alias(&self) -> Result<Url> {
        let Some(said) = self.condarc.and_then(|condarc| condarc.alias.as_ref()) else {
            return Url::parse(ALIAS).map_err(|error| Error::bug("the channels' address is no URL").caused_by(error));
        };
        let url = expand(&said.value).context(|| format!("`channel_alias` ({}) cannot be used", said.origin))?;
        let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https" | "file"));
        url.ok_or_else(|| said.refuse("channel_alias", "is no URL").hint("write it as `https://host/path`"))
    }

    /// What a channel's name means; environment variables in it are replaced already.
    pub(super) fn meaning(&self, text: &str) -> Result<Meaning> {
        let name = without_subdir(text).trim_end_matches('/');
        if !is_name(name) {
            return self.migrated(name);
        }
        if let Some(members) = self.several(name)? {
            return Ok(Meaning::Several(members));
        }
        match self.at_its_place(name)? {
            Some(url) => Ok(Meaning::At(url)),
            None => Ok(Meaning::At(below(self.written_alias()?.as_str(), name))),
        }
    }

    /// The canonical URLs of a channel of the configuration, with a slash at the end.
    ///
    /// # Errors
    /// When it is no channel.
    pub(super) fn urls(&self, text: &str) -> Result<Vec<Url>> {
        let expanded = expand(text)?;
        let urls = match self.meaning(&expanded)? {
            Meaning::Itself => vec![expanded],
            Meaning::At(url) => vec![url],
            Meaning::Several(urls) => urls,
        };
        urls.iter().map(|url| self.canonical(url)).collect()
    }

    fn canonical(&self, text: &str) -> Result<Url> {
        let root_dir = std::path::absolute(Path::new("."))?;
        let config = ChannelConfig { channel_alias: self.alias()?, root_dir };
        let channel = Channel::from_str(without_subdir(text), &config)
            .map_err(|_| Error::user(format!("`{}` is no channel", redact::within(text))))?;
        Ok(redact::canonical(channel.base_url.url()))
    }

    /// The URLs of the configuration that may hold credentials, as far as their environment variables are set: of
    /// servers (the alias), and of channels.
    pub(super) fn written_urls(&self) -> Result<Vec<Url>> {
        let Some(condarc) = self.condarc else { return Ok(Vec::new()) };
        let mut texts = Vec::new();
        for name in condarc.multi.iter().flat_map(|said| said.value.keys()).map(String::as_str).chain(["defaults"]) {
            texts.extend(self.several(name).ok().flatten().unwrap_or_default());
        }
        for name in condarc.custom.iter().flat_map(|said| said.value.keys()) {
            texts.extend(self.at_its_place(name).ok().flatten());
        }
        texts.extend(condarc.channels().iter().filter_map(|text| expand(text).ok()));
        let alias = condarc.alias.as_ref().map(|_| self.written_alias()).transpose()?;
        Ok(texts.iter().filter_map(|text| Url::parse(text).ok()).filter(Url::has_host).chain(alias).collect())
    }

    /// The channels that one name stands for. What the configuration calls `defaults` goes before its list of defaults.
    fn several(&self, name: &str) -> Result<Option<Vec<String>>> {
        let named = self.condarc.and_then(|condarc| condarc.multi.as_ref());
        if let Some((said, texts)) = named.and_then(|said| Some((said, said.value.get(name)?))) {
            let place = || format!("`custom_multichannels` ({}) cannot be used", said.origin);
            return self.members(texts).context(place).map(Some);
        }
        if name != "defaults" {
            return Ok(None);
        }
        match self.condarc.and_then(|condarc| condarc.defaults.as_ref()) {
            Some(said) => {
                let place = || format!("`default_channels` ({}) cannot be used", said.origin);
                self.members(&said.value).context(place).map(Some)
            }
            None => Ok(Some(DEFAULTS.map(str::to_owned).into())),
        }
    }

    /// Members of a group are URLs, or names below the alias.
    fn members(&self, texts: &[String]) -> Result<Vec<String>> {
        let url = |text: &String| {
            let text = expand(text)?;
            match text.contains("://") {
                true => Ok(text.trim_end_matches('/').to_owned()),
                false => Ok(below(self.written_alias()?.as_str(), &text)),
            }
        };
        texts.iter().map(url).collect()
    }

    /// The URL of a channel that is at a place of its own, or below one that is.
    fn at_its_place(&self, name: &str) -> Result<Option<String>> {
        let said = self.condarc.and_then(|condarc| condarc.custom.as_ref());
        let mut known = name;
        loop {
            if let Some((said, Some(place))) = said.and_then(|said| Some((said, said.value.get(known)?))) {
                let place = expand(place).context(|| format!("`custom_channels` ({}) cannot be used", said.origin))?;
                return Ok(Some(match place.contains("://") {
                    true => below(&place, name),
                    false => below(self.written_alias()?.as_str(), name),
                }));
            }
            if let Some(place) = self.place_of_default(known)? {
                return Ok(Some(below(&place, name)));
            }
            match known.rsplit_once('/') {
                Some((shorter, _)) => known = shorter,
                None => return Ok(None),
            }
        }
    }

    /// `pkgs/main` is at the place where `defaults` has it.
    fn place_of_default(&self, name: &str) -> Result<Option<String>> {
        if let Some((_, place)) = CUSTOM.iter().find(|(known, _)| *known == name) {
            return Ok(Some((*place).to_owned()));
        }
        // The path of a URL is the name of its channel; a single word would be too much of a coincidence.
        let defaults = if name.contains('/') { self.several("defaults")? } else { None };
        Ok(defaults.into_iter().flatten().find_map(|url| {
            let place = url.strip_suffix(name)?.strip_suffix('/')?;
            // Only the host may stand before it.
            let (_, rest) = place.split_once("://")?;
            (!rest.contains('/')).then(|| place.to_owned())
        }))
    }

    /// What is at an old place is found at the new one (`migrated_custom_channels`, `migrated_channel_aliases`).
    fn migrated(&self, text: &str) -> Result<Meaning> {
        let Some((condarc, url)) = self.condarc.zip(Url::parse(text).ok().filter(Url::has_host)) else {
            return Ok(Meaning::Itself);
        };
        let url = redact::canonical(&url);
        let mut custom: Vec<(&String, &String)> = condarc
            .migrated_channels
            .iter()
            .flat_map(|said| said.value.iter().filter_map(|(name, place)| Some((name, place.as_ref()?))))
            .collect();
        custom.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for (name, place) in custom {
            if let Some(rest) = behind(&url, &below(&expand(place)?, name)) {
                return self.meaning(below(name, &rest).trim_end_matches('/'));
            }
        }
        for alias in condarc.migrated_aliases.iter().flat_map(|said| &said.value) {
            if let Some(rest) = behind(&url, alias).filter(|rest| !rest.is_empty()) {
                return Ok(Meaning::At(below(self.written_alias()?.as_str(), &rest)));
            }
        }
        Ok(Meaning::Itself)
    }
}

/// Whether a text is a name, and no URL or path.
fn is_name(text: &str) -> bool {
    !text.is_empty() && !text.starts_with(['.', '/', '~']) && !text.contains([':', '\\', '[', ']'])
}

/// A place and a name below it.
fn below(place: &str, name: &str) -> String {
    format!("{}/{}", place.trim_end_matches('/'), name.trim_matches('/'))
}

/// What of a URL follows a place, whatever their schemes.
fn behind(url: &Url, place: &str) -> Option<String> {
    let bare = |text: &str| text.split_once("://").map_or(text, |(_, rest)| rest).trim_end_matches('/').to_owned();
    let rest = bare(url.as_str()).strip_prefix(&bare(place))?.to_owned();
    (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(condarc: &str, name: &str) -> Vec<String> {
        let condarc = Condarc::of(condarc).expect("a condarc");
        Names::new(&condarc).urls(name).expect("a channel").into_iter().map(String::from).collect()
    }

    #[test]
    fn names_are_looked_up_as_conda_does() {
        let condarc = "\
channel_alias: https://me:hush@repo.example/conda
custom_channels:
  team: https://team.example/t/tk-1
  local: file:///srv/channels
  below: channels
custom_multichannels:
  many: [conda-forge, 'https://many.example/one']
default_channels: ['https://defaults.example/pkgs/main', extra]
migrated_custom_channels:
  team: https://old.example/a
migrated_channel_aliases: ['https://anaconda.old.example/x']
";
        for (name, expected) in [
            ("conda-forge", vec!["https://repo.example/conda/conda-forge/"]),
            ("conda-forge/label/dev", vec!["https://repo.example/conda/conda-forge/label/dev/"]),
            ("team", vec!["https://team.example/team/"]),
            ("team/linux-64", vec!["https://team.example/team/"]),
            ("team/label/dev", vec!["https://team.example/team/label/dev/"]),
            ("teams", vec!["https://repo.example/conda/teams/"]),
            ("local", vec!["file:///srv/channels/local/"]),
            ("below", vec!["https://repo.example/conda/below/"]),
            ("many", vec!["https://repo.example/conda/conda-forge/", "https://many.example/one/"]),
            ("defaults", vec!["https://defaults.example/pkgs/main/", "https://repo.example/conda/extra/"]),
            ("pkgs/main", vec!["https://defaults.example/pkgs/main/"]),
            ("https://old.example/a/team/label/x", vec!["https://team.example/team/label/x/"]),
            ("https://old.example/a/teams", vec!["https://old.example/a/teams/"]),
            ("http://anaconda.old.example/x/conda-forge", vec!["https://repo.example/conda/conda-forge/"]),
            ("https://other.example/x", vec!["https://other.example/x/"]),
        ] {
            assert_eq!(shown(condarc, name), expected, "{name}");
        }
        let written = Condarc::of(condarc).expect("a condarc");
        let written: Vec<String> =
            Names::new(&written).written_urls().expect("URLs").into_iter().map(String::from).collect();
        for part in ["https://me:hush@repo.example/conda", "https://team.example/t/tk-1/team"] {
            assert!(written.iter().any(|url| url == part), "{part}: {written:?}");
        }
    }

    #[test]
    fn some_names_need_no_configuration() {
        for (name, expected) in [
            ("conda-forge", "https://conda.anaconda.org/conda-forge/"),
            ("pkgs/main", "https://repo.anaconda.com/pkgs/main/"),
            ("pkgs/pro", "https://repo.anaconda.com/pkgs/pro/"),
            ("main", "https://conda.anaconda.org/main/"),
        ] {
            assert_eq!(shown("", name), [expected]);
        }
        let defaults = "custom_multichannels: {defaults: ['https://own.example/a']}\ndefault_channels: [b]\n";
        assert_eq!(shown(defaults, "defaults"), ["https://own.example/a/"]);
    }

    #[test]
    fn what_is_no_place_is_told_with_the_setting() {
        let told = |condarc: &str, name: &str| {
            let condarc = Condarc::of(condarc).expect("a condarc");
            Names::new(&condarc).urls(name).expect_err("refused").chain().join(": ")
        };
        let error = told("channel_alias: hush", "a");
        assert!(error.contains("`channel_alias` (`test.yml`) is no URL") && !error.contains("hush"), "{error}");
        let error = told("custom_channels: {a: 'https://$CONDAIMG_TEST_UNSET@host'}", "a");
        assert!(error.contains("`custom_channels` (`test.yml`)") && error.contains("CONDAIMG_TEST_UNSET"), "{error}");
    }
}
