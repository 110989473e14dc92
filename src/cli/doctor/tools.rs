//! What builds call on this machine: uv and git for packages of pip, and the isolation of bytecode compilation.

use std::path::Path;
use std::process::{Command, Stdio};

use super::local::{failed, finding};
use crate::registry::{Finding, State};
use crate::resolve::pip;
use crate::sandbox;

/// How a machine lets condaimg have more of the sandbox.
const ADVICE: &str = "allow user namespaces (sysctl `user.max_user_namespaces`, `kernel.apparmor_restrict_unprivileged_userns`; in a container, a seccomp profile that allows them), or use `--bytecode off` and `--no-build`; see docs/sandbox.md";

/// Looks at everything.
pub fn examine() -> Vec<Finding> {
    vec![uv(), git(), sandbox()]
}

fn uv() -> Finding {
    let advice = "environments with `pip:` packages need it: `pip install uv`, or name it with CONDAIMG_UV";
    match pip::uv_program() {
        Ok(program) => version("uv", &program, advice),
        Err(_) => Finding { advice: Some(advice.to_owned()), ..finding("uv", State::No, "not in PATH".to_owned()) },
    }
}

fn git() -> Finding {
    version("git", Path::new("git"), "pip packages of git repositories need it: install git")
}

/// What a program says of itself.
fn version(name: &'static str, program: &Path, advice: &str) -> Finding {
    // It is asked for its version, which takes no secret of the environment.
    let passed = ["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    let output = command.arg("--version").env_clear().envs(passed).stdin(Stdio::null()).output();
    let no = |detail: String| Finding { advice: Some(advice.to_owned()), ..finding(name, State::No, detail) };
    match output {
        Ok(output) if output.status.success() => {
            let said = String::from_utf8_lossy(&output.stdout);
            let said: String = said.lines().next().unwrap_or_default().chars().take(100).collect();
            finding(name, State::Ok, format!("{said} (`{}`)", program.display()))
        }
        Ok(output) => no(format!("`{} --version` ended with {}", program.display(), output.status)),
        Err(error) => no(format!("failed to run `{}`: {error}", program.display())),
    }
}

/// What code of packages runs in here.
fn sandbox() -> Finding {
    let found = match sandbox::confinement() {
        Ok(found) => found,
        Err(error) => return failed("sandbox", &error),
    };
    let state = if found.mechanism.is_sandbox() { State::Ok } else { State::No };
    let detail = format!("code of packages runs with {}", found.mechanism.name());
    match found.missing() {
        None => finding("sandbox", state, detail),
        Some(missing) => {
            Finding { advice: Some(ADVICE.to_owned()), ..finding("sandbox", state, format!("{detail} ({missing})")) }
        }
    }
}
