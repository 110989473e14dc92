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
