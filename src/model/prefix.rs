//! Where the environment may lie in an image.

/// Folders that container engines put something else over, or that must keep their own modes (`/tmp`).
pub const ENGINES_OWN: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];

/// Whether a path in the image, symlinks resolved, is in one of them: what lies there is gone when a container runs.
pub fn is_engines_own(path: &str) -> bool {
    let first = path.split('/').find(|part| !part.is_empty());
    first.is_some_and(|first| ENGINES_OWN.contains(&first))
}

/// An absolute folder in normal form, which programs and archives can hold.
///
/// # Errors
/// What is wrong with it, as the end of a sentence that begins with its name.
pub fn prefix(text: &str) -> Result<String, &'static str> {
    let relative = text.strip_prefix('/').ok_or("is not absolute")?;
    let parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err("is the root, where the environment would mix with the base");
    }
    if parts.iter().any(|part| *part == "." || *part == "..") || text.contains([':', '\n', '\0', ' ']) {
        return Err("holds `.`, `..`, a colon or white space, which programs in the environment cannot cope with");
    }
    if text.contains(|char: char| char.is_whitespace() || char.is_control()) {
        return Err("holds white space or a control character");
    }
    if ENGINES_OWN.contains(&parts[0]) {
        return Err("is in a folder that container engines put something else over");
    }
    if parts.iter().any(|part| part.starts_with(".wh.")) {
        return Err("holds `.wh.`, which stands for a removal in image layers");
    }
    Ok(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_absolute_folders() {
        assert_eq!(prefix("/opt//env/"), Ok("/opt/env".to_owned()));
        for wrong in ["opt/env", "/", "/opt/../env", "/opt/my env", "/a:b", "/a\tb", "/tmp/env", "/proc", "/a/.wh.b"] {
            assert!(prefix(wrong).is_err(), "{wrong}");
        }
    }
}
