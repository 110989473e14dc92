//! What registries answer when they do not do what they are asked for, in words.

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use super::credentials::{Found, login_hint};
use crate::http::proxy::{self, Proxies};
use crate::http::retry::{Again, Contact, Failure};
use crate::http::trouble::Hints;
use crate::http::wire::explanation;
use crate::util::{Error, redact};

/// What to do when a registry cannot be spoken to.
pub(super) const HINTS: Hints = Hints {
    consent: "--insecure-registry",
    plain: "if it is to be spoken to over plain http, name it by `--insecure-registry`",
    certificate: "give one by `--registry-cert` and `--registry-key`, or as `client.cert` and `client.key` in `~/.config/containers/certs.d/HOST:PORT/`",
    authority: "name a file with the authority's certificate by `--registry-ca`; if no authority is known at all, install `ca-certificates`",
    other_certificate: "the registry's certificate must be put right",
};

/// The failure that an answer with an unwelcome status is.
pub(super) async fn failure(whom: &str, answer: Response) -> Failure {
    if answer.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        && let Some(proxy) = Proxies::default().of(answer.url())
    {
        return proxy::refuses(whom, &proxy);
    }
    let (status, again) = (answer.status(), Again::of(answer.status(), answer.headers()));
    let target = answer.headers().get(LOCATION).filter(|_| status.is_redirection());
    let target = target.and_then(|target| Some(redact::within(target.to_str().ok()?)));
    let failure = unwelcome(whom, status, again, &explanation(answer).await);
    match target {
        Some(target) => {
            let hint = format!("it leads to `{target}`, where this request must not follow: name that registry");
            Failure { error: failure.error.hint(hint), ..failure }
        }
        None => failure,
    }
}

/// Whether the registry lacks something that a manifest names.
pub(super) fn lacks_a_part(failure: &Failure) -> bool {
    failure.code.as_deref().is_some_and(says_missing)
}

/// An answer that is not what was hoped for.
fn unwelcome(whom: &str, status: StatusCode, again: Again, body: &[u8]) -> Failure {
    let said = registry_message(body);
    let mut error = Error::user(match &said {
        Some(said) => format!("{whom} answered {status}: {said}"),
        None => format!("{whom} answered {status}"),
    });
    if let Some(hint) = advice(status, said.as_deref().unwrap_or_default()) {
        error = error.hint(hint);
    }
    Failure { error, again, contact: Contact::Answered(status), code: registry_code(body) }
}

/// The registry wants other credentials, or credentials at all.
pub(super) fn refused(registry: &str, wanted: &str, status: StatusCode, body: &[u8], found: &Found) -> Failure {
    let said = registry_message(body).map(|said| format!(": {said}")).unwrap_or_default();
    let message = format!("the registry `{registry}` refuses to let us {wanted} ({status}{said}), {}", found.tried());
    Failure {
        error: Error::user(message).hint(login_hint(registry)),
        again: Again::Never,
        contact: Contact::Answered(status),
        code: registry_code(body),
    }
}

fn advice(status: StatusCode, said: &str) -> Option<&'static str> {
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Some(
            "the registry, or a proxy in front of it, limits the size of an upload: raise the limit there, or make smaller layers",
        ),
        StatusCode::NOT_FOUND if said.contains("NAME_UNKNOWN") => {
            Some("check the name; some registries want a repository to be created before the first push")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            Some("the registry limits how much may be asked; logging in often raises the limit")
        }
        StatusCode::INTERNAL_SERVER_ERROR => Some("the registry's own log says why; often its disk is full"),
        StatusCode::INSUFFICIENT_STORAGE => Some("the registry's disk or quota is full"),
        _ => None,
    }
}

/// The registry's own words: `{"errors": [{"code", "message"}]}` (distribution-spec, error codes), or what token
/// servers say instead.
pub(super) fn registry_message(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Entry {
        code: Option<String>,
        message: Option<String>,
    }
    #[derive(Deserialize)]
    struct Answer {
        errors: Option<Vec<Entry>>,
        error_description: Option<String>,
        details: Option<String>,
        message: Option<String>,
        error: Option<String>,
    }
    let text = match serde_json::from_slice::<Answer>(body) {
        Ok(answer) => match answer.errors {
            Some(errors) => errors
                .into_iter()
                .map(|entry| [entry.code, entry.message].into_iter().flatten().collect::<Vec<_>>().join(": "))
                .collect::<Vec<_>>()
                .join("; "),
            None => answer.error_description.or(answer.details).or(answer.message).or(answer.error)?,
        },
        Err(_) => {
            let text = std::str::from_utf8(body).ok()?.trim();
            // A proxy's page or a structure of another shape says nothing to a reader.
            if text.starts_with(['<', '{', '[']) {
                return None;
            }
            text.lines().next()?.to_owned()
        }
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect();
    (!text.trim().is_empty()).then(|| text.trim().to_owned())
}

/// The error code of the registry's answer (`BLOB_UNKNOWN`): of several the one that says that something is not there, else
/// the first. (CNCF distribution says `DIGEST_INVALID` before it while somebody else writes the blob's link.)
pub(super) fn registry_code(body: &[u8]) -> Option<String> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let errors = answer.get("errors")?.as_array()?;
    let code = |error: &serde_json::Value| error.get("code")?.as_str().map(str::to_owned);
    let missing = errors.iter().filter_map(code).find(|code| says_missing(code));
    missing.or_else(|| code(errors.first()?))
}

/// Whether a code says that a blob is not there (distribution-spec, error codes; some say it of a manifest's parts as they
/// say it of a blob that is asked for).
pub(super) fn says_missing(code: &str) -> bool {
    code.to_ascii_uppercase().ends_with("BLOB_UNKNOWN")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_with_a_way_out() {
        let hints = |status: u16, code: &str| {
            let body = format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#);
            let failure =
                unwelcome("it", StatusCode::from_u16(status).expect("a status"), Again::Never, body.as_bytes());
            assert_eq!(failure.code.as_deref(), Some(code));
            failure.error.hints().join("; ")
        };
        for (status, code, hint) in [
            (404, "NAME_UNKNOWN", "to be created before the first push"),
            (404, "BLOB_UNKNOWN", ""),
            (413, "SIZE_INVALID", "raise the limit"),
            (429, "TOOMANYREQUESTS", "limits how much"),
            (500, "UNKNOWN", "disk is full"),
        ] {
            assert!(hints(status, code).contains(hint), "{status} {code}");
        }
    }

    #[test]
    fn of_several_codes_that_counts_which_says_that_something_is_missing() {
        for (codes, expected) in [
            (r#"[{"code":"DIGEST_INVALID"},{"code":"MANIFEST_BLOB_UNKNOWN"}]"#, Some("MANIFEST_BLOB_UNKNOWN")),
            (r#"[{"code":"DIGEST_INVALID"},{"code":"UNKNOWN"}]"#, Some("DIGEST_INVALID")),
            (r#"[{"message":"no"}]"#, None),
            ("[]", None),
        ] {
            assert_eq!(registry_code(format!(r#"{{"errors":{codes}}}"#).as_bytes()).as_deref(), expected, "{codes}");
        }
    }

    #[test]
    fn registries_are_quoted() {
        for (body, expected) in [
            (r#"{"errors":[{"code":"DENIED","message":"no\u001b[0m","detail":{}}]}"#, Some("DENIED: no [0m")),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, Some("A; b")),
            (r#"{"errors":[]}"#, None),
            (r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password")),
            (
                "Client sent an HTTP request to an HTTPS server.\n",
                Some("Client sent an HTTP request to an HTTPS server."),
            ),
            ("<html>busy</html>", None),
            ("", None),
        ] {
            assert_eq!(registry_message(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[tokio::test]
    async fn redirects_not_followed_tell_their_target() {
        let answer = http::Response::builder().status(302).header(LOCATION, "https://u:hush@other/v2/x?key=hush");
        let failure = failure("`host`", answer.body("").expect("an answer").into()).await;
        assert!(failure.error.to_string().contains("302"), "{}", failure.error);
        assert!(failure.error.hints().concat().contains("`https://other/v2/x`"), "{:?}", failure.error.hints());
    }
}
