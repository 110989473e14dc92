//! From what users call a channel to where it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rattler_conda_types::{Channel, ChannelConfig, MatchSpec, Subdir};
use rattler_repodata_gateway::{MultiSource, Source};
use url::Url;

use super::client::Credentials;
use super::condarc::{Condarc, Origin, Said};
use super::expand::expand;
use super::names::{Meaning, Names};
use crate::spec::Spec;
use crate::util::{Error, Result, ResultExt as _, redact};

/// The channels of an environment in the order of their priority, and what goes with requests to them.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    groups: Vec<Group>,
    /// What was written into their URLs, and how their servers are reached; for [`super::http_client`].
    pub credentials: Credentials,
    /// What channels are called, as written but without credentials, and the canonical URLs of those that mean
    /// something else here than on a machine without configuration.
    meanings: BTreeMap<String, Vec<String>>,
}

/// A channel, or several under one name that share a priority (`defaults`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    /// Whether the name stands for the members, however few they are.
    is_multi: bool,
    members: Vec<Channel>,
}

/// Where names and relative paths are looked up.
struct Lookup<'a> {
    names: Names<'a>,
    folder: &'a Path,
}

impl Channels {
    /// The channels of `spec` with `extra` before them (`--channel`, relative to the working folder), or those of
    /// conda's configuration when there are none; and after them those that dependencies name (`channel::package`).
    ///
    /// # Errors
    /// When something is no channel, is not allowed, or names an environment variable that is not set; when conda's
    /// configuration names a file that cannot be used.
    pub fn new(spec: &Spec, extra: &[String], override_spec: bool, condarc: &Condarc, folder: &Path) -> Result<Self> {
        let mut channels = Self::default();
        let names = Names::new(condarc);
        let here = Lookup { names, folder: Path::new(".") };
        for text in extra {
            channels.add(text, &here)?;
        }
        let lookup = Lookup { names, folder };
        let file = || format!("`{}` cannot be used", spec.file.display());
        if !override_spec {
            for text in spec.channels.iter().filter(|text| text.as_str() != "nodefaults") {
                channels.add(text, &lookup).context(file)?;
            }
        }
        if let Some((texts, origin)) = channels_of_condarc(spec, extra, override_spec, condarc) {
            for text in &texts {
                channels.add(text, &here).context(|| format!("`channels` ({origin}) cannot be used"))?;
            }
        }
        for (index, dependency) in spec.dependencies.iter().enumerate() {
            if let Some(text) = named_channel(&dependency.written) {
                channels.add(text, &lookup).context(|| format!("{}: `{}`", spec.place_of(index), dependency.text))?;
            }
        }
        channels.configure(condarc)
    }

    /// These channels (relative to the working folder), without an environment.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn named(texts: &[String], condarc: &Condarc) -> Result<Self> {
        let mut channels = Self::default();
        for text in texts {
            channels.add(text, &Lookup { names: Names::new(condarc), folder: Path::new(".") })?;
        }
        channels.configure(condarc)
    }

    /// Adds what conda's configuration says of all channels.
    fn configure(mut self, condarc: &Condarc) -> Result<Self> {
        let names = Names::new(condarc);
        refuse_forbidden(&names, condarc, self.urls())?;
        self.credentials.configure(condarc, &names)?;
        Ok(self)
    }

    /// What channels mean here, by what they are called, where that is something else than on a machine without
    /// configuration: what a lock must know beside what was written.
    pub fn meanings(&self) -> &BTreeMap<String, Vec<String>> {
        &self.meanings
    }

    /// The canonical URLs, without credentials, most important first.
    pub fn urls(&self) -> Vec<Url> {
        self.members().map(|channel| Url::clone(channel.base_url.url())).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Channel> {
        self.groups.iter().flat_map(|group| &group.members)
    }

    /// As the gateway wants them.
    pub(super) fn sources(&self, source: impl Fn(&Channel) -> Source) -> Result<Vec<Source>> {
        self.groups.iter().map(|group| group.source(&source)).collect()
    }

    /// The dependencies of `spec` with the channels they name put where these channels are. (rattler resolves
    /// such names against the working folder and its own alias.)
    pub(super) fn specs(&self, spec: &Spec, condarc: &Condarc, folder: &Path) -> Result<Vec<MatchSpec>> {
        let lookup = Lookup { names: Names::new(condarc), folder };
        spec.dependencies
            .iter()
            .map(|dependency| {
                let mut wanted = dependency.spec.clone();
                if let Some(text) = named_channel(&dependency.written) {
                    let group = lookup.resolve(text, &mut Credentials::default())?;
                    wanted.channel = Some(Arc::new(group.as_requested()));
                }
                Ok(wanted)
            })
            .collect()
    }

    /// The channels that a dependency may come from: all, or those that it names.
    pub(super) fn allowed<'a>(&'a self, wanted: &'a MatchSpec) -> impl Iterator<Item = &'a Channel> {
        self.groups
            .iter()
            .filter(|group| wanted.channel.as_ref().is_none_or(|channel| group.answers_to(channel)))
            .flat_map(|group| &group.members)
    }

    fn add(&mut self, text: &str, lookup: &Lookup<'_>) -> Result<()> {
        let mut group = lookup.resolve(text, &mut self.credentials)?;
        self.remember_meaning(text, &group, lookup)?;
        // The first mention decides the priority.
        group.members.retain(|member| !self.members().any(|known| known.base_url == member.base_url));
        if !group.members.is_empty() {
            self.groups.push(group);
        }
        Ok(())
    }
}

impl Channels {
    /// Keeps what a text means, where it depends on this machine's configuration or environment.
    fn remember_meaning(&mut self, text: &str, group: &Group, lookup: &Lookup<'_>) -> Result<()> {
        let shown = |group: &Group| -> Vec<String> {
            group.members.iter().map(|member| member.base_url.as_str().trim_end_matches('/').to_owned()).collect()
        };
        let here = shown(group);
        let name = redact::text(text);
        let plain = Lookup { names: Names::plain(), ..*lookup };
        // Nothing that only this configuration makes a channel of has a meaning elsewhere.
        let elsewhere = plain.resolve(text, &mut Credentials::default()).map(|group| shown(&group)).unwrap_or_default();
        let by_variable = text.contains('$') && here != [name.trim_end_matches('/')];
        if by_variable || here != elsewhere {
            self.meanings.insert(name, here);
        }
        Ok(())
    }
}

impl Group {
    fn source(&self, source: impl Fn(&Channel) -> Source) -> Result<Source> {
        match self.members.as_slice() {
            [channel] if !self.is_multi => Ok(source(channel)),
            members => MultiSource::new(self.name.as_str(), members.iter().map(source).collect())
                .map(Source::from)
                .map_err(|error| Error::bug("a group of channels cannot be formed").caused_by(error)),
        }
    }

    /// The channel that a `MatchSpec` carries to ask for this group: the solver compares a group's name, and a
    /// single channel's URL.
    fn as_requested(&self) -> Channel {
        let mut channel = self.members[0].clone();
        if self.is_multi {
            channel.name = Some(self.name.clone());
        }
        channel
    }

    fn answers_to(&self, channel: &Channel) -> bool {
        channel.name.as_deref() == Some(self.name.as_str())
            || self.members.iter().any(|member| member.base_url == channel.base_url)
    }
}

impl Lookup<'_> {
    fn resolve(&self, text: &str, credentials: &mut Credentials) -> Result<Group> {
        let expanded = expand(text)?;
        let name = expanded.trim().trim_end_matches('/');
        if name.is_empty() {
            return Err(Error::user("a channel has no name"));
        }
        let members = match self.names.meaning(name)? {
            Meaning::Itself => vec![self.channel(name, credentials)?],
            Meaning::At(url) => vec![self.channel(&url, credentials)?],
            Meaning::Several(urls) => {
                let name = without_subdir(name).to_owned();
                if urls.is_empty() {
                    return Err(Error::user(format!("`{name}` stands for no channel: its list is empty")));
                }
                let members = urls.iter().map(|url| self.channel(url, credentials)).collect::<Result<_>>()?;
                return Ok(Group { name, is_multi: true, members });
            }
        };
        let name = members.first().map(|channel| redact::url(channel.base_url.url())).unwrap_or_default();
        Ok(Group { name, is_multi: false, members })
    }

    fn channel(&self, text: &str, credentials: &mut Credentials) -> Result<Channel> {
        let text = without_subdir(text);
        let refuse = |reason: String| {
            Error::user(format!("`{}` is no channel: {reason}", shown(text)))
                .hint("name it (`conda-forge`), or give its URL or folder (`https://host/channel`, `./channel`)")
        };
        let root_dir = std::path::absolute(self.folder).map_err(|error| refuse(error.to_string()))?;
        let config = ChannelConfig { channel_alias: self.names.alias()?, root_dir };
        let channel = Channel::from_str(text, &config).map_err(|error| refuse(super::client::chain(&error)))?;
        let url = channel.base_url.url();
        if !matches!(url.scheme(), "file" | "http" | "https") {
            return Err(refuse(format!("{}:// is not supported", url.scheme())));
        }
        if channel.platforms.is_some() {
            return Err(refuse("a choice of platforms (`[...]`) is not supported".to_owned()));
        }
        Ok(Channel { base_url: credentials.remember(url).into(), ..channel })
    }
}

/// A channel for a message. Of what looks like a URL and is none, only the beginning: where its secrets are is
/// not to be told.
fn shown(text: &str) -> String {
    match (Url::parse(text), text.split_once("://")) {
        (Ok(url), _) if url.has_host() => redact::url(&url),
        (_, Some((scheme, _))) => format!("{scheme}://..."),
        _ => text.to_owned(),
    }
}

/// The channels of conda's configuration, as written, and where they were found; nothing when the environment or a flag
/// says which channels to search (`nodefaults` says it, too), or every package is pinned.
pub fn channels_of_condarc<'a>(
    spec: &Spec,
    extra: &[String],
    override_spec: bool,
    condarc: &'a Condarc,
) -> Option<(Vec<String>, &'a Origin)> {
    let said = condarc.channels.as_ref()?;
    let named = !extra.is_empty() || override_spec || !spec.channels.is_empty() || spec.pins.is_some();
    let channels: Vec<String> = said.value.iter().filter(|text| text.as_str() != "nodefaults").cloned().collect();
    (!named && !channels.is_empty()).then_some((channels, &said.origin))
}

/// conda's `allowlist_channels` and `denylist_channels`.
fn refuse_forbidden(names: &Names<'_>, condarc: &Condarc, channels: Vec<Url>) -> Result<()> {
    let urls = |said: &Option<Said<Vec<String>>>| -> Result<Vec<Url>> {
        let texts = said.iter().flat_map(|said| &said.value);
        Ok(texts.map(|text| names.urls(text)).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    };
    let (allowed, denied) = (urls(&condarc.allowed)?, urls(&condarc.denied)?);
    for channel in channels {
        let shown = redact::url(&channel);
        if let Some(said) = condarc.denied.as_ref().filter(|_| denied.contains(&channel)) {
            return Err(Error::user(format!(
                "the channel `{shown}` is denied by `denylist_channels` ({})",
                said.origin
            )));
        }
        if let Some(said) = condarc.allowed.as_ref().filter(|_| !allowed.is_empty() && !allowed.contains(&channel)) {
            return Err(Error::user(format!("the channel `{shown}` is not in `allowlist_channels` ({})", said.origin)));
        }
    }
    Ok(())
}

/// `https://host/channel/linux-64` means the channel.
pub(super) fn without_subdir(text: &str) -> &str {
    match text.rsplit_once('/') {
        Some((channel, subdir)) if subdir.parse::<Subdir>().is_ok() && !channel.is_empty() => channel,
        _ => text,
    }
}

/// The channel that a dependency names: `channel::package`, `package[channel=...]`.
pub(super) fn named_channel(dependency: &str) -> Option<&str> {
    let before_brackets = dependency.split('[').next().unwrap_or_default();
    if let Some((channel, _)) = before_brackets.rsplit_once("::") {
        let channel = channel.trim();
        return (!channel.is_empty()).then_some(channel);
    }
    let (_, after) = dependency.split_once('[')?;
    let (_, value) = after.split(',').find_map(|field| {
        let (key, value) = field.split_once('=')?;
        (key.trim() == "channel").then_some((key, value))
    })?;
    Some(value.trim_matches([' ', '\'', '"', ']']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(text: &str) -> Vec<String> {
        let lookup = Lookup { names: Names::plain(), folder: Path::new("/project") };
        let mut channels = Channels::default();
        channels.add(text, &lookup).expect("a channel");
        channels.urls().into_iter().map(String::from).collect()
    }

    #[test]
    fn names_paths_and_urls_are_found() {
        for (text, expected) in [
            ("conda-forge", "https://conda.anaconda.org/conda-forge/"),
            ("conda-forge/label/dev", "https://conda.anaconda.org/conda-forge/label/dev/"),
            ("conda-forge/linux-64", "https://conda.anaconda.org/conda-forge/"),
            ("https://host/a/noarch", "https://host/a/"),
            ("https://me:secret@host/a", "https://host/a/"),
            ("https://host/t/token/a", "https://host/a/"),
            ("./channel", "file:///project/channel/"),
            ("../channel/", "file:///channel/"),
            ("/srv/channel", "file:///srv/channel/"),
            ("file:///srv/channel", "file:///srv/channel/"),
        ] {
            assert_eq!(urls(text), [expected], "{text}");
        }
        assert_eq!(urls("defaults"), ["https://repo.anaconda.com/pkgs/main/", "https://repo.anaconda.com/pkgs/r/"]);
    }

    #[test]
    fn what_is_no_channel_is_refused_without_its_secret() {
        let lookup = Lookup { names: Names::plain(), folder: Path::new("/") };
        for text in ["", "s3://bucket/a", "a:b", "https://me:secret@/x", "$CONDAIMG_TEST_UNSET/x"] {
            let error = Channels::default().add(text, &lookup).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn dependencies_name_channels() {
        for (text, expected) in [
            ("numpy", None),
            ("conda-forge::numpy=1", Some("conda-forge")),
            ("https://host/a/linux-64::numpy", Some("https://host/a/linux-64")),
            ("conda-forge/linux-64::numpy[version='>=1']", Some("conda-forge/linux-64")),
            ("numpy[version='>=1',channel=conda-forge]", Some("conda-forge")),
            ("numpy[channel=\"https://host/a\", version=1]", Some("https://host/a")),
            ("::numpy", None),
        ] {
            assert_eq!(named_channel(text), expected, "{text}");
        }
    }
}
