//! Canonical JSON: keys sorted, no white space, so that equal values have equal bytes (and digests).

use serde::Serialize;

use super::error::{Error, Result};

/// The canonical JSON of `value` (as `olpc_cjson` defines it: sorted keys, minimal escapes). Used for every
/// manifest, config and key: `oci_spec` keeps annotations in hash maps whose order differs from run to run.
///
/// # Errors
/// When the value has no JSON form (a map with keys that are no strings, a float): a defect of ours.
pub fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, olpc_cjson::CanonicalFormatter::new());
    value
        .serialize(&mut serializer)
        .map_err(|error| Error::bug("a value has no canonical JSON form").caused_by(error))?;
    Ok(bytes)
}
