//! The `condaimg` program; everything is in the library.

fn main() -> std::process::ExitCode {
    condaimg::sandbox::helper().unwrap_or_else(condaimg::cli::main)
}
