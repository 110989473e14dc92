//! Canonical JSON: keys sorted, no white space, so that equal values have equal bytes (and digests).

use serde::Serialize;

use super::error::{Error, Result};

/// The bytes of a value, equal for equal values: `oci_spec` keeps annotations and labels in hash maps whose order
/// differs from run to run, so all keys are sorted here.
///
/// Not OLPC's canonical JSON: that writes control characters as they are, which no JSON parser accepts, and the
/// `created_by` of many a base image holds tabs.
///
/// # Errors
/// When the value has no JSON form: a defect of ours.
pub fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    let failed = |error: serde_json::Error| Error::bug("a value has no JSON form").caused_by(error);
    let mut value = serde_json::to_value(value).map_err(failed)?;
    value.sort_all_objects();
    serde_json::to_vec(&value).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_strings_stay_as_they_are() {
        let decomposed = "e\u{301}";
        let value = serde_json::json!({"b": {"z": 1, "a": "tab\there\nline"}, "a": decomposed});
        let bytes = canonical(&value).expect("serialises");
        assert_eq!(
            String::from_utf8(bytes.clone()).expect("text"),
            format!(r#"{{"a":"{decomposed}","b":{{"a":"tab\there\nline","z":1}}}}"#)
        );
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&bytes).expect("parses"), value);
    }
}
