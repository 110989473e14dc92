//! Paths of entries of archives: in normal form, and behind the symlinks of the archive.

use std::collections::HashMap;

use crate::util::paths;

/// A path of an archive in normal form: relative, without `.`, `..`, empty parts or NUL.
///
/// # Errors
/// What is wrong with it, as a sentence.
pub fn safe_path(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        return Err(format!("`{path}` is an absolute path"));
    }
    if path.contains('\0') {
        return Err(format!("`{}` holds a NUL", path.escape_debug()));
    }
    paths::normal(path).ok_or_else(|| format!("`{path}` climbs with `..`"))
}

/// Where a path lies after following the links among its parent directories; links relative to the prefix.
///
/// # Errors
/// When one of them leads out of the prefix (or in circles), as a sentence.
pub fn resolve_parents(path: &str, symlinks: &HashMap<String, String>) -> Result<String, String> {
    resolve(path, symlinks, &mut Vec::new())
}

/// As [`resolve_parents`], with the links that were followed. A path that ends with `/.` is followed to its end.
///
/// # Errors
/// As [`resolve_parents`].
pub fn resolve(path: &str, symlinks: &HashMap<String, String>, through: &mut Vec<String>) -> Result<String, String> {
    let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut resolved: Vec<String> = Vec::new();
    let mut followed = 0;
    while let Some(part) = pending.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                if resolved.pop().is_none() {
                    return Err(format!("`{path}` lies below a link that leads out of the prefix"));
                }
                continue;
            }
            _ => resolved.push(part),
        }
        // The last part is the entry itself, which may be a link.
        if pending.is_empty() {
            break;
        }
        let link = resolved.join("/");
        let Some(target) = symlinks.get(&link) else { continue };
        through.push(link);
        followed += 1;
        if target.starts_with('/') || followed > 40 {
            return Err(format!("`{path}` lies below a link that leads out of the prefix (to `{target}`)"));
        }
        resolved.pop();
        pending.extend(target.split('/').rev().map(str::to_owned));
    }
    Ok(resolved.join("/"))
}

/// Refuses a path below a link that leads out of the prefix.
///
/// # Errors
/// As [`resolve_parents`].
pub fn refuse_below_outward_link(path: &str, symlinks: &HashMap<String, String>) -> Result<(), String> {
    if symlinks.is_empty() {
        return Ok(());
    }
    resolve_parents(path, symlinks).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_or_refused() {
        assert_eq!(safe_path("./lib//x/").as_deref(), Ok("lib/x"));
        for hostile in ["/etc/passwd", "../x", "lib/../../x", "a\0b"] {
            assert!(safe_path(hostile).is_err(), "{hostile}");
        }
    }

    #[test]
    fn links_inside_are_followed_and_links_outside_refused() {
        let links: HashMap<String, String> =
            [("lib64", "lib"), ("up", ".."), ("abs", "/etc"), ("a/b", "../lib/c"), ("loop", "loop")]
                .map(|(link, target)| (link.to_owned(), target.to_owned()))
                .into();
        assert_eq!(resolve_parents("lib64/x", &links).as_deref(), Ok("lib/x"));
        assert_eq!(resolve_parents("a/b/x", &links).as_deref(), Ok("lib/c/x"));
        assert_eq!(resolve_parents("abs", &links).as_deref(), Ok("abs"));
        for hostile in ["up/x", "abs/passwd", "loop/x"] {
            assert!(resolve_parents(hostile, &links).is_err(), "{hostile}");
        }
    }
}
