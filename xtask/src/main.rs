//! The project's own commands: `cargo xtask <command>`.

mod bench;
mod ci;
mod codegen;
mod debian;
mod image;
mod install;
mod layout;
mod metadata;
mod process;
mod quickstart;
mod test_tools;
mod tidy;
mod vm;

use std::process::ExitCode;

use anyhow::{Context, bail};

const HELP: &str = "\
cargo xtask <command>

  ci [STAGE...]          everything that a change has to pass, or only some stages of it
  tidy [--verbose]       the project's own rules, without compiling anything
  codegen [--check]      writes the generated sources, or compares them
  test-tools             brings what the tests need
  quickstart             builds mainstay and runs a pod with it, once
  bench [--pods] [--api] [--scale] [--upkeep]
                         measures what SPECIFICATION.md promises, or of it starts and memory of pods, what
                         the API does, many nodes and pods, or probes, logs and a short disk
        [--alone] [--quick] [--programs=DIR]
                         measures nobody besides; does little of it; takes the programs that are in DIR
  layout                 notes in which order the agent's functions run, for how they lie in memory
  vm [--seed=|--driver=]  installs mainstay on Debian's kernel with systemd, reboots, cuts its power
  install [--prefix DIR] builds mainstay and installs it below DIR (/usr/local) and DESTDIR";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    // From here on every path is relative to the top directory, as it is in messages.
    let top = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let top = std::fs::canonicalize(top).with_context(|| format!("cannot find {top}"))?;
    std::env::set_current_dir(&top).with_context(|| format!("cannot enter {}", top.display()))?;
    match arguments {
        ["ci", stages @ ..] => ci::run(stages),
        ["tidy"] => tidy::run(tidy::Report::Findings),
        ["tidy", "--verbose"] => tidy::run(tidy::Report::LargeFilesToo),
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["bench", options @ ..] => bench::run(options),
        ["vm", options @ ..] => vm::run(options),
        ["layout"] => layout::write(),
        // Called by rustc.
        ["link", arguments @ ..] => layout::link(arguments),
        ["test-tools"] => test_tools::bring(),
        ["quickstart"] => quickstart::run(),
        ["install"] => install::run("/usr/local"),
        ["install", "--prefix", prefix] => install::run(prefix),
        ["install", option] if option.starts_with("--prefix=") => {
            install::run(option.trim_start_matches("--prefix="))
        }
        [] | ["help" | "--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("there is no command `{}`\n\n{HELP}", other.join(" ")),
    }
}
