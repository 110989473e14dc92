//! A registry as it is reached, and where it may send us.

use reqwest::header::HeaderMap;
use url::Url;

use crate::http::location::{Peer, location};
use crate::util::{Error, Result};

/// The flag by which users allow plain http and private addresses.
const CONSENT: &str = "--insecure-registry";

/// A registry as it is reached.
#[derive(Debug, Clone)]
pub(super) struct Host {
    /// The name in references (`docker.io`, `localhost:5000`).
    pub(super) name: String,
    /// Scheme, host and port of its interface.
    pub(super) base: Url,
}

impl Host {
    /// A URL of its interface; `path` begins behind `/v2/`.
    pub(super) fn url(&self, path: &str) -> Result<Url> {
        self.base
            .join(&format!("/v2/{path}"))
            .map_err(|error| Error::bug(format!("`{path}` makes no URL at `{}`", self.name)).caused_by(error))
    }

    /// Whether the URL is the registry's own: only there may credentials go.
    pub(super) fn owns(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// How messages call it.
    pub(super) fn called(&self) -> String {
        format!("the registry `{}`", self.name)
    }

    /// The URL that an answer's `Location` names, if it may be followed.
    ///
    /// # Errors
    /// When there is no `Location`, or it leads where a registry has no business to send us.
    pub(super) fn location(&self, asked: &Url, headers: &HeaderMap, insecure: &[String]) -> Result<Url> {
        let whom = self.called();
        let location =
            location(headers).ok_or_else(|| Error::user(format!("{whom} does not say where to go on (`Location`)")))?;
        self.peer(&whom, insecure).follow(asked, location)
    }

    /// Refuses a URL that the registry has no business to send us to.
    ///
    /// # Errors
    /// When it is refused.
    pub(super) fn permit(&self, url: &Url) -> Result<()> {
        self.peer(&self.called(), &[]).permit(url)
    }

    fn peer<'a>(&'a self, whom: &'a str, insecure: &'a [String]) -> Peer<'a> {
        Peer { whom, base: &self.base, insecure, consent: Some(CONSENT), strict: true, at: None }
    }
}
