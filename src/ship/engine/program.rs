//! Running other people's programs: asking, running to the end, and feeding.

use std::io::{self, BufWriter, Read as _, Write};
use std::process::{Command, ExitStatus, Stdio};

use crate::util::{Error, Result};

/// Bytes of what a program says that are kept.
const MOST_SAID: u64 = 64 * 1024;

/// What a program prints; nothing when it fails.
///
/// # Errors
/// When it cannot be run.
pub(super) fn ask(mut command: Command) -> Result<Option<String>> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_run(&command, error))?;
    let said = output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned());
    tracing::debug!(?command, status = %output.status, "asked");
    Ok(said)
}

/// What a program prints that must succeed.
///
/// # Errors
/// When it fails; what it said is the cause.
pub(super) fn run(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_run(&command, error))?;
    tracing::debug!(?command, status = %output.status, "ran");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(failed(&command, output.status, &output.stderr)),
    }
}

/// Runs a program that reads what `write` writes. When writing fails, the program is killed before its input ends: it
/// must not take a part for the whole.
///
/// # Errors
/// When the program fails; those of `write`.
pub(super) fn stream(mut command: Command, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| not_run(&command, error))?;
    let (Some(input), Some(errors)) = (child.stdin.take(), child.stderr.take()) else {
        return Err(Error::bug("a program was started without pipes"));
    };
    // Read meanwhile: a program that nobody listens to waits.
    let listening = std::thread::spawn(move || {
        let mut said = Vec::new();
        let mut errors = errors.take(MOST_SAID);
        let _ = errors.read_to_end(&mut said);
        let _ = io::copy(&mut errors.into_inner(), &mut io::sink());
        said
    });
    let mut input = Input { pipe: BufWriter::with_capacity(256 * 1024, input), hung_up: false };
    let written = write(&mut input);
    if written.is_err() && !input.hung_up {
        let _ = child.kill();
    }
    let hung_up = input.hung_up;
    // What is left in the buffer after a failure is not written.
    drop(input.pipe.into_parts());
    let status = child.wait().map_err(|error| not_run(&command, error))?;
    let said = listening.join().unwrap_or_default();
    tracing::debug!(?command, %status, "fed");
    match written {
        Err(error) if !hung_up => Err(error),
        _ if !status.success() => Err(failed(&command, status, &said)),
        // It had heard enough.
        _ => Ok(()),
    }
}

/// The input of a program; remembers whether the program closed it.
struct Input<W: Write> {
    pipe: BufWriter<W>,
    hung_up: bool,
}

impl<W: Write> Input<W> {
    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.hung_up |= result.is_err();
        result
    }
}

impl<W: Write> Write for Input<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.pipe.write(bytes);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.pipe.flush();
        self.note(result)
    }
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn not_run(command: &Command, error: io::Error) -> Error {
    Error::user(format!("`{}` cannot be run", name(command))).caused_by(error)
}

/// A program that failed, with what it said as the cause.
fn failed(command: &Command, status: ExitStatus, said: &[u8]) -> Error {
    let (name, said) = (name(command), String::from_utf8_lossy(said));
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let cause = match said.trim() {
        "" => format!("it ended with {status}"),
        said => said.to_owned(),
    };
    let hint = match name.as_str() {
        "docker" => "does its daemon run, and may you use it? `docker info` says; DOCKER_HOST names another one",
        "ctr" => "does containerd run, and may you use it (`ctr version`)? CONTAINERD_ADDRESS names another socket",
        _ => "does it work by itself? `podman info` says",
    };
    Error::user(format!("`{name} {}` failed", words.join(" "))).caused_by(io::Error::other(cause)).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        shell
    }

    fn told(result: Result<()>) -> String {
        result.expect_err("fails").chain().join(": ")
    }

    #[test]
    fn a_program_is_fed_to_its_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        let script = format!("cat >'{0}.part' && mv '{0}.part' '{0}'", path.display());
        let bytes = vec![7; 1 << 20];
        stream(shell(&script), |output| Ok(output.write_all(&bytes).and_then(|()| output.flush())?)).expect("feeds");
        assert_eq!(fs_err::read(&path).expect("reads"), bytes);
    }

    #[test]
    fn what_fails_on_either_side_is_told() {
        let zeros = |output: &mut dyn Write| Ok(io::copy(&mut io::repeat(0).take(1 << 24), output).map(drop)?);
        // The program's own words, not that its input broke.
        assert!(told(stream(shell("echo no space >&2; exit 3"), zeros)).contains("no space"));
        let noisy = "cat >/dev/null; head -c 1000000 /dev/zero >&2; exit 1";
        assert!(told(stream(shell(noisy), zeros)).contains("failed"));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("taken");
        let damaged = |output: &mut dyn Write| {
            output.write_all(b"a half")?;
            Err(Error::user("damaged"))
        };
        let script = format!("cat >/dev/null && touch '{}'", path.display());
        assert_eq!(told(stream(shell(&script), damaged)), "damaged");
        assert!(!path.exists(), "its input ended as if it were whole");
        assert!(told(stream(Command::new("condaimg-is-missing"), zeros)).contains("cannot be run"));
    }

    #[test]
    fn who_has_heard_enough_may_hang_up() {
        let zeros = |output: &mut dyn Write| Ok(io::copy(&mut io::repeat(0).take(1 << 24), output).map(drop)?);
        stream(shell("head -c 10 >/dev/null"), zeros).expect("succeeds");
        assert_eq!(ask(shell("echo yes")).expect("runs").as_deref(), Some("yes\n"));
        assert_eq!(ask(shell("exit 1")).expect("runs"), None);
    }
}
