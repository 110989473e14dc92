//! How long and how much is taken from servers of indexes. What was found of a server holds for the whole run: other
//! forms of its index would take as long again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Method, Request, Response};
use reqwest_middleware::{Error, Next, Result};
use url::Url;

use crate::http::watch::{Fault, Packing, Sizes, watched};
use crate::util::{Limit, redact};

/// Stalls of a server that are taken for accidents.
const ACCIDENTS: u32 = 1;

/// What is wrong with servers.
#[derive(Clone, Default)]
pub(in crate::resolve) struct Patience(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    /// By the URL.
    too_large: BTreeMap<String, Fault>,
    /// By the origin: how often, and the last one.
    stalled: BTreeMap<String, (u32, Fault)>,
}

impl Patience {
    fn note(&self, url: &Url, fault: &Fault) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = url.origin().ascii_serialization();
        match fault {
            Fault::TooLarge(..) => drop(known.too_large.insert(url.to_string(), fault.clone())),
            Fault::Stalled(_) => known.stalled.entry(origin).or_insert((0, fault.clone())).0 += 1,
            Fault::Silent(_) => drop(known.stalled.insert(origin, (ACCIDENTS + 1, fault.clone()))),
        }
    }

    fn fault(&self, url: &Url) -> Option<Fault> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = known.stalled.get(&url.origin().ascii_serialization());
        let stalled = stalled.filter(|(times, _)| *times > ACCIDENTS).map(|(_, fault)| fault);
        known.too_large.get(url.as_str()).or(stalled).cloned()
    }

    /// Sends a request, if nothing is known against its server; watches its answer.
    pub(in crate::resolve) async fn watch(
        self,
        request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> Result<Response> {
        let url = request.url().clone();
        if let Some(fault) = self.fault(&url) {
            return Err(Error::middleware(fault));
        }
        let is_get = request.method() == Method::GET;
        let patience = Duration::from_secs(Limit::AnswerSeconds.value());
        let Ok(answer) = tokio::time::timeout(patience, next.run(request, extensions)).await else {
            let fault = Fault::Silent(redact::url(&url));
            self.note(&url, &fault);
            return Err(Error::middleware(fault));
        };
        let answer = answer?;
        if !is_get {
            return Ok(answer);
        }
        let sizes = sizes(&url);
        Ok(watched(answer, sizes, Some(Arc::new(move |fault| self.note(&url, fault)))))
    }
}

/// How large what is at a URL may be.
fn sizes(url: &Url) -> Sizes {
    let path = url.path();
    let limit = if path.ends_with(".msgpack.zst") { Limit::Shard } else { Limit::Index };
    let packing = match path {
        path if path.ends_with(".zst") => Packing::Zstd,
        path if path.ends_with(".bz2") => Packing::Bzip2,
        _ => Packing::Plain,
    };
    Sizes { sent: Some(limit), unpacked: Some((limit, packing)) }
}
