//! What every document is read with: keys, values that may be left out, lists.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::yaml::Context;
use crate::util::{Error, Result};

/// A key that `allow` lets through.
pub(super) struct Key<'a> {
    pub(super) context: &'a Context,
    pub(super) allow: &'a dyn Fn(&str) -> Result<()>,
}

/// The next key of a mapping: one that has not been there, and that `allow` lets through.
pub(super) fn next_key<'de, A: MapAccess<'de>>(
    map: &mut A,
    context: &Context,
    seen: &mut BTreeSet<String>,
    allow: impl Fn(&str, &BTreeSet<String>) -> Result<()>,
) -> Result<Option<String>, A::Error> {
    let allow = |text: &str| match seen.contains(text) {
        true => Err(Error::user(format!("`{text}:` stands here a second time")).hint("keep one of them")),
        false => allow(text, seen),
    };
    let key = map.next_key_seed(Key { context, allow: &allow })?;
    seen.extend(key.clone());
    Ok(key)
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        self.context.spend(text)?;
        (self.allow)(text).map_err(|error| self.context.refuse(&error))?;
        Ok(text.to_owned())
    }
}

/// A value that may be left out (`channels:` with nothing behind it).
pub(super) struct Optional<S>(pub(super) S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Optional<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

/// A list that must be there: a key with nothing behind it mostly lost its list by an edit.
pub(super) struct Present<'a, F> {
    pub(super) context: &'a Context,
    pub(super) key: &'static str,
    pub(super) list: List<F>,
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Present<'_, F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> Visitor<'de> for Present<'_, F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.expecting(f)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        let key = self.key;
        let hint = format!("indent its list below it, or write `{key}: []` if nothing is wanted");
        Err(self.context.fail(format!("nothing stands behind `{key}:`"), Some(&hint)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, sequence: A) -> Result<Self::Value, A::Error> {
        self.list.visit_seq(sequence)
    }
}

/// A list whose items are read by what `of` makes for their index.
pub(super) struct List<F> {
    pub(super) of: F,
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> DeserializeSeed<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: Fn(usize) -> S, S: DeserializeSeed<'de>> Visitor<'de> for List<F> {
    type Value = Vec<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list (lines that begin with `- `)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element_seed((self.of)(items.len()))? {
            items.push(item);
        }
        Ok(items)
    }
}
