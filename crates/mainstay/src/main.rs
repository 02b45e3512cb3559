//! The mainstay command.

mod api;
mod cli;
mod config;
mod instance;
mod logging;
mod systemd;
mod wiring;

use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// It gives back what a burst of pods has needed; `.cargo/config.toml` says how it works.
#[global_allocator]
static HEAP: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    match cli.run() {
        Ok(code) => code,
        Err(error) => {
            // The chain in one line: each level adds what the one above does not say.
            eprintln!("mainstay: {error:#}");
            ExitCode::FAILURE
        }
    }
}
