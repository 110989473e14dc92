//! Finding out how to talk to a registry: once, however many tasks want to know.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Mutex;

use super::host::Host;
use crate::http::retry::{Contact, Failure};

/// What is known of how one registry is talked to.
#[derive(Debug, Default)]
pub(super) struct Meeting {
    /// How many attempts to meet it are over.
    ended: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
enum Known {
    #[default]
    Nothing,
    Host(Arc<Host>),
    /// Why the last attempt failed.
    Problem(Failure),
}

impl Meeting {
    /// The host, met by `meet` if that was not done yet. Whoever waits for another's attempt shares its outcome:
    /// when nobody answers, all know after one time-out.
    pub(super) async fn host<F>(&self, meet: impl FnOnce() -> F) -> Result<Arc<Host>, Failure>
    where
        F: Future<Output = Result<Arc<Host>, Failure>>,
    {
        let ended = self.ended.load(Ordering::Acquire);
        let mut known = self.known.lock().await;
        match &*known {
            Known::Host(host) => return Ok(Arc::clone(host)),
            Known::Problem(failure) if self.ended.load(Ordering::Acquire) != ended => return Err(failure.shared()),
            Known::Problem(_) | Known::Nothing => {}
        }
        let met = meet().await.map_err(unmet);
        *known = match &met {
            Ok(host) => Known::Host(Arc::clone(host)),
            Err(failure) => Known::Problem(failure.shared()),
        };
        self.ended.fetch_add(1, Ordering::Release);
        met
    }
}

fn unmet(failure: Failure) -> Failure {
    match failure.contact {
        Contact::None => Failure { contact: Contact::Unmet, ..failure },
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::util::Error;

    #[tokio::test]
    async fn those_who_wait_share_a_failure_and_later_ones_try_again() {
        let (meeting, count) = (Meeting::default(), AtomicUsize::new(0));
        let fail = || async {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Err(Failure { contact: Contact::None, ..Failure::passing(Error::user("nobody is there")) })
        };
        for round in 1..=2 {
            let failures = futures::future::join_all((0..8).map(|_| meeting.host(fail))).await;
            for failure in failures {
                let failure = failure.expect_err("fails");
                assert_eq!((failure.error.to_string(), failure.contact), ("nobody is there".into(), Contact::Unmet));
            }
            assert_eq!(count.load(Ordering::Relaxed), round);
        }
        let host = Host { name: "r".into(), base: url::Url::parse("http://r").expect("a URL") };
        meeting.host(|| async { Ok(Arc::new(host)) }).await.expect("meets");
        meeting.host(fail).await.expect("is known");
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }
}
