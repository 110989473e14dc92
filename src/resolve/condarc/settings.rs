//! The settings of conda that matter here: read from one source, and merged as conda merges its sources.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_yaml::Value as Yaml;

use crate::util::{Error, Result};

/// What a setting may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One value: a text, a number, or yes or no.
    Single,
    /// A list of texts.
    List,
    /// Texts by name, some of which may be nothing.
    Map,
    /// Lists of texts by name.
    Lists,
}

/// A setting, with the other names that conda knows it by.
struct Key {
    name: &'static str,
    others: &'static [&'static str],
    kind: Kind,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key { name, others: &[], kind }
}

/// What is read; everything else is conda's own business. `mirrored_channels` is mamba's.
const KEYS: [Key; 20] = [
    Key { name: "channels", others: &["channel"], kind: Kind::List },
    key("channel_alias", Kind::Single),
    key("custom_channels", Kind::Map),
    key("custom_multichannels", Kind::Lists),
    key("default_channels", Kind::List),
    key("migrated_channel_aliases", Kind::List),
    key("migrated_custom_channels", Kind::Map),
    key("mirrored_channels", Kind::Lists),
    key("channel_priority", Kind::Single),
    Key { name: "allowlist_channels", others: &["whitelist_channels"], kind: Kind::List },
    key("denylist_channels", Kind::List),
    Key { name: "ssl_verify", others: &["verify_ssl"], kind: Kind::Single },
    Key { name: "client_ssl_cert", others: &["client_cert"], kind: Kind::Single },
    Key { name: "client_ssl_cert_key", others: &["client_cert_key"], kind: Kind::Single },
    key("proxy_servers", Kind::Map),
    key("remote_connect_timeout_secs", Kind::Single),
    key("remote_read_timeout_secs", Kind::Single),
    key("remote_max_retries", Kind::Single),
    Key { name: "add_anaconda_token", others: &["add_binstar_token"], kind: Kind::Single },
    key("offline", Kind::Single),
];

/// Where a setting was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "`{}`", file.display()),
            Self::Variable(name) => write!(f, "`${name}`"),
        }
    }
}

/// A setting's value, as written. Never shown: it may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Value {
    Single(String),
    List(Vec<String>),
    Map(BTreeMap<String, Option<String>>),
    Lists(BTreeMap<String, Vec<String>>),
}

/// Settings by their first name, with the most important of their origins.
#[derive(Clone, Default)]
pub(super) struct Settings(pub(super) BTreeMap<&'static str, (Value, Origin)>);

impl Settings {
    /// Those of a file.
    ///
    /// # Errors
    /// When it is no map, or one of them is not of its kind.
    pub(super) fn of_file(file: &Path, text: &str, document: &Yaml) -> Result<Self> {
        let document = match document {
            Yaml::Null => return Ok(Self::default()),
            Yaml::Mapping(document) => document,
            _ => {
                return Err(Error::user(format!("`{}` is no configuration of conda's", file.display()))
                    .hint("it must be a map of settings, as `channel_alias: https://host`"));
            }
        };
        let mut settings = Self::default();
        for key in &KEYS {
            let mut names = std::iter::once(&key.name).chain(key.others);
            let Some((name, value)) = names.find_map(|name| Some((*name, document.get(*name)?))) else { continue };
            let refuse = |wanted: &str| {
                // Never what is there instead: it may be a password.
                let place = match line_of(text, name) {
                    Some(line) => format!("{}:{line}", file.display()),
                    None => file.display().to_string(),
                };
                Error::user(format!("{place}: `{name}` must be {wanted}"))
            };
            if let Some(value) = key.kind.read(value).map_err(refuse)? {
                settings.0.insert(key.name, (value, Origin::File(file.to_owned())));
            }
        }
        Ok(settings)
    }

    /// Those that conda reads from variables named `CONDA_<SETTING>`: single values, and lists with commas.
    /// `CONDA_CHANNELS` is none of them: it stands for `--channel`.
    pub(super) fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let mut settings = Self::default();
        for key in KEYS.iter().filter(|key| key.name != "channels") {
            let names =
                std::iter::once(&key.name).chain(key.others).map(|name| format!("CONDA_{}", name.to_uppercase()));
            let Some((name, text)) =
                names.filter_map(|name| Some((variable(&name)?, name))).map(|(a, b)| (b, a)).next()
            else {
                continue;
            };
            let value = match key.kind {
                Kind::Single => Value::Single(text.trim().to_owned()),
                Kind::List => Value::List(commas(&text)),
                Kind::Map | Kind::Lists => continue,
            };
            settings.0.insert(key.name, (value, Origin::Variable(name)));
        }
        settings
    }

    /// Adds those of a more important source: a single value replaces, a list is put before, a map adds its names.
    pub(super) fn merge(&mut self, more: Self) {
        for (name, (value, origin)) in more.0 {
            match self.0.get_mut(name) {
                Some((known, from)) => {
                    known.merge(value);
                    *from = origin;
                }
                None => {
                    self.0.insert(name, (value, origin));
                }
            }
        }
    }
}

impl Value {
    fn merge(&mut self, more: Self) {
        match (self, more) {
            (Self::List(known), Self::List(more)) => before(known, more),
            (Self::Map(known), Self::Map(more)) => known.extend(more),
            (Self::Lists(known), Self::Lists(more)) => {
                for (name, list) in more {
                    before(known.entry(name).or_default(), list);
                }
            }
            (known, more) => *known = more,
        }
    }
}

/// Puts a list before another, each item once.
fn before(known: &mut Vec<String>, mut more: Vec<String>) {
    let rest: Vec<String> = known.drain(..).filter(|item| !more.contains(item)).collect();
    more.extend(rest);
    *known = more;
}

impl Kind {
    /// A value of this kind; nothing for one that says nothing. The error is what it should have been.
    fn read(self, value: &Yaml) -> Result<Option<Value>, &'static str> {
        if value.is_null() {
            return Ok(None);
        }
        match self {
            Self::Single => single(value).map(Value::Single).ok_or("one value"),
            Self::List => list(value).map(Value::List).ok_or("a list of texts"),
            Self::Map => map(value, |value| if value.is_null() { Some(None) } else { single(value).map(Some) })
                .map(Value::Map)
                .ok_or("a map of texts"),
            Self::Lists => map(value, list).map(Value::Lists).ok_or("a map of lists"),
        }
        .map(Some)
    }
}

fn single(value: &Yaml) -> Option<String> {
    match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Bool(value) => Some(value.to_string()),
        Yaml::Number(value) => Some(value.to_string()),
        _ => None,
    }
}

fn list(value: &Yaml) -> Option<Vec<String>> {
    let mut items = Vec::new();
    before(&mut items, value.as_sequence()?.iter().map(single).collect::<Option<_>>()?);
    Some(items)
}

fn map<T>(value: &Yaml, read: impl Fn(&Yaml) -> Option<T>) -> Option<BTreeMap<String, T>> {
    value.as_mapping()?.iter().map(|(name, value)| Some((single(name)?, read(value)?))).collect()
}

fn commas(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

/// The line where a setting begins, from 1.
fn line_of(text: &str, name: &str) -> Option<usize> {
    let begins = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':'));
    text.lines().position(begins).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings> {
        let document = serde_yaml::from_str(text).expect("YAML");
        Settings::of_file(Path::new("a/.condarc"), text, &document)
    }

    fn value(settings: &Settings, name: &str) -> Value {
        settings.0.get(name).unwrap_or_else(|| panic!("no {name}")).0.clone()
    }

    #[test]
    fn sources_are_merged_as_conda_merges_them() {
        let mut all = read(
            "channels: [a, b]\nssl_verify: true\nproxy_servers: {http: one, https: two}\n\
             custom_multichannels: {many: [a]}\nauto_update_conda: {odd: [1]}\n",
        )
        .expect("reads");
        all.merge(read("channels: [c, b]\nverify_ssl: false\nproxy_servers: {https: ~}\n").expect("reads"));
        all.merge(read("custom_multichannels: {many: [b], more: [c]}\nchannels: ~\n").expect("reads"));
        let variables = |name: &str| match name {
            "CONDA_SSL_VERIFY" => Some(" ca.pem ".to_owned()),
            "CONDA_DENYLIST_CHANNELS" => Some("x, y".to_owned()),
            "CONDA_CHANNELS" | "CONDA_PROXY_SERVERS" => Some("other".to_owned()),
            _ => None,
        };
        all.merge(Settings::of_environment(variables));
        let texts = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        assert!(value(&all, "channels") == Value::List(texts(&["c", "b", "a"])));
        assert!(value(&all, "ssl_verify") == Value::Single("ca.pem".to_owned()));
        assert!(value(&all, "denylist_channels") == Value::List(texts(&["x", "y"])));
        assert!(
            value(&all, "proxy_servers")
                == Value::Map([("http".into(), Some("one".into())), ("https".into(), None)].into())
        );
        assert!(
            value(&all, "custom_multichannels")
                == Value::Lists([("many".into(), texts(&["b", "a"])), ("more".into(), texts(&["c"]))].into())
        );
        assert_eq!(all.0["ssl_verify"].1.to_string(), "`$CONDA_SSL_VERIFY`");
        assert_eq!(all.0["channels"].1.to_string(), "`a/.condarc`");
    }

    #[test]
    fn wrong_kinds_are_told_with_their_place_and_without_their_value() {
        for (text, expected) in [
            ("\nchannels: https://u:hush@host\n", "a/.condarc:2: `channels` must be a list of texts"),
            ("channel_alias: [hush]\n", "a/.condarc:1: `channel_alias` must be one value"),
            ("proxy_servers: hush\n", "`proxy_servers` must be a map of texts"),
            ("custom_channels: [hush]\n", "`custom_channels` must be a map of texts"),
            ("mirrored_channels: {a: hush}\n", "`mirrored_channels` must be a map of lists"),
            ("verify_ssl: {a: hush}\n", "`verify_ssl` must be one value"),
            ("hush\n", "`a/.condarc` is no configuration of conda's"),
        ] {
            let error = read(text).err().unwrap_or_else(|| panic!("{text} is read")).to_string();
            assert!(error.contains(expected) && !error.contains("hush"), "{error}");
        }
        assert!(read("").expect("is empty").0.is_empty());
    }
}
