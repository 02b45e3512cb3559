//! `mainstay nfs`

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use mainstay_node::{NfsHelper, help_nfs};

/// Do something that may have to wait for an NFS server, so that the agent has not to.
#[derive(Debug, Args)]
pub(super) struct Nfs {
    /// What, as the agent says it.
    #[arg(allow_hyphen_values = true, trailing_var_arg = true)]
    task: Vec<OsString>,
}

impl Nfs {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let task =
            NfsHelper::parse(&self.task).context("the agent asks for nothing of the kind")?;
        match help_nfs(&task) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => {
                // For the agent, which knows where it belongs.
                eprintln!("{error}");
                Ok(ExitCode::FAILURE)
            }
        }
    }
}
