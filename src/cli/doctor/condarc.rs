//! What conda's configuration says on this machine.

use super::local::finding;
use crate::registry::{Finding, State};
use crate::resolve::{Channels, Condarc};
use crate::util::Result;

/// Which files are read, which settings they decide, and what follows from them. Values that may hold a password are
/// not shown.
///
/// # Errors
/// When something of the configuration cannot be used.
pub fn examine(condarc: &Condarc, left_out: bool) -> Result<Vec<Finding>> {
    let ok = |detail: String| finding("condarc", State::Ok, detail);
    if left_out {
        return Ok(vec![ok("not read: `--no-condarc`".to_owned())]);
    }
    let mut findings: Vec<Finding> =
        condarc.files.iter().map(|file| ok(format!("{} is read", file.display()))).collect();
    let told = condarc.told();
    findings.extend(told.iter().map(|(setting, origin)| ok(format!("`{setting}` is set by {origin}"))));
    if findings.is_empty() {
        findings.push(ok("there is none".to_owned()));
    }
    findings.extend(condarc.notices.iter().cloned().map(ok));
    findings.extend(condarc.warnings.iter().map(|warning| finding("condarc", State::No, warning.clone())));
    let channels = Channels::named(&[], condarc)?;
    for (channel, mirrors) in channels.credentials.mirrors() {
        let mirrors: Vec<&str> = mirrors.iter().map(|mirror| mirror.as_str()).collect();
        findings.push(finding("mirror", State::Ok, format!("{channel} is asked at {}", mirrors.join(", "))));
    }
    for server in channels.credentials.token_servers()? {
        findings.push(finding("anaconda-token", State::Ok, format!("there is one for {server}")));
    }
    Ok(findings)
}
