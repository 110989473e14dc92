//! The lock's canonical forms: URLs that are the same on every machine, and the lock as it goes with the image.

use url::Url;

use super::{Lock, file};
use crate::model::Parameters;
use crate::util::{Error, Result, redact};

/// The URL of an archive without credentials; that of a local channel is `file:///<channel>/<subdir>/<file>`,
/// whatever folder the channel lies in here.
pub fn canonical_url(url: &Url) -> Url {
    // Channel, subdir and file name.
    local(url, 3).unwrap_or_else(|| redact::canonical(url))
}

/// The same for a channel, without a trailing slash.
pub fn canonical_channel(channel: &str) -> String {
    let Ok(url) = Url::parse(channel) else { return channel.trim_end_matches('/').to_owned() };
    let url = local(&url, 1).unwrap_or_else(|| redact::canonical(&url));
    url.as_str().trim_end_matches('/').to_owned()
}

/// The URL of what PyPI's tools fetch, without credentials; a local one is `file:///<last path component>`.
pub(super) fn canonical_location(url: &Url) -> Url {
    local(url, 1).unwrap_or_else(|| redact::canonical(url))
}

/// The last components of a `file://` URL.
fn local(url: &Url, components: usize) -> Option<Url> {
    if url.scheme() != "file" {
        return None;
    }
    let parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
    let kept = &parts[parts.len().saturating_sub(components)..];
    Url::parse(&format!("file:///{}", kept.join("/"))).ok()
}

/// The lock that goes with an image: without what is only of this machine, with the build's parameters. Its
/// digest is the label `dev.condaimg.lock`.
///
/// # Errors
/// When the lock cannot be rendered.
pub fn normalised(lock: &Lock, parameters: &Parameters) -> Result<String> {
    if !lock.has_facts {
        return Err(Error::bug("an image was to be made before the facts of its packages"));
    }
    let mut lock = lock.clone();
    // They make the same byte code.
    lock.interpreters.clear();
    lock.channels = lock.channels.iter().map(|channel| canonical_channel(channel)).collect();
    for package in &mut lock.packages {
        package.record.url = canonical_url(&package.record.url);
        package.record.channel = package.record.channel.as_deref().map(canonical_channel);
    }
    for wheel in &mut lock.wheels {
        wheel.normalise();
    }
    lock.base.documents = None;
    if lock.base.is_local() {
        lock.base.reference = lock.base.digest.to_string();
    }
    file::render_for_image(&lock, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_the_same_on_every_machine() {
        for (given, expected) in [
            ("file:///home/me/x/channel/linux-64/a-1-0.conda", "file:///channel/linux-64/a-1-0.conda"),
            ("https://u:p@host/t/tok/c/noarch/a-1-0.conda", "https://host/c/noarch/a-1-0.conda"),
        ] {
            assert_eq!(canonical_url(&Url::parse(given).expect("a URL")).as_str(), expected);
        }
        assert_eq!(canonical_channel("file:///home/me/x/channel/"), "file:///channel");
        assert_eq!(canonical_channel("https://u:p@host/c/"), "https://host/c");
    }
}
