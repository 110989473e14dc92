//! What a registry demands in `WWW-Authenticate` (RFC 9110, 11.6.1; distribution-spec's token authentication).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// A demand for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token that the server at `realm` gives out.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// The demand that suits us best: a token before a password.
pub(super) fn from_headers(headers: &HeaderMap) -> Option<Challenge> {
    let mut found: Vec<Challenge> = headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(split)
        .filter_map(|(scheme, parameters)| understand(&scheme, &parameters))
        .collect();
    let best = found.iter().position(|challenge| *challenge != Challenge::Basic).unwrap_or(0);
    (!found.is_empty()).then(|| found.swap_remove(best))
}

fn understand(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| {
        let value = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone());
        value.filter(|value| !value.is_empty())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
}

/// Splits `Scheme a=b, c="d, e", Other ...` into schemes with their parameters.
fn split(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let mut challenges: Vec<(String, Vec<(String, String)>)> = Vec::new();
    for part in parts(text) {
        let (word, value) = match part.split_once('=') {
            Some((word, value)) => (word.trim(), Some(unquote(value.trim()))),
            None => (part.trim(), None),
        };
        // A blank in front of the `=` sign ends the scheme that the first parameter follows.
        let name = match word.split_once(char::is_whitespace) {
            Some((scheme, name)) => {
                challenges.push((scheme.to_owned(), Vec::new()));
                name.trim()
            }
            None if value.is_none() => {
                challenges.push((word.to_owned(), Vec::new()));
                continue;
            }
            None => word,
        };
        if let (Some((_, parameters)), Some(value)) = (challenges.last_mut(), value) {
            parameters.push((name.to_owned(), value));
        }
    }
    challenges
}

/// Splits at the commas that are not within quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn unquote(text: &str) -> String {
    let Some(inner) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) else { return text.to_owned() };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => plain.extend(characters.next()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&'static str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, reqwest::header::HeaderValue::from_static(text));
        }
        from_headers(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: "https://auth.example/token".into(),
                service: Some("registry.example".into()),
                scope: scope.map(str::to_owned),
            })
        };
        let full =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        assert_eq!(read(&[full]), bearer(Some("repository:a/b:pull,push")));
        let spaced = r#"bearer  Realm = "https://auth.example/token" , service=registry.example, error="x, \"y\"""#;
        assert_eq!(read(&[spaced]), bearer(None));
        let both = r#"Basic realm="a, b", Bearer realm="https://auth.example/token",service="registry.example""#;
        assert_eq!(read(&[both]), bearer(None));
        assert_eq!(read(&["Negotiate", r#"Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(read(&["Basic"]), Some(Challenge::Basic));
        assert_eq!(read(&["Bearer service=x"]), None);
        assert_eq!(read(&["Negotiate abc=="]), None);
        assert_eq!(read(&[]), None);
    }
}
