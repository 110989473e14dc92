//! Environment variables in what users write: the usual way to keep a password out of a file.

use crate::util::{Error, Result};

/// `$NAME` and `${NAME}` from the environment, as conda expands them in channels and in its configuration. Unlike
/// conda's, a variable that is not set is an error: a server would be asked with its name for a password.
pub(super) fn expand(text: &str) -> Result<String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(braced) => braced,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if name.is_empty() {
            expanded.push('$');
        } else {
            expanded.push_str(&std::env::var(name).map_err(|_| {
                Error::user(format!("a channel needs the environment variable `{name}`, which is not set"))
            })?);
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok(expanded)
}
