//! From what users call a channel to where it is.

use std::path::Path;
use std::sync::Arc;

use rattler_conda_types::{Channel, ChannelConfig, MatchSpec, Subdir};
use rattler_repodata_gateway::{MultiSource, Source};
use url::Url;

use super::client::Credentials;
use crate::spec::Spec;
use crate::util::{Error, Result, ResultExt as _, redact};

/// What the name `defaults` stands for, as in conda on Linux.
const DEFAULTS: [&str; 2] = ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"];

/// The default of [`super::ResolveOptions::channel_alias`].
pub const CHANNEL_ALIAS: &str = "https://conda.anaconda.org";

/// The channels of an environment in the order of their priority, and the credentials that go with them.
#[derive(Debug, Clone, Default)]
pub struct Channels {
    groups: Vec<Group>,
    /// What was written into their URLs; for [`super::http_client`].
    pub credentials: Credentials,
}

/// A channel, or several under one name that share a priority (`defaults`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    members: Vec<Channel>,
}

/// Where names and relative paths are looked up.
struct Lookup<'a> {
    alias: &'a Url,
    folder: &'a Path,
}

impl Channels {
    /// The channels of `spec` with `extra` before them (`--channel`, relative to the working folder), and after
    /// them those that dependencies name (`channel::package`).
    ///
    /// # Errors
    /// When something is no channel, or names an environment variable that is not set.
    pub fn new(spec: &Spec, extra: &[String], override_spec: bool, alias: &Url, folder: &Path) -> Result<Self> {
        let mut channels = Self::default();
        let here = Lookup { alias, folder: Path::new(".") };
        for text in extra {
            channels.add(text, &here)?;
        }
        let lookup = Lookup { alias, folder };
        if !override_spec {
            for text in spec.channels.iter().filter(|text| text.as_str() != "nodefaults") {
                channels.add(text, &lookup).context(|| format!("`{}` cannot be used", spec.file.display()))?;
            }
        }
        for (index, dependency) in spec.dependencies.iter().enumerate() {
            if let Some(text) = named_channel(&dependency.written) {
                channels.add(text, &lookup).context(|| format!("{}: `{}`", spec.place_of(index), dependency.text))?;
            }
        }
        Ok(channels)
    }

    /// These channels (relative to the working folder), without an environment.
    ///
    /// # Errors
    /// When something is no channel.
    pub fn named(texts: &[String], alias: &Url) -> Result<Self> {
        let mut channels = Self::default();
        for text in texts {
            channels.add(text, &Lookup { alias, folder: Path::new(".") })?;
        }
        Ok(channels)
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
    pub(super) fn sources(&self) -> Result<Vec<Source>> {
        self.groups.iter().map(Group::source).collect()
    }

    /// The dependencies of `spec` with the channels they name put where these channels are. (rattler resolves
    /// such names against the working folder and its own alias.)
    pub(super) fn specs(&self, spec: &Spec, alias: &Url, folder: &Path) -> Result<Vec<MatchSpec>> {
        let lookup = Lookup { alias, folder };
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
        // The first mention decides the priority.
        group.members.retain(|member| !self.members().any(|known| known.base_url == member.base_url));
        if !group.members.is_empty() {
            self.groups.push(group);
        }
        Ok(())
    }
}

impl Group {
    fn source(&self) -> Result<Source> {
        match self.members.as_slice() {
            [channel] if self.name != "defaults" => Ok(channel.clone().into()),
            members => MultiSource::new(self.name.as_str(), members.iter().cloned().map(Source::from).collect())
                .map(Source::from)
                .map_err(|error| Error::bug("a group of channels cannot be formed").caused_by(error)),
        }
    }

    /// The channel that a `MatchSpec` carries to ask for this group: the solver compares a group's name, and a
    /// single channel's URL.
    fn as_requested(&self) -> Channel {
        let mut channel = self.members[0].clone();
        if self.name == "defaults" {
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
        if name == "defaults" {
            let members = DEFAULTS.iter().map(|url| self.channel(url, credentials)).collect::<Result<_>>()?;
            return Ok(Group { name: name.to_owned(), members });
        }
        let channel = self.channel(name, credentials)?;
        Ok(Group { name: redact::url(channel.base_url.url()), members: vec![channel] })
    }

    fn channel(&self, text: &str, credentials: &mut Credentials) -> Result<Channel> {
        let text = without_subdir(text);
        let refuse = |reason: String| {
            Error::user(format!("`{}` is no channel: {reason}", shown(text)))
                .hint("name it (`conda-forge`), or give its URL or folder (`https://host/channel`, `./channel`)")
        };
        let root_dir = std::path::absolute(self.folder).map_err(|error| refuse(error.to_string()))?;
        let config = ChannelConfig { channel_alias: self.alias.clone(), root_dir };
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

/// `https://host/channel/linux-64` means the channel.
fn without_subdir(text: &str) -> &str {
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

/// `$NAME` and `${NAME}` from the environment, as conda expands them in channels: the usual way to keep a
/// password out of the file.
fn expand(text: &str) -> Result<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() {
            expanded.push('$');
        } else {
            expanded.push_str(&std::env::var(name).map_err(|_| {
                Error::user(format!("a channel needs the environment variable `{name}`, which is not set"))
            })?);
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias() -> Url {
        CHANNEL_ALIAS.parse().expect("a URL")
    }

    fn urls(text: &str) -> Vec<String> {
        let alias = alias();
        let lookup = Lookup { alias: &alias, folder: Path::new("/project") };
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
        let alias = alias();
        let lookup = Lookup { alias: &alias, folder: Path::new("/") };
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
