//! What is wrong with a reference, by which rule, and what it may have been meant to be (distribution-spec, "Pulling
//! manifests").

/// The longest tag.
const LONGEST_TAG: usize = 128;
/// The longest repository, with its registry.
const LONGEST_NAME: usize = 255;

const OF_TAGS: &str = "expected letters, digits, `_`, `.` and `-`, not beginning with `.` or `-`";
const OF_REPOSITORIES: &str = "expected lower-case letters and digits, with single `.`, `_`, `__` or `-` between them";

/// What is wrong with a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The part and the rule that it breaks.
    pub what: String,
    /// A reference that breaks none; nobody has parsed it.
    pub suggestion: Option<String>,
}

/// The first fault of a text that is not a reference; nothing when it cannot be told.
pub(super) fn find(text: &str) -> Option<Fault> {
    if text.is_empty() {
        return Some(Fault { what: "it is empty".to_owned(), suggestion: None });
    }
    if let Some(space) = text.chars().find(|char| char.is_whitespace() || char.is_control()) {
        let kept: String = text.chars().filter(|char| !char.is_whitespace() && !char.is_control()).collect();
        let what = format!("it has {}", if space == ' ' { "a space".to_owned() } else { format!("{space:?}") });
        return Some(Fault { what, suggestion: Some(kept) });
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let (host, repository) = match name.split_once('/') {
        Some((host, repository)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), repository),
        _ => (None, name),
    };
    let rebuilt = |repository: &str, tag: Option<&str>| {
        let host = host.map(|host| format!("{host}/")).unwrap_or_default();
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        Some(format!("{host}{repository}{tag}{digest}"))
    };
    let repaired = repaired(repository);
    let repository_is_wrong = repaired != repository;
    if let Some(what) = host.and_then(port_fault) {
        return Some(Fault { what, suggestion: None });
    }
    if let Some(what) = tag.and_then(tag_fault) {
        let tag = tag.map(usable_tag).filter(|tag| !tag.is_empty());
        return Some(Fault { what, suggestion: rebuilt(&repaired, tag.as_deref()) });
    }
    if repository_is_wrong {
        let suggestion = if repaired.is_empty() { None } else { rebuilt(&repaired, tag) };
        return Some(Fault { what: repository_fault(repository), suggestion });
    }
    if name.len() > LONGEST_NAME {
        let what = format!("its name has {} characters: expected at most {LONGEST_NAME}", name.len());
        return Some(Fault { what, suggestion: None });
    }
    digest.map(|digest| Fault {
        what: format!("its digest `{digest}` is wrong: expected `sha256:` and 64 of the digits 0-9 and a-f"),
        suggestion: Some(rest.to_owned()),
    })
}

/// What is wrong with the port of a host.
pub(super) fn port_fault(host: &str) -> Option<String> {
    let (_, port) = host.rsplit_once(':').filter(|_| !host.ends_with(']'))?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 => None,
        _ => Some(format!("the port `{port}` of `{host}` is wrong: expected a number from 1 to 65535")),
    }
}

fn is_tag_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || "_.-".contains(char)
}

fn tag_fault(tag: &str) -> Option<String> {
    let first = tag.chars().next();
    if tag.is_empty() {
        return Some("its tag is empty".to_owned());
    }
    if let Some(wrong) = tag.chars().find(|char| !is_tag_char(*char)) {
        return Some(format!("its tag `{tag}` has `{wrong}`: {OF_TAGS}"));
    }
    if matches!(first, Some('.' | '-')) {
        return Some(format!("its tag `{tag}` begins with `{}`: {OF_TAGS}", &tag[..1]));
    }
    match tag.len() > LONGEST_TAG {
        true => Some(format!("its tag has {} characters: expected at most {LONGEST_TAG}", tag.len())),
        false => None,
    }
}

/// The tag that comes nearest.
fn usable_tag(tag: &str) -> String {
    let tag: String = tag.chars().map(|char| if is_tag_char(char) { char } else { '-' }).collect();
    tag.trim_start_matches(['.', '-']).chars().take(LONGEST_TAG).collect()
}

fn repository_fault(repository: &str) -> String {
    if repository.is_empty() {
        return "its repository is missing".to_owned();
    }
    if repository.contains(':') {
        return format!("`{repository}` has a tag before the tag: expected one `:` behind the repository");
    }
    if repository.chars().any(char::is_uppercase) {
        return format!("its repository `{repository}` has upper-case letters: {OF_REPOSITORIES}");
    }
    let allowed = |char: &char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-/".contains(*char);
    match repository.chars().find(|char| !allowed(char)) {
        Some(wrong) => format!("its repository `{repository}` has `{wrong}`: {OF_REPOSITORIES}"),
        None if repository.split('/').any(str::is_empty) => {
            format!("its repository `{repository}` has an empty part: expected something before and behind each `/`")
        }
        None => format!("its repository `{repository}` has separators in a wrong place: {OF_REPOSITORIES}"),
    }
}

/// The repository that comes nearest: the same when nothing is wrong with it.
fn repaired(repository: &str) -> String {
    let parts = repository.split('/').map(repaired_part).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("/")
}

fn repaired_part(part: &str) -> String {
    let mut repaired = String::new();
    let mut separator = String::new();
    for char in part.chars().flat_map(char::to_lowercase) {
        if char.is_ascii_alphanumeric() {
            if !repaired.is_empty() {
                repaired.push_str(&usable_separator(&separator));
            }
            separator.clear();
            repaired.push(char);
        } else {
            separator.push(char);
        }
    }
    repaired
}

fn usable_separator(separator: &str) -> String {
    let is_usable = matches!(separator, "" | "." | "_" | "__") || separator.chars().all(|char| char == '-');
    if is_usable { separator.to_owned() } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_part_rule_and_a_way_out() {
        let long = "x".repeat(129);
        for (text, part, suggestion) in [
            ("repo:1.0+cu124", "`1.0+cu124` has `+`", "repo:1.0-cu124"),
            ("repo:-1", "begins with `-`", "repo:1"),
            ("repo:.1", "begins with `.`", "repo:1"),
            ("repo:é", "has `é`", "repo"),
            ("repo:", "tag is empty", "repo"),
            (&format!("repo:{long}"), "129 characters", &format!("repo:{}", &long[1..])),
            ("Team/Env:1", "upper-case", "team/env:1"),
            ("host.example/Team/x", "upper-case", "host.example/team/x"),
            ("team//env:1", "empty part", "team/env:1"),
            ("team/env/:1", "empty part", "team/env:1"),
            ("team/-env", "separators", "team/env"),
            ("te..am/env", "separators", "te-am/env"),
            ("te+am/env:1", "has `+`", "te-am/env:1"),
            ("a:b:c", "one `:`", "a-b:c"),
            ("my env:1", "a space", "myenv:1"),
            ("host.example:99999/x", "65535", ""),
            ("repo@sha256:123", "64", "repo"),
            ("repo:1+2@sha256:123", "has `+`", "repo:1-2@sha256:123"),
            ("", "empty", ""),
        ] {
            let fault = find(text).expect(text);
            assert!(fault.what.contains(part), "{text}: {fault:?}");
            assert_eq!(fault.suggestion.unwrap_or_default(), suggestion, "{text}");
        }
    }

    #[test]
    fn what_is_right_is_not_repaired() {
        for repository in ["a", "a/b", "a-b", "a--b", "a_b", "a__b", "a.b/c.d", "0x"] {
            assert_eq!(repaired(repository), repository);
        }
    }
}
