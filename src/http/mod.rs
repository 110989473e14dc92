//! HTTP for everything that condaimg talks to: clients, TLS, proxies, retries, back-off, redirects.
//!
//! Knows neither registries nor channels. Registries send their requests through a [`wire::Wire`]; channels and
//! downloads of archives through the middleware of [`middleware`], since rattler's clients are made of middleware.
//! Both take their clients from [`client::Settings`], their waits from [`retry::RetryPolicy`], and their rules of
//! redirects and credentials from [`location`].
//!
//! Bodies are under watch ([`watch`]): a server that stalls or sends too much is not listened to any longer. [`guard`] judges
//! the addresses that redirects lead to.

pub(crate) mod address;
pub(crate) mod certificates;
pub(crate) mod certs;
pub(crate) mod client;
pub(crate) mod clients;
pub(crate) mod guard;
pub(crate) mod location;
pub(crate) mod middleware;
pub(crate) mod proxy;
pub(crate) mod reach;
pub(crate) mod requests;
pub(crate) mod retry;
mod self_signed;
pub(crate) mod trouble;
pub(crate) mod warning;
pub(crate) mod watch;
pub(crate) mod wire;
