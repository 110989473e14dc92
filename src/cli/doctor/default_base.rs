//! The base that builds take if nothing else is said: whether it can be had.

use std::time::Duration;

use tokio::time::timeout;

use super::local::{failed, finding};
use super::named_base;
use crate::cli::args::RegistryArgs;
use crate::cli::locking::options::DEFAULT_BASE;
use crate::cli::values::variable;
use crate::model::BaseRef;
use crate::registry::{Finding, Registry, RetryPolicy, State};
use crate::util::{Error, Result};

/// How long its registry is asked.
const LONGEST: Duration = Duration::from_secs(20);

/// Looks for the base that `CONDAIMG_BASE` names, else for the one that condaimg takes by itself.
pub async fn examine(registries: &RegistryArgs) -> Finding {
    let text = variable("CONDAIMG_BASE").unwrap_or_else(|| DEFAULT_BASE.to_owned());
    match look(&text, registries).await {
        Ok(detail) => finding("default-base", State::Ok, detail),
        Err(error) => {
            let advice = "name a base that can be reached with `--base`, `base:` in condaimg.yaml, or CONDAIMG_BASE";
            let found = failed("default-base", &error);
            let detail = format!("failed to reach `{text}`: {}", found.detail);
            Finding { advice: Some(advice.to_owned()), detail, ..found }
        }
    }
}

async fn look(text: &str, registries: &RegistryArgs) -> Result<String> {
    match named_base(text)? {
        BaseRef::Registry(reference) => {
            let reference = Registry::parse(&reference)?;
            let mut options = registries.options([]);
            options.retry = RetryPolicy { attempts: 1, ..options.retry };
            let registry = Registry::new(options)?;
            let asked = timeout(LONGEST, registry.find_manifest(&reference)).await;
            match asked.map_err(|_| Error::user(format!("no answer in {} seconds", LONGEST.as_secs())))?? {
                Some(found) => Ok(format!("{reference} ({})", found.digest)),
                None => Err(Error::user("the registry does not have it")),
            }
        }
        BaseRef::Scratch => Ok("scratch".to_owned()),
        local => match local.path().filter(|path| !path.exists()) {
            Some(path) => Err(Error::user(format!("there is no `{}`", path.display()))),
            None => Ok(local.to_string()),
        },
    }
}
