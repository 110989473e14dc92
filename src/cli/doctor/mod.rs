//! `condaimg doctor`: tries out a registry, channels and this machine, and says what does not work and what to do.

mod base;
mod condarc;
mod default_base;
mod local;
mod report;
mod tools;

use clap::Args;

use super::args::{Global, RegistryArgs};
use super::terminal::{print_json, print_table};
use crate::model::BaseRef;
use crate::registry::{DEFAULT_REPOSITORY, Examination, Finding, Reference, Registry, RetryPolicy, State};
use crate::resolve::{Channels, Condarc, reach};
use crate::util::{Error, Result};
use report::{Report, Tried};

/// Requests that fail are repeated once only: somebody is waiting to be told.
const ATTEMPTS: u32 = 2;

/// Flags of `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// The registry to try, and a repository in it that may be written to [default: condaimg-doctor/probe]
    #[arg(value_name = "REGISTRY[/REPOSITORY]", env = "CONDAIMG_REGISTRY")]
    pub registry: Option<String>,
    /// Write nothing to the registry; finds out less
    #[arg(long, env = "CONDAIMG_READ_ONLY")]
    pub read_only: bool,
    /// A channel to look for (repeat for several)
    #[arg(short, long = "channel", value_name = "CHANNEL", env = "CONDAIMG_CHANNEL", value_delimiter = ',')]
    pub channels: Vec<String>,
    /// A base to look at: its C library, its layers, and what CI systems need
    #[arg(long, value_name = "BASE")]
    pub base: Option<String>,
    /// Read neither conda's configuration (condarc files, CONDA_ variables) nor the mirrors of rattler's and pixi's
    #[arg(long, env = "CONDAIMG_NO_CONDARC")]
    pub no_condarc: bool,
    /// Print JSON
    #[arg(long, env = "CONDAIMG_JSON")]
    pub json: bool,
    #[command(flatten)]
    pub registries: RegistryArgs,
}

/// Runs the command.
///
/// # Errors
/// When the registry cannot be pushed to (with `--read-only`: pulled from), a channel or the base cannot be reached, or the
/// cache cannot be written; after the report was printed.
pub async fn run(args: DoctorArgs, global: Global) -> Result<()> {
    let target = args.registry.as_deref().map(target).transpose()?;
    let base = args.base.as_deref().map(named_base).transpose()?;
    let mut report = Report { local: local::examine(&global), ..Report::default() };
    let condarc = if args.no_condarc { Condarc::default() } else { Condarc::read()? };
    report.local.extend(condarc::examine(&condarc, args.no_condarc)?);
    report.local.extend(tools::examine());
    report.local.push(default_base::examine(&args.registries).await);
    if !args.channels.is_empty() {
        report.channels = channels(&args.channels, &condarc).await?;
    }
    if let Some(base) = &base {
        report.base = base::examine(base, &args.registries, &global).await?;
    }
    if let Some(target) = &target {
        let mut options = args.registries.options([target]);
        options.retry = RetryPolicy { attempts: ATTEMPTS, ..options.retry };
        let examination = Registry::new(options)?.examine(target, args.read_only).await;
        report.registry = Some(Tried::new(target, examination));
    }
    if args.json { print_json(&report) } else { print_table(&report.text()) }?;
    verdict(&report)
}

/// A base as `build --base` takes it.
fn named_base(text: &str) -> Result<BaseRef> {
    Ok(match text.parse()? {
        BaseRef::Registry(reference) => BaseRef::Registry(Registry::parse(&reference)?.to_string()),
        local => local,
    })
}

/// The repository to try.
fn target(text: &str) -> Result<Reference> {
    let (registry, repository) = text.split_once('/').unwrap_or((text, ""));
    let wrong = |why: &str| {
        Error::usage(format!("`{text}` {why}")).hint("write it as `HOST[:PORT]` or `HOST[:PORT]/REPOSITORY`")
    };
    if text.contains("://") {
        return Err(wrong("is a URL"));
    }
    if !registry.contains(['.', ':']) && registry != "localhost" {
        return Err(wrong("does not begin with a registry's host").hint(format!("Docker Hub is `docker.io/{text}`")));
    }
    if repository.contains([':', '@']) {
        return Err(wrong("has a tag or a digest: a repository is enough"));
    }
    let repository = match repository.trim_end_matches('/') {
        "" => DEFAULT_REPOSITORY,
        some => some,
    };
    Registry::parse(&format!("{registry}/{repository}"))
}

async fn channels(texts: &[String], condarc: &Condarc) -> Result<Vec<Finding>> {
    let found = reach(&Channels::named(texts, condarc)?).await?;
    let finding = |(url, result): (url::Url, Result<&str>)| match result {
        Ok(index) => Finding { name: "channel", state: State::Ok, detail: format!("{url} has {index}"), advice: None },
        Err(error) => {
            let detail = format!("{url}: {}", error.chain().join(": "));
            let advice = error.hints().first().map(|&hint| hint.to_owned());
            Finding { name: "channel", state: State::No, detail, advice }
        }
    };
    Ok(found.into_iter().map(finding).collect())
}

/// The error that the exit status stands for, if any.
fn verdict(report: &Report) -> Result<()> {
    if let Some(Tried { registry, examination, .. }) = &report.registry
        && !usable(examination)
    {
        let obstacle = examination.obstacle();
        let why = obstacle.map_or_else(String::new, |it| format!(": {}: {}", it.name, it.detail));
        let error = Error::user(format!("the registry `{registry}` cannot be used{why}"));
        return Err(obstacle.and_then(|it| it.advice.clone()).into_iter().fold(error, Error::hint));
    }
    let failed = |name| {
        report
            .local
            .iter()
            .chain(&report.channels)
            .chain(&report.base)
            .find(move |it| it.name == name && it.state == State::No)
    };
    match failed("cache").or_else(|| failed("channel")).or_else(|| failed("base")) {
        Some(it) => {
            let error = Error::user(format!("{}: {}", it.name, it.detail));
            Err(it.advice.clone().into_iter().fold(error, Error::hint))
        }
        None => Ok(()),
    }
}

fn usable(examination: &Examination) -> bool {
    examination.can_push.unwrap_or(examination.can_pull)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_told_from_repositories() {
        for (text, registry, repository) in [
            ("127.0.0.1:5000", "127.0.0.1:5000", DEFAULT_REPOSITORY),
            ("localhost/", "localhost", DEFAULT_REPOSITORY),
            ("registry.example/team/env", "registry.example", "team/env"),
            ("[::1]:5000/env/", "[::1]:5000", "env"),
        ] {
            let target = target(text).expect(text);
            assert_eq!((target.registry(), target.repository()), (registry, repository));
        }
        for text in ["team/env", "https://registry.example", "registry.example/env:1", "registry.example/Env", ""] {
            assert_eq!(target(text).expect_err(text).kind(), crate::util::ErrorKind::Usage, "{text}");
        }
    }
}
