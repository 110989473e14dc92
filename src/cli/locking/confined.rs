//! What is told of the sandbox before code of packages runs.

use std::sync::Once;

use super::options::EnvironmentOptions;
use crate::sandbox;
use crate::util::report::SharedReporter;
use crate::util::{Error, Result};

/// Says once what the sandbox lacks on this machine.
///
/// # Errors
/// When there is no sandbox and `--require-sandbox` asks for one.
pub fn settle(options: &EnvironmentOptions, reporter: &SharedReporter) -> Result<()> {
    static TOLD: Once = Once::new();
    let found = sandbox::confinement()?;
    let Some(missing) = found.missing() else { return Ok(()) };
    if options.args.require_sandbox && !found.mechanism.is_sandbox() {
        return Err(Error::user("failed to make a sandbox for code of packages, which `--require-sandbox` asks for")
            .caused_by(std::io::Error::other(missing))
            .hint("allow user namespaces on this machine, or use a kernel with Landlock; see docs/sandbox.md")
            .hint("`--bytecode off` and `--no-build` run no code of packages"));
    }
    TOLD.call_once(|| {
        reporter.notice(&format!("sandbox: code of packages runs with {} ({missing})", found.mechanism.name()));
    });
    Ok(())
}
