//! URLs without their secrets: nothing else may reach a message, a lock or an image.

use url::Url;

/// The URL without user, password, and conda's `/t/<token>/` part; for messages.
pub fn url(url: &Url) -> String {
    canonical(url).to_string()
}

/// The same for a text that may or may not be a URL.
pub fn text(text: &str) -> String {
    match Url::parse(text) {
        Ok(parsed) if parsed.has_host() => url(&parsed),
        _ => text.to_owned(),
    }
}

/// A text without the secrets of the URLs in it: a dependency that names its channel, a parser's message. Rather
/// too much than too little is taken out of what only looks like a URL.
pub fn within(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        clean.push_str(before);
        clean.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || "'\"`]<>".contains(c)).unwrap_or(after.len());
        let (url, behind) = after.split_at(end);
        // `channel::package`: the package is no part of the URL.
        let (url, package) = url.rfind("::").map_or((url, ""), |at| url.split_at(at));
        clean.push_str(&if before.ends_with("file") { url.to_owned() } else { without_secrets(url) });
        clean.push_str(package);
        rest = behind;
    }
    clean + rest
}

/// What follows a URL's `://`, without its secrets.
fn without_secrets(url: &str) -> String {
    let host_end = url.find('/').unwrap_or(url.len());
    // A password with a slash in it makes no URL, and is none the less a password.
    let port = url[..host_end].split_once(':').map(|(_, port)| port);
    let odd_port = port.is_some_and(|port| !port.chars().all(|c| c.is_ascii_digit()));
    let userinfo = if odd_port { url.rfind('@') } else { url[..host_end].rfind('@') };
    let url = userinfo.map_or(url, |at| &url[at + 1..]);
    let url = url.split('?').next().unwrap_or_default();
    let mut parts = url.split('/');
    let mut kept = Vec::new();
    while let Some(part) = parts.next() {
        // Only an inner part: `t` may be the channel itself, or the host.
        match part {
            "t" if !kept.is_empty() => {
                parts.next();
            }
            part => kept.push(part),
        }
    }
    kept.join("/")
}

/// The URL without credentials: user and password, conda's token segment and the query. This is the form that
/// is written to locks and images.
pub fn canonical(url: &Url) -> Url {
    let mut clean = url.clone();
    // Both fail only for URLs that cannot have credentials.
    let _ = clean.set_username("");
    let _ = clean.set_password(None);
    clean.set_query(None);
    let segments: Vec<String> = clean.path().split('/').map(str::to_owned).collect();
    let mut kept: Vec<&str> = Vec::with_capacity(segments.len());
    let mut index = 0;
    while index < segments.len() {
        if segments[index] == "t" && index + 1 < segments.len() && clean.scheme() != "file" {
            index += 2;
            continue;
        }
        kept.push(&segments[index]);
        index += 1;
    }
    clean.set_path(&kept.join("/"));
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_removed_from_within_a_text() {
        for (given, expected) in [
            ("numpy >=1.2", "numpy >=1.2"),
            ("https://user:pw@host/channel::numpy=1", "https://host/channel::numpy=1"),
            ("https://host:8080/t/abc-123/channel/linux-64::numpy", "https://host:8080/channel/linux-64::numpy"),
            ("numpy[channel='https://u:p@host/c', version='>=1']", "numpy[channel='https://host/c', version='>=1']"),
            ("numpy[channel=https://u:p@host/c]", "numpy[channel=https://host/c]"),
            ("see `https://user:p@ss@host/x?token=abc`", "see `https://host/x`"),
            ("https://user:pa/ss@host/x", "https://host/x"),
            ("https://host/@scope/x and file:///t/abc/x", "https://host/@scope/x and file:///t/abc/x"),
            ("https://t/t/abc", "https://t"),
        ] {
            assert_eq!(within(given), expected);
        }
    }

    #[test]
    fn secrets_are_removed() {
        for (given, expected) in [
            ("https://user:pw@host/channel/linux-64", "https://host/channel/linux-64"),
            ("https://host/t/abc-123/channel/noarch", "https://host/channel/noarch"),
            ("https://host/channel?token=abc", "https://host/channel"),
            ("file:///t/data/channel", "file:///t/data/channel"),
        ] {
            assert_eq!(text(given), expected);
        }
    }
}
