//! Connections to servers that others named: the address that is connected to is judged, not the text of a URL.
//!
//! A host that a user names may lie anywhere. One that a server names (by a redirect, or as its token server) is asked by
//! a client of its own, which has no connections of others, and whose resolver gives no address that the server has no
//! business with. Addresses that stand in URLs are never resolved; [`super::location::Peer::permit`] judges them. Behind a
//! proxy it is the proxy that resolves names, and only it is connected to.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response};
use url::Url;

use super::client::Settings;
use super::reach::Reach;
use crate::util::Result;

/// Finds the addresses of a name.
pub(crate) type Lookup = fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;

/// Asks the machine's resolver.
pub(crate) fn system(name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
    async move { Ok(tokio::net::lookup_host((name.as_str(), 0)).await?.map(|address| address.ip()).collect()) }.boxed()
}

/// A name that has no address which may be connected to.
#[derive(Debug)]
pub(crate) struct Refused {
    name: String,
    address: IpAddr,
    what: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sends us to `{}`, which has {} ({})", self.name, self.what, self.address)
    }
}

impl std::error::Error for Refused {}

impl Refused {
    /// The host that was refused.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What was refused on the way to a server, if that is why a request got no answer.
    pub(crate) fn of(error: &reqwest::Error) -> Option<&Self> {
        let first: &(dyn std::error::Error + 'static) = error;
        std::iter::successors(Some(first), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

/// Resolves names to those addresses that a server may send others to.
pub(crate) struct Guard {
    /// Where that server lies.
    pub(crate) from: Reach,
    pub(crate) lookup: Lookup,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (from, lookup, name) = (self.from, self.lookup, name.as_str().to_owned());
        Box::pin(async move {
            let mut refused = None;
            let mut allowed = Vec::new();
            for address in lookup(name.clone()).await? {
                match from.may_send_to(Reach::of(address)) {
                    Ok(()) => allowed.push(SocketAddr::new(address, 0)),
                    Err(what) => refused = Some(Refused { name: name.clone(), address, what }),
                }
            }
            match refused.filter(|_| allowed.is_empty()) {
                Some(refused) => Err(refused.into()),
                None => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// The clients for hosts that others named, by where those lie.
#[derive(Clone)]
pub(crate) struct Guards {
    settings: Settings,
    lookup: Lookup,
    made: Arc<Mutex<HashMap<Reach, Client>>>,
}

impl Guards {
    /// Clients with these settings.
    pub(crate) fn new(settings: Settings, lookup: Lookup) -> Self {
        Self { settings, lookup, made: Arc::default() }
    }

    /// The address that an answer came from; none behind a proxy.
    pub(crate) fn address(&self, answer: &Response) -> Option<IpAddr> {
        let direct = self.settings.proxies.of(answer.url()).is_none();
        answer.remote_addr().filter(|_| direct).map(|address| address.ip())
    }

    /// The client for a URL that a server sends us to; none behind a proxy.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn client(&self, from: Reach, url: &Url) -> Result<Option<Client>> {
        if self.settings.proxies.of(url).is_some() {
            return Ok(None);
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&from) {
            return Ok(Some(client.clone()));
        }
        let client = self.settings.guarded(Guard { from, lookup: self.lookup })?;
        made.insert(from, client.clone());
        Ok(Some(client))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::time::Duration;

    use reqwest::Request;
    use reqwest_middleware::{ClientBuilder, Next};

    use super::super::client::Trust;
    use super::super::middleware::redirecting;
    use super::super::proxy::{Proxies, Proxy};
    use super::*;

    /// Names of the test: no request leaves for any of them unless it is this machine's.
    fn names(name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let addresses: &[&str] = match name.as_str() {
            "metadata.test" => &["169.254.169.254", "fe80::1"],
            "mapped.test" => &["::ffff:169.254.169.254"],
            "here.test" => &["127.0.0.1"],
            "both.test" => &["169.254.169.254", "127.0.0.1"],
            _ => &[],
        };
        let addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        async move { Ok(addresses) }.boxed()
    }

    fn settings() -> Settings {
        Settings {
            trust: Trust::default(),
            identity: None,
            proxies: Proxies::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Some(Duration::from_secs(5)),
            http1: true,
        }
    }

    /// A server on this machine that answers every request the same way; its port.
    fn server(answer: String) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("an address").port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        port
    }

    fn ok() -> u16 {
        server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".to_owned())
    }

    fn redirect(to: &str) -> u16 {
        server(format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"))
    }

    type Answer<'a> = std::pin::Pin<Box<dyn Future<Output = reqwest_middleware::Result<Response>> + Send + 'a>>;

    fn middleware<F>(closure: F) -> F
    where
        F: for<'a> Fn(Request, &'a mut http::Extensions, Next<'a>) -> Answer<'a> + Send + Sync + 'static,
    {
        closure
    }

    /// What becomes of a request to a channel that redirects it.
    async fn led(settings: Settings, to: &str) -> std::result::Result<String, String> {
        let client = settings.client().expect("a client");
        let guards = Guards::new(settings, names);
        let redirects = middleware(move |request, extensions, next| {
            let guards = guards.clone();
            Box::pin(async move { redirecting(request, extensions, next, &guards).await })
        });
        let client = ClientBuilder::new(client).with(redirects).build();
        let url = format!("http://127.0.0.1:{}/repodata.json", redirect(to));
        match client.get(url).send().await {
            Ok(answer) => Ok(answer.text().await.expect("a body")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn redirect_by_name_to_link_local_is_refused() {
        for name in ["metadata.test", "mapped.test"] {
            let error = led(settings(), &format!("http://{name}/latest")).await.expect_err(name);
            assert!(error.contains(name) && error.contains("link-local") && error.contains("127.0.0.1"), "{error}");
        }
        for name in ["here.test", "both.test"] {
            assert_eq!(led(settings(), &format!("http://{name}:{}/x", ok())).await.as_deref(), Ok("ok"), "{name}");
        }
    }

    #[tokio::test]
    async fn redirect_behind_proxy_is_the_proxys() {
        let port = ok();
        let proxy = Proxy::read(&format!("http://127.0.0.1:{port}"), "here".to_owned());
        let proxies = Proxies::new([("http".to_owned(), proxy)].into());
        let answer = led(Settings { proxies, ..settings() }, "http://metadata.test/latest").await;
        assert_eq!(answer.as_deref(), Ok("ok"), "the proxy answers for all names");
    }

    #[tokio::test]
    async fn addresses_are_judged_by_where_the_sender_lies() {
        let port = ok();
        for (from, name, expected) in [
            (Reach::World, "here.test", Some("a loopback address")),
            (Reach::Private, "here.test", Some("a loopback address")),
            (Reach::Loopback, "here.test", None),
            (Reach::World, "metadata.test", Some("a link-local address")),
            (Reach::Loopback, "metadata.test", Some("a link-local address")),
        ] {
            let url = Url::parse(&format!("http://{name}:{port}/")).expect("a URL");
            let client = Guards::new(settings(), names).client(from, &url).expect("a client").expect("no proxy");
            match (client.get(url).send().await, expected) {
                (Ok(_), None) => {}
                (Err(error), Some(what)) => {
                    let refused = Refused::of(&error).expect("is refused");
                    assert!(refused.to_string().contains(what) && refused.name() == name, "{refused}");
                }
                (answer, _) => panic!("{from:?} {name}: {answer:?}"),
            }
        }
    }
}
