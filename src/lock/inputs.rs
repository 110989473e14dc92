//! What a lock was made from, and how that differs from what one would be made from now.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::foreign::some;
use super::{Lock, Pinned, PinnedWheel};
use crate::util::Digest;

/// What a lock is made from beside dependencies, variables and platform, which it holds anyway. When it changes, the
/// lock is stale.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Inputs {
    /// Channels in order as written, without credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What names of channels meant on the machine that made the lock, where conda's configuration or environment
    /// variables said so: canonical URLs by the name as written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub channel_urls: BTreeMap<String, Vec<String>>,
    /// `strict`, `flexible` or `disabled`.
    pub channel_priority: String,
    /// What was declared of the machine that the image will run on: `NAME=VERSION` of virtual packages,
    /// sorted, then `--cuda=...` and `--glibc=...`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub declared: Vec<String>,
    /// The base as named; nothing of one that lies on this machine, whose digest counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether the base's environment is extended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extends: bool,
    /// Packages that appeared after this date or time were left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclude_newer: Option<String>,
    /// Patterns of paths in the prefix that wheels may take from conda packages, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_clobber: Vec<String>,
    /// Digest of the packages that another tool's lock pins ([`super::Pinned::digest`]), where there was no solving.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pins: Option<Digest>,
}

/// What a lock would be made from now.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Dependencies as written.
    pub specs: &'a [String],
    /// Requirement lines of pip as written, without secrets.
    pub pip: &'a [String],
    /// `variables:`.
    pub variables: &'a BTreeMap<String, String>,
    /// What another tool's lock pins.
    pub pinned: Option<&'a Pinned>,
    /// The rest.
    pub inputs: &'a Inputs,
    /// Digest of the base's manifest for the platform.
    pub base: Digest,
}

/// Why a lock is stale: what changed since it was made, one line each. Nothing when it is current.
pub fn changes(lock: &Lock, now: Wanted<'_>) -> Vec<String> {
    let Some(then) = &lock.inputs else { return vec!["it does not say what it was made from".to_owned()] };
    let inputs = now.inputs;
    let mut changes: Vec<String> = lock.edited.iter().map(|part| format!("{part}, by hand")).collect();
    changes.extend(list("dependencies", &lock.specs, now.specs));
    changes.extend(list("pip", &lock.pip, now.pip));
    if lock.variables != *now.variables {
        changes.push(format!("variables: {}", differing(&lock.variables, now.variables)));
    }
    changes.extend(list("channels", &then.channels, &inputs.channels));
    let meanings = |inputs: &Inputs| -> Vec<String> {
        inputs.channel_urls.iter().map(|(name, urls)| format!("`{name}` is {}", urls.join(" and "))).collect()
    };
    changes.extend(list("channel names", &meanings(then), &meanings(inputs)));
    changes.extend(single("channel priority", Some(&then.channel_priority), Some(&inputs.channel_priority)));
    changes.extend(list("target", &then.declared, &inputs.declared));
    changes.extend(single("--exclude-newer", then.exclude_newer.as_ref(), inputs.exclude_newer.as_ref()));
    changes.extend(list("--allow-clobber", &then.allow_clobber, &inputs.allow_clobber));
    if then.extends != inputs.extends {
        changes.push(match inputs.extends {
            true => "from: the base's environment is to be extended".to_owned(),
            false => "from: the base's environment is not to be extended any more".to_owned(),
        });
    }
    if then.pins != inputs.pins {
        changes.push(match now.pinned {
            Some(pinned) if then.pins.is_some() => repinned(lock, pinned),
            Some(_) => "packages: they are pinned now".to_owned(),
            None => "packages: they are no longer pinned".to_owned(),
        });
    }
    if then.base != inputs.base {
        changes.extend(single("base", then.base.as_ref().or(Some(&lock.base.reference)), inputs.base.as_ref()));
    } else if lock.base.digest != now.base {
        changes.push(format!("base: {} instead of {}", now.base, lock.base.digest));
    }
    changes
}

/// How what is pinned now differs from the packages of a lock.
fn repinned(lock: &Lock, pinned: &Pinned) -> String {
    let wheel = |name: &str, version: Option<&str>| format!("{name} {} (pip)", version.unwrap_or_default());
    let version_of = |wheel: &PinnedWheel| {
        let locked = lock.wheels.iter().find(|locked| locked.name == wheel.name);
        // Some forms leave it out.
        wheel.version.clone().or(locked.map(|locked| locked.version.clone()))
    };
    let wheels = pinned.wheels.iter().map(|it| wheel(&it.name, version_of(it).as_deref()));
    let conda = pinned.packages.iter().map(|package| package.record.identifier.to_string());
    let now: BTreeSet<String> = conda.chain(wheels).collect();
    let wheels = lock.wheels.iter().map(|it| wheel(&it.name, Some(&it.version)));
    let conda = lock.packages.iter().map(|package| package.record.identifier.to_string());
    let then: BTreeSet<String> = conda.chain(wheels).collect();
    let changed =
        |sign: &str, items: Vec<&String>| items.into_iter().map(|item| format!("{sign} {item}")).collect::<Vec<_>>();
    let mut changes = changed("+", now.difference(&then).collect());
    changes.extend(changed("-", then.difference(&now).collect()));
    match changes.is_empty() {
        true => "pinned packages: the same names with other URLs or hashes".to_owned(),
        false => format!("pinned packages: {}", some(&changes)),
    }
}

/// `what: + new, - old`, or that the order is another one.
fn list(what: &str, then: &[String], now: &[String]) -> Option<String> {
    if then == now {
        return None;
    }
    let added = now.iter().filter(|item| !then.contains(item)).map(|item| format!("+ {item}"));
    let gone = then.iter().filter(|item| !now.contains(item)).map(|item| format!("- {item}"));
    let changed: Vec<String> = added.chain(gone).collect();
    Some(match changed.is_empty() {
        true => format!("{what}: another order"),
        false => format!("{what}: {}", changed.join(", ")),
    })
}

fn single(what: &str, then: Option<&String>, now: Option<&String>) -> Option<String> {
    let shown = |value: Option<&String>| value.map_or("none".to_owned(), |value| format!("`{value}`"));
    (then != now).then(|| format!("{what}: {} instead of {}", shown(now), shown(then)))
}

/// The names whose values are not the same; values may be secret.
fn differing(then: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let mut names: Vec<&str> = then.keys().chain(now.keys()).map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| then.get(*name) != now.get(*name));
    names.join(", ")
}
