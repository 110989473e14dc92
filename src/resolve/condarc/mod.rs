//! conda's configuration (`.condarc`): which channels there are under which names, and how they are reached. Found and
//! merged as conda does it (`conda/base/context.py`, `conda/common/configuration.py`); values are kept as written, and
//! environment variables in them are looked up when they are needed.

mod files;
mod settings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rattler_solve::ChannelPriority;
use url::Url;

use super::mirrors;
use crate::spec::yaml;
use crate::util::{Error, Result};
pub use settings::Origin;
use settings::{Settings, Value};

/// A setting and where it was found.
#[derive(Clone)]
pub(super) struct Said<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

/// How the certificates of servers are checked (`ssl_verify`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Verify {
    /// Against the authorities that this machine trusts.
    #[default]
    Machine,
    /// Against those in this file, or in the files of this folder, as written.
    Authorities(String),
    /// Not at all.
    Nothing,
}

/// What conda's configuration says. Never shown: it may hold passwords.
#[derive(Clone, Default)]
pub struct Condarc {
    /// The files that were read, least important first.
    pub files: Vec<PathBuf>,
    /// What the user is to be warned of.
    pub warnings: Vec<String>,
    /// What the user may want to know.
    pub notices: Vec<String>,
    pub(super) channels: Option<Said<Vec<String>>>,
    pub(super) alias: Option<Said<String>>,
    pub(super) custom: Option<Said<BTreeMap<String, Option<String>>>>,
    pub(super) multi: Option<Said<BTreeMap<String, Vec<String>>>>,
    pub(super) defaults: Option<Said<Vec<String>>>,
    pub(super) migrated_aliases: Option<Said<Vec<String>>>,
    pub(super) migrated_channels: Option<Said<BTreeMap<String, Option<String>>>>,
    pub(super) mirrored: Option<Said<BTreeMap<String, Vec<String>>>>,
    /// What the configuration of rattler and pixi says of mirrors.
    pub(super) rattler_mirrors: Vec<(Url, Vec<Url>)>,
    pub(super) allowed: Option<Said<Vec<String>>>,
    pub(super) denied: Option<Said<Vec<String>>>,
    pub(super) verify: Option<Said<Verify>>,
    pub(super) certificate: Option<Said<String>>,
    pub(super) key: Option<Said<String>>,
    pub(super) proxies: Option<Said<BTreeMap<String, Option<String>>>>,
    pub(super) connect_timeout: Option<Said<Duration>>,
    pub(super) read_timeout: Option<Said<Duration>>,
    pub(super) retries: Option<Said<u32>>,
    pub(super) anaconda_token: Option<Said<bool>>,
    pub(super) offline: Option<Said<bool>>,
    pub(super) priority: Option<Said<ChannelPriority>>,
}

impl Condarc {
    /// Reads what conda would read for this user.
    ///
    /// # Errors
    /// When a file cannot be read, is no YAML, or has a setting of a wrong kind.
    pub fn read() -> Result<Self> {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let (files, missing) = files::find(&path)?;
        let mut settings = Settings::default();
        let mut marked = Vec::new();
        for file in &files {
            let text = yaml::text(file)?;
            settings.merge(Settings::of_file(file, &text, &yaml::document(file, &text)?)?);
            marked.extend(has_marks(&text).then(|| file.clone()));
        }
        settings.merge(Settings::of_environment(|name| std::env::var(name).ok().filter(|value| !value.is_empty())));
        let mut condarc = Self::new(settings)?;
        condarc.files = files;
        if condarc.verify.is_none() {
            condarc.take_bundle();
        }
        condarc.rattler_mirrors = mirrors::of_rattler()?;
        condarc
            .warnings
            .extend(missing.map(|path| format!("`$CONDARC` names `{}`, which is not there", path.display())));
        condarc.warnings.extend(marked.iter().map(|file| {
            format!("`{}`: marks like `#!final` are not understood; its settings count as any others", file.display())
        }));
        condarc.tell();
        Ok(condarc)
    }

    fn new(settings: Settings) -> Result<Self> {
        let mut settings = settings;
        let settings = &mut settings;
        let mut condarc = Self {
            channels: list(settings, "channels"),
            alias: single(settings, "channel_alias"),
            custom: map(settings, "custom_channels"),
            multi: lists(settings, "custom_multichannels"),
            defaults: list(settings, "default_channels"),
            migrated_aliases: list(settings, "migrated_channel_aliases"),
            migrated_channels: map(settings, "migrated_custom_channels"),
            mirrored: lists(settings, "mirrored_channels"),
            allowed: list(settings, "allowlist_channels"),
            denied: list(settings, "denylist_channels"),
            verify: parsed(settings, "ssl_verify", verify)?,
            certificate: single(settings, "client_ssl_cert"),
            key: single(settings, "client_ssl_cert_key"),
            proxies: map(settings, "proxy_servers"),
            connect_timeout: parsed(settings, "remote_connect_timeout_secs", seconds)?,
            read_timeout: parsed(settings, "remote_read_timeout_secs", seconds)?,
            retries: parsed(settings, "remote_max_retries", |text| text.parse().map_err(|_| "a number".to_owned()))?,
            anaconda_token: parsed(settings, "add_anaconda_token", yes)?,
            offline: parsed(settings, "offline", yes)?,
            priority: parsed(settings, "channel_priority", priority)?,
            ..Self::default()
        };
        if let Some(Said { value: Verify::Nothing, origin }) = &condarc.verify {
            condarc.warnings.push(format!(
                "`ssl_verify: false` ({origin}): nobody checks who answers for a channel; name your authority instead: `ssl_verify: FILE`"
            ));
        }
        let mirrors = condarc.mirrored.iter().flat_map(|said| said.value.values().flatten());
        if let Some((scheme, _)) =
            mirrors.filter(|url| !mirrors::is_supported(url)).find_map(|url| url.split_once("://"))
        {
            condarc
                .warnings
                .push(format!("`mirrored_channels`: mirrors by `{scheme}://` are not supported and are left out"));
        }
        if let Some(Said { value: true, origin }) = &condarc.offline {
            condarc.notices.push(format!("`offline: true` ({origin}): the servers of channels are not asked"));
        }
        Ok(condarc)
    }

    /// The authorities that conda's HTTP library takes when `ssl_verify` is not set (`requests`, `trust_env`).
    fn take_bundle(&mut self) {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let bundle = ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"].iter().find_map(|name| Some((*name, set(name)?)));
        match bundle {
            Some((name, file)) if Path::new(&file).exists() => {
                let origin = Origin::Variable(name.to_owned());
                self.verify = Some(Said { value: Verify::Authorities(file), origin });
            }
            Some((name, file)) => self.warnings.push(format!("`${name}` names `{file}`, which is not there")),
            None => {}
        }
    }

    /// Whether channels' servers must not be asked.
    pub fn offline(&self) -> bool {
        self.offline.as_ref().is_some_and(|said| said.value)
    }

    /// What an earlier channel does to later ones, if anything is said of it.
    pub fn channel_priority(&self) -> Option<ChannelPriority> {
        self.priority.as_ref().map(|said| said.value)
    }

    /// The channels to search where neither an environment nor a flag names any, as written.
    pub fn channels(&self) -> &[String] {
        self.channels.as_ref().map_or(&[], |said| &said.value)
    }

    /// Which settings were found, and where: never their values.
    pub fn told(&self) -> Vec<(&'static str, String)> {
        fn of<T>(name: &'static str, said: &Option<Said<T>>) -> Option<(&'static str, String)> {
            said.as_ref().map(|said| (name, said.origin.to_string()))
        }
        [
            of("channels", &self.channels),
            of("channel_alias", &self.alias),
            of("custom_channels", &self.custom),
            of("custom_multichannels", &self.multi),
            of("default_channels", &self.defaults),
            of("migrated_channel_aliases", &self.migrated_aliases),
            of("migrated_custom_channels", &self.migrated_channels),
            of("mirrored_channels", &self.mirrored),
            of("channel_priority", &self.priority),
            of("allowlist_channels", &self.allowed),
            of("denylist_channels", &self.denied),
            of("ssl_verify", &self.verify),
            of("client_ssl_cert", &self.certificate),
            of("client_ssl_cert_key", &self.key),
            of("proxy_servers", &self.proxies),
            of("remote_connect_timeout_secs", &self.connect_timeout),
            of("remote_read_timeout_secs", &self.read_timeout),
            of("remote_max_retries", &self.retries),
            of("add_anaconda_token", &self.anaconda_token),
            of("offline", &self.offline),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// For `--verbose`.
    fn tell(&self) {
        for file in &self.files {
            tracing::debug!(file = %file.display(), "read conda's configuration");
        }
        for (setting, origin) in self.told() {
            tracing::debug!(setting, origin, "conda's configuration decides");
        }
    }
}

impl<T> Said<T> {
    /// An error of this setting.
    pub(super) fn refuse(&self, name: &str, why: &str) -> Error {
        Error::user(format!("`{name}` ({}) {why}", self.origin))
    }
}

fn single(settings: &mut Settings, name: &str) -> Option<Said<String>> {
    match settings.0.remove(name)? {
        (Value::Single(value), origin) => Some(Said { value, origin }),
        _ => None,
    }
}

fn list(settings: &mut Settings, name: &str) -> Option<Said<Vec<String>>> {
    match settings.0.remove(name)? {
        (Value::List(value), origin) => Some(Said { value, origin }),
        _ => None,
    }
}

fn map(settings: &mut Settings, name: &str) -> Option<Said<BTreeMap<String, Option<String>>>> {
    match settings.0.remove(name)? {
        (Value::Map(value), origin) => Some(Said { value, origin }),
        _ => None,
    }
}

fn lists(settings: &mut Settings, name: &str) -> Option<Said<BTreeMap<String, Vec<String>>>> {
    match settings.0.remove(name)? {
        (Value::Lists(value), origin) => Some(Said { value, origin }),
        _ => None,
    }
}

/// A single value, read further; the reader's error says what it must be.
fn parsed<T>(settings: &mut Settings, name: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<Said<T>>> {
    let Some(said) = single(settings, name) else { return Ok(None) };
    match read(&said.value) {
        Ok(value) => Ok(Some(Said { value, origin: said.origin })),
        Err(wanted) => Err(said.refuse(name, &format!("must be {wanted}"))),
    }
}

/// conda's words for yes and no (`conda/auxlib/type_coercion.py`).
fn yes(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "y" | "1" => Ok(true),
        "false" | "no" | "off" | "n" | "non" | "none" | "0" => Ok(false),
        _ => Err("`true` or `false`".to_owned()),
    }
}

fn verify(text: &str) -> Result<Verify, String> {
    match (text, yes(text)) {
        (_, Ok(true)) | ("truststore", _) => Ok(Verify::Machine),
        (_, Ok(false)) => Ok(Verify::Nothing),
        ("", _) => Err("`true`, `false`, `truststore`, or a file or folder of certificates".to_owned()),
        _ => Ok(Verify::Authorities(text.to_owned())),
    }
}

fn priority(text: &str) -> Result<ChannelPriority, String> {
    match (text.to_lowercase().as_str(), yes(text)) {
        ("strict", _) => Ok(ChannelPriority::Strict),
        ("flexible", _) | (_, Ok(true)) => Ok(ChannelPriority::Flexible),
        ("disabled", _) | (_, Ok(false)) => Ok(ChannelPriority::Disabled),
        _ => Err("`strict`, `flexible` or `disabled`".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = || "a number of seconds".to_owned();
    let seconds = f64::from_str(text).map_err(|_| wanted())?;
    Duration::try_from_secs_f64(seconds).ok().filter(|time| !time.is_zero()).ok_or_else(wanted)
}

/// Whether a file has conda's marks in comments, which decide between files. No reader of YAML tells comments.
fn has_marks(text: &str) -> bool {
    let marks = ["final", "top", "bottom"];
    let comment = |line: &str| line.rsplit_once('#').map(|(_, comment)| comment.trim().to_owned());
    text.lines().filter_map(comment).any(|it| it.strip_prefix('!').is_some_and(|mark| marks.contains(&mark)))
}

/// Whether a path names a file or folder, with `~` for the home.
pub(super) fn path(text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => Path::new(text).to_owned(),
    }
}

#[cfg(test)]
impl Condarc {
    /// What this text says, as if it stood in `test.yml`.
    pub(super) fn of(text: &str) -> Result<Self> {
        let file = Path::new("test.yml");
        Self::new(Settings::of_file(file, text, &yaml::document(file, text)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_values_are_read_as_conda_reads_them() {
        let verify = |text: &str| Condarc::of(&format!("ssl_verify: {text}")).expect(text).verify.expect(text).value;
        assert_eq!(["true", "yes", "truststore"].map(verify), [const { Verify::Machine }; 3]);
        assert_eq!(["false", "'no'", "0"].map(verify), [const { Verify::Nothing }; 3]);
        assert_eq!(verify("certs/ca.pem"), Verify::Authorities("certs/ca.pem".into()));
        let priority = |text: &str| {
            let condarc = Condarc::of(&format!("channel_priority: {text}")).expect(text);
            condarc.channel_priority().expect(text)
        };
        assert_eq!(priority("strict"), ChannelPriority::Strict);
        assert_eq!(["flexible", "true"].map(priority), [ChannelPriority::Flexible; 2]);
        assert_eq!(["disabled", "false"].map(priority), [ChannelPriority::Disabled; 2]);
        let condarc =
            Condarc::of("remote_read_timeout_secs: 1.5\nremote_max_retries: 7\noffline: on\n").expect("reads");
        assert_eq!(condarc.read_timeout.as_ref().expect("is said").value, Duration::from_millis(1500));
        assert_eq!((condarc.retries.as_ref().expect("is said").value, condarc.offline()), (7, true));
        let told = condarc.told();
        assert_eq!(told.len(), 3);
        assert_eq!(told[0], ("remote_read_timeout_secs", "`test.yml`".to_owned()));
    }

    #[test]
    fn wrong_values_are_told_without_them() {
        for (text, expected) in [
            ("channel_priority: hush", "`channel_priority` (`test.yml`) must be `strict`, `flexible` or `disabled`"),
            ("offline: hush", "`offline` (`test.yml`) must be `true` or `false`"),
            ("remote_connect_timeout_secs: 0", "must be a number of seconds"),
            ("remote_read_timeout_secs: nan", "must be a number of seconds"),
            ("remote_max_retries: -1", "must be a number"),
        ] {
            let error = Condarc::of(text).err().unwrap_or_else(|| panic!("{text} is read")).to_string();
            assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn marks_are_seen() {
        for text in ["a: 1  #!final", "- a # !top", "x: #  !bottom "] {
            assert!(has_marks(text), "{text}");
        }
        assert!(!has_marks("a: 1 # final\nb: '#!other'"));
    }
}
