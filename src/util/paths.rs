//! Paths in archives, which are text with slashes and not paths of this machine.

/// The path in normal form: without empty parts and `.`, so without slashes at its ends. Nothing when it climbs
/// with `..`.
pub fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return None;
        }
        parts.push(part);
    }
    Some(parts.join("/"))
}

/// Refuses a target, relative to the prefix, that is not below the prefix, not in its normal form, or a whiteout (image-spec, layer.md), which would
/// remove what lower layers have.
///
/// # Errors
/// What is wrong, as a sentence about "it", the package.
pub fn check_target(path: &str) -> Result<(), String> {
    let shown = || path.chars().take(200).flat_map(char::escape_debug).collect::<String>();
    if path.starts_with('/') || path.contains('\0') {
        return Err(format!("it would install `{}`, which is no path in the prefix", shown()));
    }
    let normal = normal(path).ok_or_else(|| format!("it would install `{}`, which climbs with `..`", shown()))?;
    if normal.is_empty() {
        return Err("it brings the prefix itself".to_owned());
    }
    if normal != path {
        return Err(format!("it would install `{}`, which is not in normal form", shown()));
    }
    match path.split('/').any(|part| part.starts_with(".wh.")) {
        true => Err(format!("it brings `{}`, which removes a file in an image layer", shown())),
        false => Ok(()),
    }
}

/// The longest name of a file in bytes (`NAME_MAX` of Linux).
const LONGEST_NAME: usize = 255;
/// The longest path in bytes (`PATH_MAX` of Linux, less the NUL that ends it).
const LONGEST_PATH: usize = 4095;

/// Refuses a path, or the target of a link, that no file system of Linux takes: an engine could not unpack it.
///
/// # Errors
/// What is too long, as a sentence that begins with the path.
pub fn check_length(path: &str) -> Result<(), String> {
    check_length_of(path.as_bytes())
}

/// As [`check_length`], for paths that need not be text.
///
/// # Errors
/// As [`check_length`].
pub fn check_length_of(path: &[u8]) -> Result<(), String> {
    let longest = path.split(|byte| *byte == b'/').map(<[u8]>::len).max().unwrap_or_default();
    let what = if longest > LONGEST_NAME {
        format!("has a name of {longest} bytes, Linux takes at most {LONGEST_NAME}")
    } else if path.len() > LONGEST_PATH {
        format!("has {} bytes, Linux takes paths of at most {LONGEST_PATH}", path.len())
    } else {
        return Ok(());
    };
    Err(format!("`{}` {what}", shortened(&String::from_utf8_lossy(path))))
}

/// The beginning of a text that would fill the screen.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 120;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_engine_unpacks_are_refused() {
        let name = "n".repeat(255);
        let path = format!("{}abc", "d/".repeat(2046));
        assert_eq!(path.len(), 4095);
        check_length(&format!("a/{name}/b")).expect("fits");
        check_length(&path).expect("fits");
        for long in [format!("a/{name}n/b"), format!("{name}n"), format!("{path}d"), "é".repeat(128)] {
            let error = check_length(&long).expect_err("is too long");
            assert!(error.contains("at most") && error.chars().count() < 200, "{error}");
        }
        check_length_of(&[0xff; 256]).expect_err("counts bytes");
    }

    #[test]
    fn targets_stay_in_the_prefix() {
        for path in ["", ".", "/etc/x", "../x", "lib/../../x", "lib//x", "lib/./x", "lib/", "a\0b", "lib/.wh.x"] {
            assert!(check_target(path).is_err(), "{path:?}");
        }
        for path in ["lib/python3.13/site-packages/x.py", "bin/x", "a.wh.b"] {
            assert_eq!(check_target(path), Ok(()), "{path}");
        }
    }
}
