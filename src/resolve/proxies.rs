//! The proxies that conda's configuration names for channels' servers.

use super::condarc::Condarc;
use super::expand::expand;
use crate::http::proxy::{Proxies, Proxy};
use crate::util::{Error, Result, ResultExt as _};

/// `proxy_servers` of conda's configuration, which goes before the environment's, as conda's documentation has it.
///
/// # Errors
/// When one of them is not a URL.
pub(super) fn proxies(condarc: &Condarc) -> Result<Proxies> {
    let Some(said) = &condarc.proxies else { return Ok(Proxies::default()) };
    let named = format!("`proxy_servers` in {}", said.origin);
    let read = |(what, text): (&String, &Option<String>)| {
        let Some(text) = text.as_ref().filter(|text| !text.is_empty()) else { return Ok((what.clone(), None)) };
        let text = expand(text).context(|| format!("{named} cannot be used"))?;
        let proxy = Proxy::read(&text, named.clone()).ok_or_else(|| {
            Error::user(format!("{named}: the proxy for `{what}` is no URL"))
                .hint("write it as `http://USER:PASSWORD@HOST:PORT`, special characters as `%` codes")
        })?;
        Ok((what.clone(), Some(proxy)))
    };
    Ok(Proxies::new(said.value.iter().map(read).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_is_refused_without_its_password() {
        for text in ["http://u:hush/x@host:1", "http://", "http://u:hush#@host"] {
            let condarc = Condarc::of(&format!("proxy_servers: {{http: '{text}'}}")).expect("a condarc");
            let error = proxies(&condarc).err().unwrap_or_else(|| panic!("{text}")).to_string();
            assert!(error.contains("the proxy for `http` is no URL") && !error.contains("hush"), "{error}");
        }
    }

    #[test]
    fn a_proxy_says_where_it_is_named() {
        let condarc = Condarc::of("proxy_servers: {http: 'http://u:hush@one.example:1'}").expect("a condarc");
        let proxy = proxies(&condarc).expect("proxies").of(&"http://a.example".parse().expect("a URL"));
        let shown = proxy.map(|proxy| proxy.to_string());
        assert_eq!(shown.as_deref(), Some("the proxy `http://one.example:1` (`proxy_servers` in `test.yml`)"));
    }
}
