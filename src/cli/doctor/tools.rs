//! What builds call on this machine: uv and git for packages of pip, and the isolation of bytecode compilation.

use std::path::Path;
use std::process::{Command, Stdio};

use super::local::{failed, finding};
use crate::pack::bytecode;
use crate::registry::{Finding, State};
use crate::resolve::pip;

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
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output();
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

fn sandbox() -> Finding {
    match bytecode::try_isolation() {
        Ok(()) => {
            finding("sandbox", State::Ok, "bytecode is compiled without network (`unshare --user --net`)".to_owned())
        }
        Err(error) => {
            let advice = "bytecode is compiled without isolation: install util-linux, and allow user namespaces (sysctl `kernel.unprivileged_userns_clone`, `user.max_user_namespaces`), or use `--bytecode off`";
            Finding { advice: Some(advice.to_owned()), ..failed("sandbox", &error) }
        }
    }
}
