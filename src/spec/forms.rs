//! What a document may hold, said as data: one reader checks every value where it stands, and the JSON schema is made
//! of the same.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::{Map, Value};

use super::seeds::{Key, List, Optional, next_key};
use super::yaml::Context;
use crate::util::{Error, Result, near, text};

/// What a value may be.
pub(super) enum Form {
    /// One scalar.
    Text(Text),
    /// `on` or `off`.
    Switch,
    /// A whole number.
    Number(RangeInclusive<usize>),
    /// A list of words, or one text that is split as a shell does.
    Command,
    /// Any number of values of one form.
    List(&'static Form),
    /// Names that the user chooses, each with a scalar.
    Pairs(Pairs),
    /// Keys that condaimg knows.
    Table(&'static Table),
    /// `dependencies:`, which the reader of environments reads.
    Packages,
}

/// A scalar, taken as the text that the file has: `1.10` stays `1.10`, `yes` stays `yes`.
pub(super) struct Text {
    /// What it is, with an article.
    pub(super) what: &'static str,
    /// The only values; none: any that `check` lets through.
    pub(super) one_of: &'static [&'static str],
    /// What is wrong with a text that is not empty.
    pub(super) check: fn(&str) -> Result<()>,
    /// Whether there may be nothing.
    pub(super) may_be_empty: bool,
}

impl Text {
    /// Any text but an empty one.
    pub(super) const fn any(what: &'static str) -> Self {
        Self::checked(what, |_| Ok(()))
    }

    /// A text that `check` lets through.
    pub(super) const fn checked(what: &'static str, check: fn(&str) -> Result<()>) -> Self {
        Self { what, one_of: &[], check, may_be_empty: false }
    }

    fn read(&self, text: &str) -> Result<()> {
        if text.is_empty() {
            return match self.may_be_empty {
                true => Ok(()),
                false => Err(Error::user(format!("{} is missing here", self.what))),
            };
        }
        if !self.one_of.is_empty() && !self.one_of.contains(&text) {
            let known = self.one_of.join("`, `");
            return Err(Error::user(format!("`{text}` is not {}", self.what)).hint(format!("write one of `{known}`")));
        }
        (self.check)(text)
    }
}

/// Names with scalars.
pub(super) struct Pairs {
    /// What a name stands for, with its article.
    pub(super) what: &'static str,
    /// What is wrong with a name.
    pub(super) name: fn(&str) -> Result<()>,
    /// The scalars' form.
    pub(super) value: &'static Form,
}

/// Keys, and where they stand.
pub(super) struct Table {
    /// The file or section, for messages.
    pub(super) name: &'static str,
    /// The keys, in the order in which people are told of them.
    pub(super) keys: &'static [Entry],
    /// What is wrong with a key that is not known, if it may be ignored otherwise; none: each is an error.
    pub(super) others: Option<fn(&str) -> Result<()>>,
    /// When not empty: all keys of one of these groups must be there, and none of another.
    pub(super) groups: &'static [&'static [&'static str]],
}

/// One key of a table.
pub(super) struct Entry {
    pub(super) key: &'static str,
    /// What it says, in a sentence.
    pub(super) about: &'static str,
    /// The flag that overrides it.
    pub(super) flag: Option<&'static str>,
    pub(super) form: Form,
}

impl Table {
    /// The entry of a key.
    pub(super) fn find(&self, key: &str) -> Option<&'static Entry> {
        self.keys.iter().find(|entry| entry.key == key)
    }

    /// Whether a key may follow those that were there.
    ///
    /// # Errors
    /// A key that is not known, with the nearest one that is; one that cannot stand beside another.
    pub(super) fn allow(&self, key: &str, seen: &BTreeSet<String>) -> Result<()> {
        if key == "<<" {
            return Err(Error::user("merge keys (`<<:`) are not supported")
                .hint("write the merged keys out, each with its value"));
        }
        if self.find(key).is_none() {
            return self.others.map_or_else(|| Err(self.unknown(key)), |check| check(key));
        }
        let group = |key: &str| self.groups.iter().position(|group| group.contains(&key));
        let Some(own) = group(key) else { return Ok(()) };
        match seen.iter().find(|other| group(other).is_some_and(|other| other != own)) {
            Some(other) => {
                Err(Error::user(format!("`{key}:` cannot stand beside `{other}:`")).hint("keep one of them"))
            }
            None => Ok(()),
        }
    }

    fn unknown(&self, key: &str) -> Error {
        if key == "pip" && self.find("dependencies").is_some() {
            return misplaced_pip();
        }
        let shown: String = key.chars().take(100).collect();
        let error = Error::user(format!("`{shown}:` is no key of {}", self.name));
        let names = || self.keys.iter().map(|entry| entry.key);
        let near = near::names(&shown.to_lowercase().replace('_', "-"), names());
        match (near.first(), self.section_with(key)) {
            (Some(near), _) => error.hint(format!("did you mean `{near}:`?")),
            (None, Some(section)) => error.hint(format!("it belongs below `{section}:`")),
            (None, None) => error.hint(format!("its keys are `{}`", names().collect::<Vec<_>>().join("`, `"))),
        }
    }

    /// The section below that knows a key.
    fn section_with(&self, key: &str) -> Option<&'static str> {
        let knows =
            |entry: &&Entry| matches!(&entry.form, Form::Table(table) if table.keys.iter().any(|it| it.key == key));
        self.keys.iter().find(knows).map(|entry| entry.key)
    }

    /// Whether the keys of a group are there, if there must be one.
    fn check_groups(&self, seen: &BTreeSet<String>) -> Result<()> {
        if self.groups.is_empty() || self.groups.iter().any(|group| group.iter().all(|key| seen.contains(*key))) {
            return Ok(());
        }
        let shown = |group: &&[&str]| format!("`{}:`", group.join(":` and `"));
        let groups = self.groups.iter().map(shown).collect::<Vec<_>>().join(", or ");
        Err(Error::user(format!("{} needs {groups}", self.name)))
    }
}

/// A `pip:` beside `dependencies:` instead of in it.
pub(super) fn misplaced_pip() -> Error {
    Error::user("`pip:` stands at the top of the file, where it installs nothing")
        .hint("put it among the dependencies: an item `- pip:` of `dependencies:`, with its list indented below")
}

impl Form {
    /// A scalar as this form has it.
    fn scalar(&self, text: &str) -> Result<Value> {
        match self {
            Self::Text(form) => form.read(text).map(|()| text.into()),
            Self::Switch => match text {
                "on" | "true" => Ok(true.into()),
                "off" | "false" => Ok(false.into()),
                _ => Err(Error::user(format!("`{text}` is neither `on` nor `off`"))),
            },
            Self::Number(range) => match text.parse::<usize>() {
                Ok(number) if range.contains(&number) => Ok(number.into()),
                _ => Err(Error::user(format!("`{text}` is not {}", Expected(self)))),
            },
            Self::Command => {
                let words = text::words(text).ok_or_else(|| {
                    Error::user(format!("`{text}` has an open quote")).hint("a list of words needs no quotes")
                })?;
                Ok(words.into())
            }
            _ => Err(Error::bug("a text where none can be")),
        }
    }
}

/// What a form is, for a sentence that begins with "expected".
struct Expected<'a>(&'a Form);

impl fmt::Display for Expected<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Form::Text(form) => f.write_str(form.what),
            Form::Switch => f.write_str("`on` or `off`"),
            Form::Number(range) => write!(f, "a whole number from {} to {}", range.start(), range.end()),
            Form::Command => f.write_str("a command (a list of words, or one text)"),
            Form::List(_) | Form::Packages => f.write_str("a list (lines that begin with `- `)"),
            Form::Pairs(_) => f.write_str("names with values (`NAME: value`)"),
            Form::Table(table) => write!(f, "{} with keys (`key: value`)", table.name),
        }
    }
}

/// Reads a value of a form.
pub(super) struct Reading<'a> {
    pub(super) context: &'a Context,
    pub(super) form: &'static Form,
    /// Where the value is: `image.tags.0`.
    pub(super) path: String,
}

impl Reading<'_> {
    fn below(&self, name: impl fmt::Display, form: &'static Form) -> Self {
        Self { context: self.context, form, path: format!("{}.{name}", self.path) }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.form {
            Form::Text(_) | Form::Switch | Form::Number(_) => deserializer.deserialize_str(self),
            Form::Command => deserializer.deserialize_any(self),
            Form::List(_) | Form::Packages => deserializer.deserialize_seq(self),
            Form::Pairs(_) | Form::Table(_) => deserializer.deserialize_map(self),
        }
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Expected(self.form))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.context.spend(text)?;
        self.context.arrive(&self.path)?;
        self.form.scalar(text).map_err(|error| self.context.refuse(&error))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Value, A::Error> {
        static WORD: Form = Form::Text(Text { may_be_empty: true, ..Text::any("a word") });
        self.context.arrive(&self.path)?;
        let item = match self.form {
            Form::List(item) => item,
            Form::Command => &WORD,
            _ => return Err(de::Error::invalid_type(Unexpected::Seq, &self)),
        };
        List { of: |index| self.below(index, item) }.visit_seq(sequence).map(Value::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.context.arrive(&self.path)?;
        match self.form {
            Form::Table(table) => self.table(table, map),
            Form::Pairs(pairs) => self.pairs(pairs, map),
            _ => Err(de::Error::invalid_type(Unexpected::Map, &self)),
        }
    }
}

impl Reading<'_> {
    fn table<'de, A: MapAccess<'de>>(&self, table: &'static Table, mut map: A) -> Result<Value, A::Error> {
        let mut seen = BTreeSet::new();
        let mut object = Map::new();
        while let Some(key) = next_key(&mut map, self.context, &mut seen, |key, seen| table.allow(key, seen))? {
            let Some(entry) = table.find(&key) else { continue };
            if let Some(value) = map.next_value_seed(Optional(self.below(&key, &entry.form)))? {
                object.insert(key, value);
            }
        }
        table.check_groups(&seen).map_err(|error| self.context.refuse(&error))?;
        Ok(Value::Object(object))
    }

    fn pairs<'de, A: MapAccess<'de>>(&self, pairs: &'static Pairs, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        loop {
            let allow = |name: &str| match object.contains_key(name) {
                true => {
                    Err(Error::user(format!("{} `{name}` is set a second time", pairs.what)).hint("keep one of them"))
                }
                false => (pairs.name)(name),
            };
            let Some(name) = map.next_key_seed(Key { context: self.context, allow: &allow })? else { break };
            let value = map.next_value_seed(Optional(self.below(&name, pairs.value)))?;
            object.insert(name, value.unwrap_or_else(|| "".into()));
        }
        Ok(Value::Object(object))
    }
}

/// The value of a key, typed; the default when it is not there.
///
/// # Errors
/// Never for a type that fits the form.
pub(super) fn take<T: de::DeserializeOwned + Default>(values: &mut Map<String, Value>, key: &str) -> Result<T> {
    values.remove(key).map_or_else(|| Ok(T::default()), typed)
}

/// A value of a form, typed.
///
/// # Errors
/// Never for a type that fits the form.
pub(super) fn typed<T: de::DeserializeOwned>(value: Value) -> Result<T> {
    serde_json::from_value(value).map_err(|error| Error::bug("a value does not fit its form").caused_by(error))
}
