//! The `condaimg` program; everything is in the library.

fn main() -> std::process::ExitCode {
    condaimg::cli::main()
}
