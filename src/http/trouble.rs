//! What goes wrong between a request and its answer, in words; and whether another try may help.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;

use super::guard::Refused;
use super::proxy::{self, Proxies};
use super::retry::{Again, Contact, Failure};
use crate::util::Error;

/// What to do about troubles: the flags and files that are for one kind of server.
#[derive(Debug)]
pub(crate) struct Hints {
    /// The flag that allows a host that another server names.
    pub(crate) consent: &'static str,
    /// A server that does not speak TLS.
    pub(crate) plain: &'static str,
    /// A server that wants a certificate of ours.
    pub(crate) certificate: &'static str,
    /// A certificate of an unknown authority.
    pub(crate) authority: &'static str,
    /// A certificate that is wrong in another way.
    pub(crate) other_certificate: &'static str,
}

/// Whether a request that got no answer may get one next time: a certificate is not better the second time, and no
/// more is a request that cannot be made or that leads round in circles.
pub(crate) fn passes(error: &reqwest::Error) -> bool {
    let is_tls = tls_alert(error).is_some() || tls_problem(error).is_some();
    (error.is_connect() || error.is_timeout() || error.is_request()) && !is_tls && Refused::of(error).is_none()
}

/// No answer, or half of one. `whom` is a noun phrase ("the registry `h`").
pub(crate) fn unanswered(whom: &str, error: reqwest::Error, hints: &Hints) -> Failure {
    if let Some(refused) = Refused::of(&error) {
        let hint = format!("if that is right, allow it with `{} {}`", hints.consent, refused.name());
        let error = Error::user(format!("{whom} {refused}")).hint(hint);
        return Failure { error, again: Again::Never, contact: Contact::Broken, code: None };
    }
    let url = error.url().cloned();
    let proxy = url.as_ref().and_then(|url| Proxies::default().of(url));
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
        return unwanted(whom, alert, hints);
    }
    if contact == Contact::None && matches!(tls_error(&error), Some(rustls::Error::InvalidMessage(_))) {
        let error = Error::user(format!("{whom} does not speak TLS"));
        return Failure { error: error.hint(hints.plain), again: Again::Never, contact: Contact::Broken, code: None };
    }
    // A certificate is not better the second time.
    if let Some((why, is_unknown)) = tls_problem(&error) {
        let hint = if is_unknown { hints.authority } else { hints.other_certificate };
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
        failure.error = failure.error.hint(proxy::misunderstanding(variable));
    }
    failure
}

/// The server ended the TLS connection since it does not like who we are.
fn unwanted(whom: &str, alert: AlertDescription, hints: &Hints) -> Failure {
    let text =
        format!("{whom} refuses our TLS connection ({alert:?}): it seems to want a client certificate that it trusts");
    let error = Error::user(text).hint(hints.certificate);
    Failure { error, again: Again::Never, contact: Contact::Unwanted, code: None }
}

/// Nothing came for too long.
pub(crate) fn silent(whom: &str, patience: Duration) -> Failure {
    let seconds = patience.as_secs();
    Failure::passing(Error::user(format!("lost the connection to {whom}: nothing came for {seconds} s")))
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

/// What is wrong with a server's certificate, and whether it is that nobody knows who signed it.
fn tls_problem(error: &(dyn StdError + 'static)) -> Option<(String, bool)> {
    use rustls::CertificateError::{Other, UnknownIssuer};
    let rustls::Error::InvalidCertificate(problem) = tls_error(error)? else { return None };
    match problem {
        // `Other` is what webpki has against a certificate that is its own authority.
        UnknownIssuer | Other(_) => {
            Some(("its certificate is of an authority that is not known here".to_owned(), true))
        }
        other => Some((other.to_string(), false)),
    }
}
