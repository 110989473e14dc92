//! URLs without their secrets: nothing else may reach a message, a lock or an image.

use url::Url;

/// The URL without user, password, and conda's `/t/<token>/` part; for messages. The user of ssh stays: keys are
/// secret there, not names, and the URL is of no use without it.
pub fn url(url: &Url) -> String {
    let mut clean = canonical(url);
    if is_ssh(url.scheme()) && url.password().is_none() {
        // It fails only for URLs that cannot have a user.
        let _ = clean.set_username(url.username());
    }
    clean.to_string()
}

/// Whether a scheme is that of ssh: `ssh`, `git+ssh`.
pub fn is_ssh(scheme: &str) -> bool {
    scheme == "ssh" || scheme.ends_with("+ssh")
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
        let host = bracketed_end(after);
        let ends = |c: char| c.is_whitespace() || "'\"`]<>".contains(c);
        let end = after[host..].find(ends).map_or(after.len(), |at| host + at);
        let (url, behind) = after.split_at(end);
        // `channel::package`: the package is no part of the URL.
        let (url, package) = url[host..].rfind("::").map_or((url, ""), |at| url.split_at(host + at));
        clean.push_str(&match before {
            before if before.ends_with("file") => url.to_owned(),
            before if before.ends_with("ssh") => without_password(url),
            before if before.ends_with("git+https") || before.ends_with("git+http") => without_login(url),
            _ => without_secrets(url),
        });
        clean.push_str(package);
        rest = behind;
    }
    clean + rest
}

/// Where the brackets of an IPv6 address end in what follows `://`; 0 where there are none.
fn bracketed_end(text: &str) -> usize {
    let authority = text.find(|c: char| c == '/' || c.is_whitespace()).map_or(text, |end| &text[..end]);
    let address = authority.rfind('[').map(|at| &authority[at..]);
    let is_address = |c: char| c.is_ascii_hexdigit() || ":.%".contains(c);
    match address.and_then(|it| it[1..].split_once(']')) {
        Some((inner, behind)) if inner.contains(':') && inner.chars().all(is_address) => authority.len() - behind.len(),
        _ => 0,
    }
}

/// A text of [`within`] as locks have it: without the users of ssh.
pub fn locked(text: &str) -> String {
    let mut parts = text.split("ssh://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let host_end = part.find(|c: char| c == '/' || c.is_whitespace()).unwrap_or(part.len());
        let host = part[..host_end].rfind('@').map_or(0, |at| at + 1);
        clean.push_str("ssh://");
        clean.push_str(&part[host..]);
    }
    clean
}

/// What follows `ssh://`, without a password. In `git@host:team/x.git@v1` the colon begins a path, as scp has it.
fn without_password(url: &str) -> String {
    let authority = &url[..url.find('/').unwrap_or(url.len())];
    match authority.rsplit_once('@') {
        Some((user, _)) if !user.contains(':') => url.to_owned(),
        _ => without_login(url),
    }
}

/// What follows the `://` of a repository, without its secrets: the `@` of a reference is no end of a password.
fn without_login(url: &str) -> String {
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let url = url.split('?').next().unwrap_or_default();
    let host_end = url.find('/').unwrap_or(url.len());
    let login = url[..host_end].rfind('@').filter(|at| url[..*at].contains(':'));
    let clean = match (login, url.rsplit_once('@')) {
        (Some(at), Some((before, reference))) if before.len() > at && !reference.contains('/') => {
            format!("{}@{reference}", without_secrets(before))
        }
        _ => without_secrets(url),
    };
    clean + fragment
}

/// What follows a URL's `://`, without its secrets.
fn without_secrets(url: &str) -> String {
    let host_end = url.find('/').unwrap_or(url.len());
    // A password with a slash in it makes no URL, and is none the less a password.
    let port = url[..host_end].split_once(':').map(|(_, port)| port);
    let odd_port = !url.starts_with('[') && port.is_some_and(|port| !port.chars().all(|c| c.is_ascii_digit()));
    let userinfo = if odd_port { url.rfind('@') } else { url[..host_end].rfind('@') };
    let url = userinfo.map_or(url, |at| &url[at + 1..]);
    // `?***` stands for a query that was taken out before.
    let (url, query) = url.split_once('?').map_or((url, ""), |(url, query)| (url, query));
    let query = if query.starts_with("***") { "?***" } else { "" };
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
    kept.join("/") + query
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
            ("error=no (http://[::1]:80/t/abc/c/noarch/x) at=1", "error=no (http://[::1]:80/c/noarch/x) at=1"),
            ("https://u:p@[fe80::1]/t/abc/c::numpy[x]", "https://[fe80::1]/c::numpy[x]"),
            ("GET url=https://host/x?*** status=200", "GET url=https://host/x?*** status=200"),
            ("x @ git+ssh://git@host/a.git@v1", "x @ git+ssh://git@host/a.git@v1"),
            ("git+ssh://git@host:team/a.git@v1", "git+ssh://git@host:team/a.git@v1"),
            ("git+ssh://git@host:22/a.git@v1", "git+ssh://git@host:22/a.git@v1"),
            ("git+ssh://me:pw@host/a.git@v1", "git+ssh://host/a.git@v1"),
            ("git+ssh://me:p/w@host/a.git", "git+ssh://host/a.git"),
            ("x @ git+https://me:pw@host/a.git@v1", "x @ git+https://host/a.git@v1"),
            ("git+https://me:p@s@host/a.git@v1#egg=x", "git+https://host/a.git@v1#egg=x"),
            ("git+https://me:p@s/w@host/a.git", "git+https://host/a.git"),
            ("git+https://me@host/a.git@v1", "git+https://host/a.git@v1"),
        ] {
            assert_eq!(within(given), expected);
        }
    }

    #[test]
    fn users_of_ssh_stay_in_messages_alone() {
        let [plain, secret] = ["ssh://git@host/a", "ssh://me:pw@host/a"].map(|text| Url::parse(text).expect("a URL"));
        assert_eq!([url(&plain), url(&secret)], ["ssh://git@host/a", "ssh://host/a"]);
        assert_eq!(canonical(&plain).as_str(), "ssh://host/a");
        for (given, expected) in [
            ("x @ git+ssh://git@host:22/a.git@v1 ; a", "x @ git+ssh://host:22/a.git@v1 ; a"),
            ("git+ssh://host/a.git@v1", "git+ssh://host/a.git@v1"),
            ("git+https://host/a.git@v1", "git+https://host/a.git@v1"),
        ] {
            assert_eq!(locked(given), expected);
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
