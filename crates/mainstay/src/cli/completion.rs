//! `mainstay completion`

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Print a script that completes mainstay's commands in a shell.
///
/// For bash: mainstay completion bash > /etc/bash_completion.d/mainstay
#[derive(Debug, Args)]
pub(super) struct Completion {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub(super) fn run(self) -> ExitCode {
        let mut command = super::Cli::command();
        clap_complete::generate(self.shell, &mut command, "mainstay", &mut std::io::stdout());
        ExitCode::SUCCESS
    }
}
