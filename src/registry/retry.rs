//! Trying again: which failures pass, how long to wait, when to give up.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::util::{Error, Result, ResultExt as _};

/// How often and how patiently requests are repeated.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a request is made at most; 0 counts as 1.
    pub attempts: u32,
    /// The longest wait after the first failure; doubled after each further one.
    pub base: Duration,
    /// No wait is longer, also when the registry asks for it (`Retry-After`).
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 5, base: Duration::from_millis(500), cap: Duration::from_secs(60) }
    }
}

/// A failed attempt, and whether another one makes sense.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
    pub(super) contact: Contact,
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contact {
    /// There was no connection.
    None,
    /// There was a connection, but the server's certificate was not accepted.
    Untrusted,
    /// There was a connection, but no answer that could be understood.
    Broken,
    /// There was an answer: that https is wanted.
    WantsTls,
    /// There was an answer.
    Answered(StatusCode),
    /// The failure has nothing to do with a connection.
    Elsewhere,
}

/// Whether and when a failed attempt is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It would fail again.
    Never,
    /// The reason is gone (an expired token was replaced).
    AtOnce,
    /// It may pass; the registry may have said when.
    Later(Option<Duration>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::Never, contact: Contact::Elsewhere }
    }
}

impl Failure {
    /// A failure that may pass.
    pub(super) fn passing(error: Error) -> Self {
        Self { error, again: Again::Later(None), contact: Contact::Broken }
    }

    /// Says what was being done.
    pub(super) fn context(self, message: impl FnOnce() -> String) -> Self {
        let kind: Result<()> = Err(self.error);
        match kind.context(message) {
            Err(error) => Self { error, ..self },
            Ok(()) => Self { error: Error::bug("an error got lost"), ..self },
        }
    }
}

impl RetryPolicy {
    /// Runs `attempt` until it succeeds, fails for good, or has failed too often.
    pub(super) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut failed = 0;
        loop {
            let failure = match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            failed += 1;
            if failure.again == Again::Never {
                return Err(failure.error);
            }
            if failed >= self.attempts {
                return Err(failure.context(|| format!("gave up after {failed} attempts")).error);
            }
            let wait = self.wait(failed, failure.again);
            tracing::debug!(error = %failure.error, ?wait, failed, "trying again");
            tokio::time::sleep(wait).await;
        }
    }

    /// How long to wait after so many failures: what the registry asks for, else anything up to a limit that
    /// doubles ("full jitter", so that many clients that failed together do not come back together).
    fn wait(&self, failed: u32, again: Again) -> Duration {
        match again {
            Again::Never | Again::AtOnce => Duration::ZERO,
            Again::Later(Some(asked)) => asked.min(self.cap),
            Again::Later(None) => {
                let limit = self.base.saturating_mul(1 << (failed - 1).min(16)).min(self.cap);
                limit.mul_f64(chance())
            }
        }
    }
}

/// A number between 0 and 1 that differs between processes and calls; no cryptography hangs on it.
pub(super) fn chance() -> f64 {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

/// Whether an answer with this status may be another one next time. 499 is what some proxies say when a
/// backend hung up.
pub(super) fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 499) || status.is_server_error()
}

/// The wait that an answer asks for, in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = SystemTime::from(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_cap() {
        let policy = RetryPolicy { attempts: 9, base: Duration::from_secs(1), cap: Duration::from_secs(10) };
        for failed in 1..9 {
            let wait = policy.wait(failed, Again::Later(None));
            assert!(wait <= Duration::from_secs(1 << (failed - 1)).min(policy.cap), "{failed}: {wait:?}");
        }
        assert_eq!(policy.wait(1, Again::Later(Some(Duration::from_secs(3)))), Duration::from_secs(3));
        assert_eq!(policy.wait(1, Again::Later(Some(Duration::from_secs(3600)))), policy.cap);
    }

    #[test]
    fn retry_after_is_read_in_both_forms() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, reqwest::header::HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
    }

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy { attempts: 3, base: Duration::from_millis(1), cap: Duration::from_millis(2) };
        let mut count = 0;
        let result: Result<()> = policy
            .run(|| {
                count += 1;
                async { Err(Failure::passing(Error::user("busy"))) }
            })
            .await;
        assert_eq!(
            (count, result.expect_err("fails").chain().join(": ")),
            (3, "gave up after 3 attempts: busy".into())
        );

        let mut count = 0;
        let result: Result<()> = policy
            .run(|| {
                count += 1;
                async { Err(Error::user("no").into()) }
            })
            .await;
        assert_eq!((count, result.expect_err("fails").to_string()), (1, "no".to_owned()));
    }
}
