//! Values of flags and environment variables.

use crate::util::{Error, Result};

/// An environment variable that is set to something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `NAME=VALUE` of a flag.
///
/// # Errors
/// What is none.
pub fn pair(flag: &str, text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::usage(format!("`{flag} {text}` is not NAME=VALUE")).hint("an empty value is written `NAME=`")),
    }
}
