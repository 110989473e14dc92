//! Taking out of an index what rattler cannot read, so that one odd record does not make a channel useless. Done only
//! when rattler failed to read the index as it is.

use std::collections::BTreeMap;

use rattler_conda_types::package::DistArchiveIdentifier;
use rattler_conda_types::{ChannelInfo, PackageRecord};
use serde::de::Error as _;
use serde_json::value::{RawValue, to_raw_value};

/// The members that list packages by their file names.
const PACKAGES: [&str; 2] = ["packages", "packages.conda"];

/// Members of which an index has one at least. Servers answer with other objects to say that something is not there.
const TELLING: [&str; 4] = ["packages", "packages.conda", "info", "repodata_version"];

type Members<'a> = BTreeMap<String, &'a RawValue>;

/// An index without what cannot be read of it.
#[derive(Debug)]
pub(super) struct Sifted {
    /// The index, as `repodata.json` has it.
    pub(super) bytes: Vec<u8>,
    /// The file names of the records that were left out, each with the reason.
    pub(super) skipped: Vec<String>,
}

/// Leaves out the records of a `repodata.json` that rattler cannot read.
///
/// # Errors
/// When it is not an index at all.
pub(super) fn sift(text: &[u8]) -> serde_json::Result<Sifted> {
    let document: Members<'_> = serde_json::from_slice(text)?;
    if !document.keys().any(|key| TELLING.contains(&key.as_str())) {
        return Err(serde_json::Error::custom("an object without `packages` and `info`"));
    }
    let mut skipped = Vec::new();
    let mut kept: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
    for (member, value) in &document {
        let value = match member.as_str() {
            member if PACKAGES.contains(&member) => to_raw_value(&records(value, &mut skipped)?)?,
            "removed" => to_raw_value(&removed(value))?,
            "info" if serde_json::from_str::<Option<ChannelInfo>>(value.get()).is_err() => continue,
            _ => (*value).to_owned(),
        };
        kept.insert(member, value);
    }
    Ok(Sifted { bytes: serde_json::to_vec(&kept)?, skipped })
}

/// Whether a text is a JSON object that is no index: `{"error": "not found"}`.
pub(super) fn is_other_object(text: &[u8]) -> bool {
    let document: serde_json::Result<BTreeMap<String, &RawValue>> = serde_json::from_slice(text);
    document.is_ok_and(|members| !members.keys().any(|key| TELLING.contains(&key.as_str())))
}

/// The records that can be read.
fn records<'a>(value: &'a RawValue, skipped: &mut Vec<String>) -> serde_json::Result<Members<'a>> {
    let all: Option<Members<'a>> = serde_json::from_str(value.get())?;
    let mut kept = Members::new();
    for (file, record) in all.into_iter().flatten() {
        match fault(&file, record) {
            Some(fault) => skipped.push(format!("{file}: {fault}")),
            None => {
                kept.insert(file, record);
            }
        }
    }
    Ok(kept)
}

/// Why a record cannot be read.
fn fault(file: &str, record: &RawValue) -> Option<String> {
    // The shortest form of the name: rattler borrows it from the text, where a backslash makes that impossible.
    if file.parse::<DistArchiveIdentifier>().is_err() || file.contains(['\\', '"']) {
        return Some("not the name of a package's archive".to_owned());
    }
    serde_json::from_str::<PackageRecord>(record.get()).err().map(|error| error.to_string())
}

/// The names of removed archives that are names.
fn removed(value: &RawValue) -> Vec<String> {
    let names: Vec<serde_json::Value> = serde_json::from_str(value.get()).unwrap_or_default();
    let names = names.iter().filter_map(|name| name.as_str());
    names.filter(|name| name.parse::<DistArchiveIdentifier>().is_ok()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn odd_records_are_left_out_and_named() {
        let good =
            json!({"name": "a", "version": "1", "build": "0", "build_number": 0, "depends": [], "subdir": "noarch"});
        let with = |member: &str, value: Value| {
            let mut record = good.clone();
            record[member] = value;
            record
        };
        let mut without = good.clone();
        without.as_object_mut().expect("an object").remove("build_number");
        let text = json!({
            "info": {"subdir": "noarch"},
            "packages": {"a-1-0.tar.bz2": good, "null-1-0.tar.bz2": with("depends", Value::Null)},
            "packages.conda": {
                "a-2-0.conda": good,
                "none-1-0.conda": without,
                "text-1-0.conda": with("build_number", json!("zero")),
                "odd.conda": good,
            },
            "removed": ["b-1-0.conda", "odd"],
            "repodata_version": 1,
        });
        let Sifted { bytes, skipped } = sift(text.to_string().as_bytes()).expect("sifts");
        let kept: Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(kept["packages"].as_object().expect("records").keys().collect::<Vec<_>>(), ["a-1-0.tar.bz2"]);
        assert_eq!(kept["packages.conda"].as_object().expect("records").keys().collect::<Vec<_>>(), ["a-2-0.conda"]);
        assert_eq!((&kept["removed"], &kept["repodata_version"]), (&json!(["b-1-0.conda"]), &json!(1)));
        let names: Vec<&str> = skipped.iter().filter_map(|text| text.split(':').next()).collect();
        assert_eq!(names, ["null-1-0.tar.bz2", "none-1-0.conda", "odd.conda", "text-1-0.conda"]);
        assert!(skipped[1].contains("build_number"), "{skipped:?}");
    }

    #[test]
    fn what_is_no_index_is_refused() {
        for text in ["<html>", "[]", "{}", r#"{"error": "not found"}"#, r#"{"packages": 1}"#] {
            assert!(sift(text.as_bytes()).is_err(), "{text}");
        }
        assert!(sift(br#"{"packages": null}"#).expect("sifts").skipped.is_empty());
        assert!(is_other_object(br#"{"error": "not found"}"#));
        for text in ["<html>", "[]", r#"{"packages": {}}"#, r#"{"info": {}, "error": 1}"#] {
            assert!(!is_other_object(text.as_bytes()), "{text}");
        }
    }
}
