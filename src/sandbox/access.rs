//! Landlock: the files that a job may reach where it has no mount namespace.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::plan::{Access, Plan};
use super::system::DEVICES;
use crate::util::{Error, Result};

/// The newest rights that are asked for; older kernels have fewer.
const NEWEST: ABI = ABI::V6;

/// Restricts this process to the files of the plan.
///
/// # Errors
/// When the kernel has no Landlock.
pub(super) fn restrict(plan: &Plan) -> Result<()> {
    let status = rules(plan).map_err(|error| Error::user("failed to use Landlock").caused_by(error))?;
    match status {
        RulesetStatus::NotEnforced => Err(Error::user("the kernel has no Landlock")),
        _ => Ok(()),
    }
}

fn rules(plan: &Plan) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .set_compatibility(CompatLevel::BestEffort);
    for bind in &plan.binds {
        let access: BitFlags<AccessFs> = match bind.access {
            Access::Read => AccessFs::from_read(NEWEST),
            Access::Data => AccessFs::ReadFile | AccessFs::ReadDir,
            Access::Write => AccessFs::from_all(NEWEST) & !(AccessFs::MakeChar | AccessFs::MakeBlock),
        };
        ruleset = ruleset.add_rules(path_beneath_rules([&bind.source], access))?;
    }
    let devices = DEVICES.iter().map(Path::new).filter(|device| device.exists());
    ruleset = ruleset.add_rules(path_beneath_rules(devices, AccessFs::ReadFile | AccessFs::WriteFile))?;
    Ok(ruleset.restrict_self()?.ruleset)
}
