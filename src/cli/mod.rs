//! The command line: one file per subcommand, exit statuses, progress. What the library reports is drawn here and
//! nowhere else.

mod args;
mod build;
mod cache;
mod doctor;
mod events;
mod lock;
mod locking;
mod plan;
mod progress;
mod summary;
mod terminal;
mod transfer;
mod values;
mod warm;
mod world;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::registry;
use crate::util::report::SharedReporter;
use crate::util::{Error, ErrorKind, Result, files, limits, variables as expansion};
use args::{Cli, Command, Global};
use progress::ProgressStyle;

/// Exit status of a defect: `EX_SOFTWARE` of sysexits.h.
const DEFECT: u8 = 70;

/// How long the end waits for registries to drop the uploads that were under way.
const CANCELLING: Duration = Duration::from_secs(3);

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    // Credentials are in this process's environment and memory: no other process of this user is to read them, and no
    // core dump is to hold them.
    let _ = nix::sys::prctl::set_dumpable(false);
    let parsed = args::parse(Cli::command(), std::env::args_os().collect());
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    // Bars and log lines would write over each other.
    let bars = std::io::stderr().is_terminal() && cli.global.verbose == 0;
    let style = ProgressStyle::choose(cli.global.progress, bars);
    install_panic_message(style);
    progress::log_details(cli.global.verbose, style);
    let reporter = progress::reporter(style, &cli.global);
    if !cli.global.expand_env.is_empty() {
        expansion::restrict(cli.global.expand_env.clone());
    }
    let (command, quiet) = (cli.command.name(), cli.global.quiet);
    if let Err(error) = set_limits(&cli.global.limits) {
        return fail(&error, style);
    }
    match run(cli, &reporter) {
        Ok(()) => {
            if style == ProgressStyle::Json && !quiet {
                progress::conclude(command);
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, style),
    }
}

/// Sets the limits of flags; without any, those of `CONDAIMG_LIMIT`, one a line or after a comma.
fn set_limits(flags: &[String]) -> Result<()> {
    let variable = values::variable("CONDAIMG_LIMIT").filter(|_| flags.is_empty()).unwrap_or_default();
    let texts = variable.split(['\n', ',']).map(str::trim).filter(|text| !text.is_empty());
    texts.chain(flags.iter().map(String::as_str)).try_for_each(limits::set)
}

/// Tells what is wrong with the command line, or prints the help that it asks for.
fn refuse(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && asks_for_json() {
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
        return fail(&Error::usage(text), ProgressStyle::Json);
    }
    // clap prints help to standard output and mistakes to standard error.
    let status = if error.use_stderr() { 2 } else { 0 };
    match error.use_stderr() {
        true => terminal::print_line(error.render().to_string().trim_end()),
        // Help is condaimg's own text.
        false => drop(error.print()),
    }
    ExitCode::from(status)
}

/// Whether a command line that cannot be parsed asks for JSON lines.
fn asks_for_json() -> bool {
    let arguments: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let by_flag = arguments.windows(2).any(|pair| pair[0] == "--progress" && pair[1] == "json");
    by_flag
        || arguments.iter().any(|argument| argument == "--progress=json")
        || values::variable("CONDAIMG_PROGRESS").is_some_and(|style| style == "json")
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
        Command::Schema => terminal::print_json(&crate::spec::schema()),
        Command::Completions { shell } => {
            let mut command = Cli::command();
            // Into memory first: the generator panics when its output fails.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command, "condaimg", &mut script);
            terminal::print_data(&script)
        }
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
    let status = match error.kind() {
        ErrorKind::User => 1,
        ErrorKind::Usage => 2,
        ErrorKind::Bug => DEFECT,
        ErrorKind::Interrupted(status) => status,
    };
    progress::print_error(error, status, style);
    ExitCode::from(status)
}

/// A panic is a defect: it says so, and where, and ends the process with the status of one, whichever thread it
/// is in.
fn install_panic_message(style: ProgressStyle) {
    std::panic::set_hook(Box::new(move |panic| {
        let error = Error::bug(panic.to_string()).hint("please report it with the command line");
        progress::print_error(&error, DEFECT, style);
        files::remove_unfinished();
        #[expect(clippy::exit, reason = "the status must tell a defect from a wrong input, from any thread")]
        std::process::exit(DEFECT.into());
    }));
}
