//! A token server for a real registry (distribution's "token authentication" and its OAuth 2 variant): it signs
//! tokens that the registry checks, and remembers who asked for what.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use serde_json::json;
use url::form_urlencoded;

use super::certificates;
use super::registry::{Fake, PASSWORD, Reply, Request, USER};

/// The only user's identity token ("refresh token"); must never be seen in a message.
pub const IDENTITY: &str = "1dent1ty-t0ken";
/// Who the registry must believe.
pub const ISSUER: &str = "test-issuer";
/// What the registry calls itself.
pub const SERVICE: &str = "test registry";
/// The registry takes tokens so long after their end (distribution, `token.Leeway`).
const LEEWAY: u64 = 60;

/// Who asked for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Anonymous,
    /// By `GET` with user and password.
    Password,
    /// By `POST` with the identity token.
    Identity,
    /// With something that is not right.
    Stranger,
}

/// A request for a token.
#[derive(Debug, Clone)]
pub struct Asked {
    pub who: Who,
    pub scopes: Vec<String>,
    pub service: String,
}

/// What the server does; a test may change it at any time.
#[derive(Debug)]
struct Rules {
    told: Option<u64>,
    life: Duration,
    open: BTreeSet<String>,
    limits: BTreeMap<String, String>,
    posts: bool,
    asked: Vec<Asked>,
    tokens: Vec<String>,
}

/// A running token server on loopback. The user may do everything and nobody else anything, until told otherwise.
pub struct TokenServer {
    fake: Fake,
    rules: Arc<Mutex<Rules>>,
}

impl TokenServer {
    /// Starts one; the certificate that the registry must trust is `tokens.crt` in the folder afterwards.
    pub fn start(folder: &Path) -> Self {
        certificates::for_tokens(folder);
        let key = PrivateKeyDer::from_pem_file(folder.join("tokens.key")).expect("a key");
        let key = rustls::crypto::ring::sign::any_supported_type(&key).expect("an RSA key");
        let certificate = CertificateDer::from_pem_file(folder.join("tokens.crt")).expect("a certificate");
        let rules = Arc::new(Mutex::new(Rules {
            told: Some(60),
            life: Duration::from_secs(60),
            open: BTreeSet::new(),
            limits: BTreeMap::new(),
            posts: true,
            asked: Vec::new(),
            tokens: Vec::new(),
        }));
        let shared = Arc::clone(&rules);
        let fake = Fake::start(move |_, request| {
            let mut rules = shared.lock().expect("locks");
            answer(&mut rules, request, |claims| sign(&*key, &certificate, claims))
        });
        Self { fake, rules }
    }

    /// The URL to ask for tokens.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.fake.host)
    }

    /// How long tokens are good for, in seconds: as the server tells (if it does), and as the registry takes them.
    pub fn set_life(&self, told: Option<u64>, real: u64) {
        let mut rules = self.rules.lock().expect("locks");
        (rules.told, rules.life) = (told, Duration::from_secs(real));
    }

    /// Lets everybody pull from a repository.
    pub fn open(&self, repository: &str) {
        self.rules.lock().expect("locks").open.insert(repository.to_owned());
    }

    /// Lets the user do no more in a repository than these actions (`pull`, or nothing at all).
    pub fn limit(&self, repository: &str, actions: &str) {
        self.rules.lock().expect("locks").limits.insert(repository.to_owned(), actions.to_owned());
    }

    /// Answers no `POST`, as servers do that do not know OAuth 2.
    pub fn refuse_posts(&self) {
        self.rules.lock().expect("locks").posts = false;
    }

    /// The requests for tokens so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.rules.lock().expect("locks").asked.clone()
    }

    /// All tokens that were given out; must never be seen in a message.
    pub fn tokens(&self) -> Vec<String> {
        self.rules.lock().expect("locks").tokens.clone()
    }
}

fn answer(rules: &mut Rules, request: &Request, sign: impl Fn(&serde_json::Value) -> String) -> Reply {
    let (method, path) = request.line.split_once(' ').expect("a method");
    let query = match method {
        "POST" if !rules.posts => return (405, Vec::new(), Vec::new()),
        "POST" => request.body.as_slice(),
        _ => path.split_once('?').map_or("", |(_, query)| query).as_bytes(),
    };
    let pairs: Vec<(String, String)> = form_urlencoded::parse(query).into_owned().collect();
    let all = |name: &str| pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect();
    let [scopes, service]: [Vec<String>; 2] = ["scope", "service"].map(all);
    // In a form, the scopes are one field; in a query, a field each.
    let scopes: Vec<String> = scopes.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect();
    let who = who(method, request, &pairs);
    rules.asked.push(Asked { who, scopes: scopes.clone(), service: service.concat() });
    if who == Who::Stranger {
        return (401, Vec::new(), br#"{"details":"incorrect username or password"}"#.to_vec());
    }
    let access: Vec<_> = scopes.iter().filter_map(|scope| granted(rules, who, scope)).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({
        "iss": ISSUER, "aud": SERVICE, "sub": if who == Who::Anonymous { "" } else { USER },
        "iat": now, "nbf": now - 600, "exp": now + rules.life.as_secs() - LEEWAY,
        "jti": format!("{}", rules.tokens.len()), "access": access,
    });
    let token = sign(&claims);
    rules.tokens.push(token.clone());
    // OAuth 2 knows one name only, the older protocol both.
    let name = if method == "POST" { "access_token" } else { "token" };
    let mut body = json!({ name: token });
    if let Some(told) = rules.told {
        body["expires_in"] = told.into();
    }
    (200, vec![("content-type", "application/json".into())], body.to_string().into_bytes())
}

fn who(method: &str, request: &Request, pairs: &[(String, String)]) -> Who {
    let has = |name: &str, wanted: &str| pairs.iter().any(|(key, value)| key == name && value == wanted);
    let header = request.headers.get("authorization").map(String::as_str);
    match (method, header) {
        ("POST", None)
            if has("grant_type", "refresh_token")
                && has("refresh_token", IDENTITY)
                && pairs.iter().any(|(key, value)| key == "client_id" && !value.is_empty()) =>
        {
            Who::Identity
        }
        ("GET", None) => Who::Anonymous,
        ("GET", Some(header)) if header == basic(USER, PASSWORD) => Who::Password,
        _ => Who::Stranger,
    }
}

/// The value of an `Authorization` header.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// What of a scope (`repository:NAME:ACTION,...`) is granted.
fn granted(rules: &Rules, who: Who, scope: &str) -> Option<serde_json::Value> {
    let (rest, actions) = scope.rsplit_once(':')?;
    let (kind, name) = rest.split_once(':')?;
    let allowed = |action: &str| match who {
        Who::Anonymous => action == "pull" && rules.open.contains(name),
        _ => rules.limits.get(name).is_none_or(|limit| limit.split(',').any(|other| other == action)),
    };
    let actions: Vec<&str> = actions.split(',').filter(|action| allowed(action)).collect();
    (!actions.is_empty()).then(|| json!({"type": kind, "name": name, "actions": actions}))
}

/// A JSON web token (RFC 7515, RFC 7519), signed by RS256.
fn sign(key: &dyn SigningKey, certificate: &CertificateDer<'_>, claims: &serde_json::Value) -> String {
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(certificate)]});
    let [header, claims] = [&header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signer = key.choose_scheme(&[rustls::SignatureScheme::RSA_PKCS1_SHA256]).expect("an RSA key");
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signer.sign(message.as_bytes()).expect("signs")))
}
