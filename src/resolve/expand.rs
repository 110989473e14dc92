//! Environment variables in what users write: the usual way to keep a password out of a file.

use crate::util::{Error, Result, variables};

/// `$NAME` and `${NAME}` of a URL or a channel from the environment, as conda expands them in channels and in its
/// configuration. Unlike conda's, a variable that is not set is an error: a server would be asked with its name for a
/// password.
///
/// # Errors
/// Variables that are not set, or that must not go to the URL's host ([`variables`]).
pub(super) fn expand(text: &str) -> Result<String> {
    let (expanded, names) = replaced(text)?;
    variables::permit(&names, &expanded)?;
    Ok(expanded)
}

/// The same for a path of this machine, which goes to no server.
///
/// # Errors
/// Variables that are not set, or never expand.
pub(super) fn expand_path(text: &str) -> Result<String> {
    replaced(text).map(|(expanded, _)| expanded)
}

/// The text with the values of its variables, and their names.
fn replaced(text: &str) -> Result<(String, Vec<String>)> {
    let (mut expanded, mut names) = (String::with_capacity(text.len()), Vec::new());
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
            expanded.push_str(&variables::value(name)?.ok_or_else(|| {
                Error::user(format!("a channel needs the environment variable `{name}`, which is not set"))
            })?);
            names.push(name.to_owned());
        }
        rest = behind;
    }
    expanded.push_str(rest);
    Ok((expanded, names))
}
