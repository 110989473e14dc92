//! The command line: one file per subcommand, exit statuses, progress. What the library reports is drawn here and
//! nowhere else.

mod args;
mod build;
mod cache;
mod doctor;
mod lock;
mod locking;
mod plan;
mod progress;
mod summary;
mod transfer;
mod values;
mod warm;
mod world;

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::registry;
use crate::util::report::SharedReporter;
use crate::util::{Error, ErrorKind, Result, files};
use args::{Cli, Command, Global};
use progress::ProgressStyle;

/// Exit status of a defect: `EX_SOFTWARE` of sysexits.h.
const DEFECT: u8 = 70;

/// How long the end waits for registries to drop the uploads that were under way.
const CANCELLING: Duration = Duration::from_secs(3);

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    let command = args::with_variables(Cli::command());
    let cli = match command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help to standard output and mistakes to standard error.
            let status = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(status);
        }
    };
    install_panic_message();
    // Bars and log lines would write over each other.
    let bars = std::io::stderr().is_terminal() && cli.global.verbose == 0;
    let style = ProgressStyle::choose(cli.global.progress, bars);
    log_details(cli.global.verbose);
    let reporter = progress::reporter(style, &cli.global);
    match run(cli, &reporter) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, style),
    }
}

fn run(cli: Cli, reporter: &SharedReporter) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::user("the system refuses threads").caused_by(error))?;
    let result = runtime.block_on(async {
        let result = tokio::select! {
            result = dispatch(cli.command, cli.global, reporter) => result,
            status = signal() => Err(Error::interrupted(status)),
        };
        // Whatever ended the work: no half of a blob is to stay in a registry.
        registry::uploads_cancelled(CANCELLING).await;
        result
    });
    if matches!(&result, Err(error) if matches!(error.kind(), ErrorKind::Interrupted(_))) {
        files::remove_unfinished();
    }
    // Threads that still pack for an ended build must not hold up the exit.
    runtime.shutdown_background();
    result
}

/// Writes what our own code traces to standard error. Nobody else's: an HTTP library logs whole URLs, and these may
/// hold a secret.
fn log_details(verbose: u8) {
    use tracing_subscriber::filter::{LevelFilter, Targets};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    let level = match verbose {
        0 => return,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).without_time();
    // Only a second subscriber could be refused.
    let _ = tracing_subscriber::registry().with(lines).with(Targets::new().with_target("condaimg", level)).try_init();
}

async fn dispatch(command: Command, global: Global, reporter: &SharedReporter) -> Result<()> {
    match command {
        Command::Build(args) => build::run(*args, global, Arc::clone(reporter)).await,
        Command::Lock(args) => lock::run(*args, global, Arc::clone(reporter)).await,
        Command::Plan(args) => plan::run(*args, global, Arc::clone(reporter)).await,
        Command::Warm(args) => warm::run(*args, global, reporter).await,
        Command::Push(args) => transfer::push(args, global, Arc::clone(reporter)).await,
        Command::Copy(args) => transfer::copy(args, global, Arc::clone(reporter)).await,
        Command::Cache(args) => cache::run(args, &global, reporter),
        Command::Doctor(args) => doctor::run(*args, global).await,
        Command::Schema => {
            let mut text = serde_json::to_vec_pretty(&crate::spec::schema())
                .map_err(|error| Error::bug("the schema has no JSON form").caused_by(error))?;
            text.push(b'\n');
            print_data(&text)
        }
        Command::Completions { shell } => {
            let mut command = Cli::command();
            // Into memory first: the generator panics when its output fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "condaimg", &mut script);
            print_data(&script)
        }
    }
}

/// Writes what a command is for to standard output. A reader that has gone away wants nothing more; any other
/// failure is one, since whoever relies on the output would not get it.
fn print_data(bytes: &[u8]) -> Result<()> {
    let mut output = std::io::stdout().lock();
    match output.write_all(bytes).and_then(|()| output.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(files::named(Path::new("standard output"), error))
        }
        _ => Ok(()),
    }
}

/// Waits for a signal that asks for the end; returns the exit status that belongs to it (128 and its number).
async fn signal() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => 130,
        _ = terminate.recv() => 143,
    }
}

fn fail(error: &Error, style: ProgressStyle) -> ExitCode {
    progress::print_error(error, style);
    ExitCode::from(match error.kind() {
        ErrorKind::User => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Bug => DEFECT,
        ErrorKind::Interrupted(status) => status,
    })
}

/// A panic is a defect: it says so, and where, and ends the process with the status of one, whichever thread it
/// is in.
fn install_panic_message() {
    std::panic::set_hook(Box::new(|panic| {
        progress::print_line(&format!(
            "error: a defect of condaimg: {panic}\n  hint: please report it with the command line"
        ));
        files::remove_unfinished();
        #[expect(clippy::exit, reason = "the status must tell a defect from a wrong input, from any thread")]
        std::process::exit(DEFECT.into());
    }));
}
