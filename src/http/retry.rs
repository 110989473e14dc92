//! Trying again: which failures pass, how long to wait, when to give up.

use std::future::Future;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::util::{Error, Result, ResultExt as _};

/// Attempts at a server that never gave a sign of life: more likely a wrong name than a server that is
/// starting. With the default policy this takes at most 7.5 s, on average half of that.
const ATTEMPTS_UNMET: u32 = 5;

/// How often the reason of a failure may be mended at once (an expired token) before it counts as one that stays.
const MENDS: u32 = 2;

/// How often and how patiently requests are repeated.
///
/// The default outlives a server that is restarted: 12 attempts wait for 181 s at most and for 91 s on average,
/// and one in 5,000 is over within 30 s.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy {
    /// How often a request is made at most; 0 counts as 1.
    pub attempts: u32,
    /// The longest wait after the first failure; doubled after each further one.
    pub base: Duration,
    /// No wait that we choose is longer.
    pub cap: Duration,
    /// No wait that the server asks for (`Retry-After`) is longer.
    pub asked_cap: Duration,
    /// How many requests of one client may be repeated in all, so that a large push to a server that fails again
    /// and again ends. The default, 100, is enough for three restarts under four uploads, each of which needs some
    /// seven repetitions to last 30 s.
    pub budget: u32,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 12,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(30),
            asked_cap: Duration::from_secs(120),
            budget: 100,
        }
    }
}

/// A failed attempt, and whether another one makes sense.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) again: Again,
    pub(crate) contact: Contact,
    /// The error code in the server's answer, if its protocol has such codes.
    pub(crate) code: Option<String>,
}

/// How far an attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contact {
    /// There was no connection, and never has been one.
    Unmet,
    /// There was no connection.
    None,
    /// There was a connection, but the server's certificate was not accepted.
    Untrusted,
    /// There was a connection, but the server did not accept our certificate, or that we have none.
    Unwanted,
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
pub(crate) enum Again {
    /// It would fail again.
    Never,
    /// The reason is gone (an expired token was replaced).
    AtOnce,
    /// It may pass; the server may have said when.
    Later(Option<Duration>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::Never, contact: Contact::Elsewhere, code: None }
    }
}

impl Failure {
    /// A failure that may pass.
    pub(crate) fn passing(error: Error) -> Self {
        Self { error, again: Again::Later(None), contact: Contact::Broken, code: None }
    }

    /// Says what was being done.
    pub(crate) fn context(self, message: impl FnOnce() -> String) -> Self {
        let kind: Result<()> = Err(self.error);
        match kind.context(message) {
            Err(error) => Self { error, ..self },
            Ok(()) => Self { error: Error::bug("an error got lost"), ..self },
        }
    }

    /// The same, after which nobody tries again.
    fn for_good(self, message: impl FnOnce() -> String) -> Self {
        Self { again: Again::Never, ..self.context(message) }
    }

    /// The status that the server answered with.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self.contact {
            Contact::Answered(status) => Some(status),
            _ => None,
        }
    }

    /// Whether nobody knows what became of the request: the answer was lost, or a proxy stopped waiting for it.
    pub(crate) fn leaves_open(&self) -> bool {
        match self.contact {
            Contact::Broken => true,
            Contact::Answered(status) => matches!(status.as_u16(), 408 | 499 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// The same failure for somebody else who waited for the same thing.
    pub(crate) fn shared(&self) -> Self {
        let message = self.error.chain().join(": ");
        let error = match self.error.kind() {
            crate::util::ErrorKind::Usage => Error::usage(message),
            crate::util::ErrorKind::Bug => Error::bug(message),
            _ => Error::user(message),
        };
        let error = self.error.hints().into_iter().fold(error, Error::hint);
        Self { error, again: self.again, contact: self.contact, code: self.code.clone() }
    }
}

/// What came of one request (or of one series of them) so far.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    failed: u32,
    mended: u32,
}

/// The policy, and what one client spent of its budget.
#[derive(Debug)]
pub(crate) struct Retrier {
    policy: RetryPolicy,
    spent: AtomicU32,
}

impl Retrier {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, spent: AtomicU32::new(0) }
    }

    /// The same of which nothing is spent, with at most so many attempts.
    pub(crate) fn anew(&self, attempts: u32) -> Self {
        Self::new(RetryPolicy { attempts: self.policy.attempts.min(attempts), ..self.policy })
    }

    /// Runs `attempt` until it succeeds, fails for good, or has failed too often.
    pub(crate) async fn run<T, F>(&self, mut attempt: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut tries = Tries::default();
        loop {
            match attempt().await {
                Ok(value) => return Ok(value),
                Err(failure) => self.next(&mut tries, failure).await.map_err(|failure| failure.error)?,
            }
        }
    }

    /// Counts a failure and waits until the next attempt is due.
    ///
    /// # Errors
    /// The failure, when there will be none.
    pub(crate) async fn next(&self, tries: &mut Tries, failure: Failure) -> Result<(), Failure> {
        match failure.again {
            Again::Never => return Err(failure),
            Again::AtOnce if tries.mended < MENDS => {
                tries.mended += 1;
                return Ok(());
            }
            Again::AtOnce => return Err(failure.for_good(|| "gave up: logging in again does not help".to_owned())),
            Again::Later(_) => tries.failed += 1,
        }
        let failed = tries.failed;
        let unmet = failure.contact == Contact::Unmet;
        let limit = if unmet { self.policy.attempts.min(ATTEMPTS_UNMET) } else { self.policy.attempts };
        if failed >= limit {
            return Err(failure.for_good(|| format!("gave up after {failed} attempts")));
        }
        if self.spent.fetch_add(1, Ordering::Relaxed) >= self.policy.budget {
            return Err(failure.for_good(|| format!("gave up: the retry budget of {} is spent", self.policy.budget)));
        }
        let wait = self.policy.wait(failed, failure.again);
        tracing::debug!(error = %failure.error, ?wait, failed, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl RetryPolicy {
    /// How long to wait after so many failures: anything up to a limit that doubles ("full jitter", so that many
    /// clients that failed together do not come back together), but not before the server wants us.
    pub(crate) fn wait(&self, failed: u32, again: Again) -> Duration {
        let limit = self.base.saturating_mul(1 << (failed.max(1) - 1).min(16)).min(self.cap);
        match again {
            Again::Never | Again::AtOnce => Duration::ZERO,
            Again::Later(None) => limit.mul_f64(chance()),
            Again::Later(Some(asked)) => asked.min(self.asked_cap).max(limit.mul_f64(chance())),
        }
    }
}

/// A number between 0 and 1 that differs between processes and calls; no cryptography hangs on it.
pub(crate) fn chance() -> f64 {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    f64::from((random >> 32) as u32) / f64::from(u32::MAX)
}

/// Whether an answer with this status may be another one next time. 499 is what some proxies say when a
/// backend hung up.
pub(crate) fn passes(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 499)
        || status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

impl Again {
    /// Whether an answer may be another one next time, and when.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap) -> Self {
        if passes(status) { Self::Later(retry_after(headers)) } else { Self::Never }
    }
}

/// The wait that an answer asks for, in seconds or as a date in one of the three forms (RFC 9110, 10.2.3).
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let older = |form: &str| jiff::civil::DateTime::strptime(form, text).ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let date = jiff::fmt::rfc2822::parse(text).ok();
    let date = date.or_else(|| older("%A, %d-%b-%y %H:%M:%S GMT")).or_else(|| older("%a %b %e %H:%M:%S %Y"))?;
    let date = SystemTime::from(date.timestamp());
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: RetryPolicy = RetryPolicy {
        attempts: 3,
        base: Duration::from_millis(1),
        cap: Duration::from_millis(2),
        asked_cap: Duration::from_millis(2),
        budget: 100,
    };

    fn busy() -> Failure {
        Failure::passing(Error::user("busy"))
    }

    #[test]
    fn waits_grow_up_to_the_cap() {
        let policy = RetryPolicy { base: Duration::from_secs(1), cap: Duration::from_secs(10), ..Default::default() };
        for failed in 1..9 {
            let wait = policy.wait(failed, Again::Later(None));
            assert!(wait <= Duration::from_secs(1 << (failed - 1)).min(policy.cap), "{failed}: {wait:?}");
        }
        assert_eq!(policy.wait(1, Again::Later(Some(Duration::from_secs(3)))), Duration::from_secs(3));
        assert_eq!(policy.wait(1, Again::Later(Some(Duration::from_secs(3600)))), policy.asked_cap);
    }

    #[test]
    fn the_default_outlives_a_restart() {
        let policy = RetryPolicy::default();
        let total = || -> Duration { (1..policy.attempts).map(|failed| policy.wait(failed, Again::Later(None))).sum() };
        let totals: Vec<Duration> = std::iter::repeat_with(total).take(1000).collect();
        assert!(totals.iter().all(|total| *total <= Duration::from_millis(181_500)));
        let short = totals.iter().filter(|total| **total < Duration::from_secs(30)).count();
        // One in 5,000 is to be expected.
        assert!(short < 10, "{short} of 1000 give up within 30 s");
    }

    #[test]
    fn retry_after_is_read_in_all_forms() {
        let asked = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, reqwest::header::HeaderValue::from_static(text));
            retry_after(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Wednesday, 21-Oct-15 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Sun Nov  6 08:49:37 1994"), Some(Duration::ZERO));
        assert!(asked("Sunday, 06-Nov-50 08:49:37 GMT") > Some(Duration::from_secs(3600)));
        assert_eq!(asked("soon"), None);
    }

    async fn told(retrier: &Retrier, failure: impl Fn() -> Failure) -> (u32, String) {
        let mut count = 0;
        let result: Result<()> = retrier
            .run(|| {
                count += 1;
                std::future::ready(Err(failure()))
            })
            .await;
        (count, result.expect_err("fails").chain().join(": "))
    }

    #[tokio::test]
    async fn only_what_may_pass_is_tried_again() {
        let retrier = Retrier::new(QUICK);
        assert_eq!(told(&retrier, busy).await, (3, "gave up after 3 attempts: busy".into()));
        assert_eq!(told(&retrier, || Error::user("no").into()).await, (1, "no".into()));
        // What is mended again and again is not mended.
        let mended = || Failure { again: Again::AtOnce, ..busy() };
        assert_eq!(told(&retrier, mended).await, (3, "gave up: logging in again does not help: busy".into()));
        // Nobody waits long for whom nobody ever met.
        let retrier = Retrier::new(RetryPolicy { attempts: 12, ..QUICK });
        let unmet = || Failure { contact: Contact::Unmet, ..busy() };
        assert_eq!(told(&retrier, unmet).await, (ATTEMPTS_UNMET, "gave up after 5 attempts: busy".into()));
    }

    #[tokio::test]
    async fn all_requests_of_a_client_share_a_budget() {
        let retrier = Retrier::new(RetryPolicy { budget: 5, ..QUICK });
        for _ in 0..2 {
            assert_eq!(told(&retrier, busy).await.0, 3);
        }
        assert_eq!(told(&retrier, busy).await, (2, "gave up: the retry budget of 5 is spent: busy".into()));
        assert_eq!(told(&retrier, busy).await.0, 1);
    }

    #[test]
    fn a_shared_failure_says_the_same() {
        let failure = Failure::passing(Error::user("down").hint("start it")).context(|| "cannot ask".to_owned());
        let shared = failure.shared();
        assert_eq!(shared.error.to_string(), "cannot ask: down");
        assert_eq!((shared.error.hints(), shared.again), (vec!["start it"], failure.again));
    }
}
