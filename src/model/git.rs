//! Git repositories as requirements, locks and other tools name them: what may become an argument, a path or a URL of git.

use percent_encoding::percent_decode_str;
use url::Url;

/// Schemes of repositories that git may be sent to.
const SCHEMES: [&str; 4] = ["https", "http", "ssh", "file"];

/// Whether a text is the full hash of a commit: 40 or 64 hexadecimal digits.
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Refuses a text that cannot be the name of a branch or tag (git-check-ref-format), or that git takes for an option.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check_reference(text: &str) -> Result<(), String> {
    let is_wrong = |char: char| char.is_control() || char.is_whitespace() || "~^:?*[\\".contains(char);
    if text.is_empty() || text.starts_with('-') || text.contains(is_wrong) || text.contains("..") || text.contains("@{")
    {
        let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
        return Err(format!("invalid reference `{shown}`: expected a branch, a tag or a commit"));
    }
    Ok(())
}

/// Refuses a URL that git must not be sent to: another scheme, and what ssh takes for an option.
///
/// # Errors
/// What is wrong, as a sentence.
pub fn check_repository(url: &Url) -> Result<(), String> {
    if !SCHEMES.contains(&url.scheme()) {
        return Err(format!("git+{}:// is not supported", url.scheme()));
    }
    let host = url.host_str().unwrap_or_default();
    if url.scheme() != "file" && host.is_empty() {
        return Err("its URL has no host".to_owned());
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if decoded(host).starts_with('-') || decoded(url.username()).starts_with('-') {
        return Err("the host of its URL begins with `-`".to_owned());
    }
    match decoded(url.as_str()).contains(char::is_control) {
        true => Err("its URL holds a control character".to_owned()),
        false => Ok(()),
    }
}

/// The directory of a project in a repository, without slashes at its ends; nothing for the repository itself.
///
/// # Errors
/// When it lies outside, as a sentence.
pub fn subdirectory(text: &str) -> Result<Option<String>, String> {
    if text.starts_with('/') || text.split('/').any(|part| part == "..") || text.contains(char::is_control) {
        return Err("its subdirectory lies outside of the repository".to_owned());
    }
    Ok(Some(text.trim_matches('/').to_owned()).filter(|it| !matches!(it.as_str(), "" | ".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_become_options_are_refused() {
        for text in ["--upload-pack=touch x", "-b", "", "a b", "a\nb", "v1..v2", "x@{1}", "a:b", "a^{commit}"] {
            assert!(check_reference(text).is_err(), "{text:?}");
        }
        for text in ["main", "v1.0+local", "feature/x-y", "refs/tags/v1", "HEAD"] {
            assert_eq!(check_reference(text), Ok(()), "{text}");
        }
        for text in ["--upload-pack=x", "abc", "zz", &"g".repeat(40), &"a".repeat(41)] {
            assert!(!is_commit(text), "{text}");
        }
        assert!(is_commit(&"0a".repeat(20)) && is_commit(&"F1".repeat(32)));
    }

    #[test]
    fn repositories_have_few_schemes_and_no_options() {
        let check = |text: &str| check_repository(&Url::parse(text).expect(text));
        for text in ["https://me:pw@h.example/a", "http://127.0.0.1:1/a", "ssh://git@h.example:22/a", "file:///a"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in [
            "ext::sh -c true",
            "git://h.example/a",
            "ssh://-oProxyCommand=x/a",
            "ssh://-oProxyCommand=x@h.example/a",
            "ssh://%2doProxyCommand=x/a",
            "https://h.example/a%0ahost=evil.example",
            "https://me%0a:pw@h.example/a",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn subdirectories_stay_inside() {
        for text in ["..", "../..", "a/../../b", "/etc", "a\n"] {
            assert!(subdirectory(text).is_err(), "{text:?}");
        }
        assert_eq!(subdirectory("lib/a/"), Ok(Some("lib/a".to_owned())));
        assert_eq!(subdirectory("."), Ok(None));
    }
}
