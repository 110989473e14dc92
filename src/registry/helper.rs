//! Programs that keep credentials (`docker-credential-*`; docker's credential helper protocol).

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::credentials::{Login, Secret};
use crate::util::variables::withhold;

/// No helper may take longer: one that waits for somebody to type must not stop a build for ever.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a helper is looked after.
const TICK: Duration = Duration::from_millis(10);
/// No answer is longer.
const MAX_ANSWER: u64 = 1024 * 1024;
/// In place of a user: the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What helpers write when they have nothing; some of them with other words behind it.
const NOTHING: &str = "credentials not found";

/// Asks `docker-credential-NAME` for the login to a server; none when it knows none.
///
/// # Errors
/// What to tell of a helper that fails. Nothing that it wrote is in there: that may be a secret.
pub(super) fn login(name: &str, server: &str) -> Result<Option<Login>, String> {
    let program = format!("docker-credential-{name}");
    if name.is_empty() || name.contains('/') {
        return Err(format!("`{program}` is no name of a program"));
    }
    let mut command = Command::new(&program);
    withhold(&mut command);
    ask(command, server, PATIENCE).map_err(|problem| format!("`{program}` {problem}"))
}

fn ask(mut program: Command, server: &str, patience: Duration) -> Result<Option<Login>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    program.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = program.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is not there".to_owned(),
        other => format!("cannot be run: {other}"),
    })?;
    let answered = converse(&mut child, server, patience);
    if answered.is_err() {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
    }
    let (succeeded, how, output) = answered?;
    if !succeeded {
        if String::from_utf8_lossy(&output).contains(NOTHING) {
            return Ok(None);
        }
        return Err(format!("failed ({how}); to see why, run it by hand with `get`, and `{server}` as input"));
    }
    let answer: Answer =
        serde_json::from_slice(&output).map_err(|_| "gave an answer that makes no sense".to_owned())?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Login::Identity(Secret::new(secret))),
        (_, secret) => Some(Login::Password { username: answer.username, password: Secret::new(secret) }),
    })
}

/// Whether it succeeded, how it ended, and what it wrote.
fn converse(child: &mut Child, server: &str, patience: Duration) -> Result<(bool, String, Vec<u8>), String> {
    let deadline = Instant::now() + patience;
    let late = || format!("gave no answer within {} s and was stopped", patience.as_secs());
    if let Some(mut input) = child.stdin.take() {
        // One that does not read what it is asked for will say what is wrong with it.
        let _ = input.write_all(server.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // Half an answer is no answer, which is seen when it is read. Nobody may wait for it any longer.
            let _ = output.take(MAX_ANSWER).read_to_end(&mut bytes);
            let _ = sender.send(bytes);
        });
    }
    let left = || deadline.saturating_duration_since(Instant::now());
    // Its output may be held open by a process that it started: patience is for the two together.
    let output = receiver.recv_timeout(left()).map_err(|_| late())?;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok((status.success(), status.to_string(), output)),
            Ok(None) if left().is_zero() => return Err(late()),
            Ok(None) => std::thread::sleep(TICK),
            Err(error) => return Err(format!("cannot be waited for: {}", error.kind())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a helper that is this script.
    fn of_script(script: &str, patience: Duration) -> Result<Option<Login>, String> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "helper"]);
        ask(shell, "r.example", patience)
    }

    fn told(script: &str) -> String {
        of_script(script, PATIENCE).expect_err("fails")
    }

    #[test]
    fn helpers_are_asked() {
        let script =
            r#"[ "$1" = get ] && [ "$(cat)" = r.example ] && echo '{"ServerURL":"x","Username":"u","Secret":"p"}'"#;
        let login = Login::Password { username: "u".into(), password: Secret::new("p") };
        assert_eq!(of_script(script, PATIENCE), Ok(Some(login)));
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(of_script(token, PATIENCE), Ok(Some(Login::Identity(Secret::new("t")))));
        for nothing in
            ["echo credentials not found in native keychain; exit 1", r#"echo '{"Username":"","Secret":""}'"#]
        {
            assert_eq!(of_script(nothing, PATIENCE), Ok(None), "{nothing}");
        }
    }

    #[test]
    fn failures_are_told_without_what_was_written() {
        let problem = told(r#"echo hush; echo hush >&2; exit 3"#);
        assert!(problem.contains("exit status: 3") && !problem.contains("hush"), "{problem}");
        let problem = told(r#"echo '{"Username":"hush"'"#);
        assert!(problem.contains("makes no sense") && !problem.contains("hush"), "{problem}");
        let problem = login("condaimg-is-missing", "r.example").expect_err("missing");
        assert_eq!(problem, "`docker-credential-condaimg-is-missing` is not there");
        assert!(login("../x", "r.example").expect_err("a path").contains("no name"));
    }

    #[test]
    fn helpers_that_hang_are_stopped() {
        // Alone, with its output closed, and with another process at its output.
        for script in ["exec sleep 600", "exec >&-; exec sleep 600", "sleep 30 & exit 0"] {
            let began = Instant::now();
            let problem = of_script(script, Duration::from_secs(1)).expect_err("hangs");
            assert!(problem.contains("within 1 s"), "{problem}");
            assert!(began.elapsed() < Duration::from_secs(20), "{script}");
        }
    }
}
