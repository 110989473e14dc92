//! Something that a registry should have, and has not.

use std::fmt;

use crate::http::retry::Failure;
use crate::util::Error;

/// The cause of errors about a blob that a registry does not have (any more), or has with other bytes. Where the blob can
/// be made again, that helps; trying again does not.
#[derive(Debug)]
pub struct Gone(Error);

impl Gone {
    /// The same error, with this as its cause.
    pub(super) fn mark(error: Error) -> Error {
        Error::user(error.to_string()).caused_by(Self(error))
    }

    /// The same for a failure.
    pub(super) fn mark_failure(failure: Failure) -> Failure {
        Failure { error: Self::mark(failure.error), ..failure }
    }

    /// Whether an error has this as a cause.
    pub fn is_cause_of(error: &Error) -> bool {
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Gone {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::ResultExt as _;

    #[test]
    fn a_mark_changes_nothing_that_is_told() {
        let error = || Error::user("not there").hint("look elsewhere");
        let tell = |error: Error| {
            let result: crate::util::Result<()> = Err(error);
            result.context(|| "cannot push".to_owned()).expect_err("an error")
        };
        let (marked, plain) = (tell(Gone::mark(error())), tell(error()));
        assert_eq!(marked.chain(), plain.chain());
        assert_eq!(marked.hints(), plain.hints());
        assert_eq!((Gone::is_cause_of(&marked), Gone::is_cause_of(&plain)), (true, false));
    }
}
