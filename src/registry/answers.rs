//! What went wrong on the wire, in words.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use reqwest::StatusCode;
use rustls::AlertDescription;
use serde::Deserialize;

use super::credentials::{Found, login_hint};
use super::proxy;
use super::retry::{Again, Contact, Failure, passes};
use crate::util::Error;

/// No answer, or half of one. `whom` is a noun phrase ("the registry `h`").
pub(super) fn unanswered(whom: &str, error: reqwest::Error) -> Failure {
    let url = error.url().cloned();
    let proxy = url.as_ref().and_then(proxy::of);
    // The URL may carry an upload's state or a signature.
    let error = error.without_url();
    if error.is_builder() {
        return Error::bug(format!("a request to {whom} cannot be made")).caused_by(error).into();
    }
    let (doing, contact) = match error.is_connect() {
        true => ("cannot reach", Contact::None),
        false => ("lost the connection to", Contact::Broken),
    };
    if let Some(alert) = tls_alert(&error) {
        return unwanted(whom, alert);
    }
    if contact == Contact::None && matches!(tls_error(&error), Some(rustls::Error::InvalidMessage(_))) {
        let error = Error::user(format!("{whom} does not speak TLS"));
        let hint = "if it is to be spoken to over plain http, name it by `--insecure-registry`";
        return Failure { error: error.hint(hint), again: Again::Never, contact: Contact::Broken, code: None };
    }
    // A certificate is not better the second time.
    if let Some((why, hint)) = tls_problem(&error) {
        let error = Error::user(format!("cannot trust {whom}: {why}")).hint(hint);
        return Failure { error, again: Again::Never, contact: Contact::Untrusted, code: None };
    }
    let cause = cause(&error);
    let mut failure = match &proxy {
        Some(proxy) => proxy::failure(doing, whom, proxy, &cause, contact),
        None => {
            let mut problem = Error::user(format!("{doing} {whom}: {cause}"));
            if contact == Contact::None {
                problem = problem.hint("check the host and the port, and that it is running");
            }
            Failure { error: problem, again: Again::Later(None), contact, code: None }
        }
    };
    if contact == Contact::None
        && let Some(variable) = url.as_ref().and_then(proxy::misunderstood)
    {
        failure.error = failure
            .error
            .hint(format!("`{variable}` is not a proxy's URL; write special characters in its password as `%` codes"));
    }
    failure
}

/// The server ended the TLS connection since it does not like who we are.
fn unwanted(whom: &str, alert: AlertDescription) -> Failure {
    let text =
        format!("{whom} refuses our TLS connection ({alert:?}): it seems to want a client certificate that it trusts");
    let error = Error::user(text).hint(
        "give one by `--registry-cert` and `--registry-key`, or as `client.cert` and `client.key` in `~/.config/containers/certs.d/HOST:PORT/`",
    );
    Failure { error, again: Again::Never, contact: Contact::Unwanted, code: None }
}

/// Nothing came for too long.
pub(super) fn silent(whom: &str, patience: Duration) -> Failure {
    let seconds = patience.as_secs();
    Failure::passing(Error::user(format!("lost the connection to {whom}: nothing came for {seconds} s")))
}

/// An answer that is not what was hoped for.
pub(super) fn unwelcome(whom: &str, status: StatusCode, asked_wait: Option<Duration>, body: &[u8]) -> Failure {
    let said = registry_message(body);
    let mut error = Error::user(match &said {
        Some(said) => format!("{whom} answered {status}: {said}"),
        None => format!("{whom} answered {status}"),
    });
    if let Some(hint) = advice(status, said.as_deref().unwrap_or_default()) {
        error = error.hint(hint);
    }
    let again = if passes(status) { Again::Later(asked_wait) } else { Again::Never };
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

/// The innermost reason, in as few words as it has.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    for error in causes(error) {
        deepest = error;
        if let Some(error) = error.downcast_ref::<io::Error>()
            && error.raw_os_error().is_some()
        {
            return error.kind().to_string();
        }
    }
    let text = deepest.to_string();
    // reqwest calls a connection that took too long this.
    if text == "operation timed out" || text == "deadline has elapsed" { "timed out".to_owned() } else { text }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| StdError::source(*error))
}

/// What an I/O error, or several of them, are wrapped around: `source` skips it.
fn unwrap<'a>(mut error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    while let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        error = inner;
    }
    error
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|error| unwrap(error).downcast_ref::<rustls::Error>())
}

/// The alert by which a server says that it wants a client certificate, or another one.
fn tls_alert(error: &(dyn StdError + 'static)) -> Option<AlertDescription> {
    use AlertDescription::{
        AccessDenied, BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked, CertificateUnknown,
        HandshakeFailure, UnknownCA, UnsupportedCertificate,
    };
    let rustls::Error::AlertReceived(alert) = tls_error(error)? else { return None };
    let ours = matches!(
        alert,
        AccessDenied
            | BadCertificate
            | CertificateExpired
            | CertificateRequired
            | CertificateRevoked
            | CertificateUnknown
            | HandshakeFailure
            | UnknownCA
            | UnsupportedCertificate
    );
    ours.then_some(*alert)
}

/// What is wrong with a server's certificate, and what to do.
fn tls_problem(error: &(dyn StdError + 'static)) -> Option<(String, &'static str)> {
    use rustls::CertificateError::{Other, UnknownIssuer};
    let rustls::Error::InvalidCertificate(problem) = tls_error(error)? else { return None };
    match problem {
        // `Other` is what webpki has against a certificate that is its own authority.
        UnknownIssuer | Other(_) => Some((
            "its certificate is of an authority that is not known here".to_owned(),
            "name a file with the authority's certificate by `--registry-ca`; if no authority is known at all, install `ca-certificates`",
        )),
        other => Some((other.to_string(), "the registry's certificate must be put right")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_with_a_way_out() {
        let hints = |status: u16, code: &str| {
            let body = format!(r#"{{"errors":[{{"code":"{code}","message":"no"}}]}}"#);
            let failure = unwelcome("it", StatusCode::from_u16(status).expect("a status"), None, body.as_bytes());
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
}
