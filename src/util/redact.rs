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
