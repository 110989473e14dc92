//! Documents that somebody else wrote.

use serde::de::DeserializeOwned;

use crate::util::{Error, Result};

/// Parses a document; `what` names it in the error.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::user(format!("{what} cannot be read")).caused_by(error))
}
