//! `mainstay exec`

use std::io::{IsTerminal, Stdin, stdin};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use mainstay_cri::{ErrorKind, Exec as Process, ExecRequest, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncWriteExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use super::pods;
use crate::instance::Instance;

/// What shells answer for a command that cannot be executed.
const CANNOT_EXECUTE: u8 = 126;

/// Run one more command in a container, with or without an agent.
///
/// Exit status: that of the command, or 128 plus the number of the signal that ended it; 126 when
/// it cannot be executed; 1 when there is no such pod or container.
#[derive(Debug, Args)]
pub(super) struct Exec {
    /// The pod's name, with or without the node's name; NAMESPACE/NAME where there are several.
    pod: String,
    /// The container. Default: the pod's first.
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Give the command a terminal.
    #[arg(short, long)]
    tty: bool,
    /// The command with its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        let runtime = super::runtime()?;
        let result = runtime.block_on(self.execute(instance));
        // Standard input may be read by a thread that cannot be ended otherwise.
        runtime.shutdown_background();
        result
    }

    async fn execute(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        let Some((runtime, sandbox)) = pods::find(instance, &self.pod).await? else {
            bail!("there is no pod {} here; `mainstay status` lists them", self.pod);
        };
        let container = pods::container(&sandbox, self.container.as_deref())?;
        if !pods::is_running(container) {
            bail!("container {:?} does not run", container.metadata.name);
        }
        let request = ExecRequest {
            container: container.id.clone(),
            command: self.command,
            tty: self.tty,
            stdin: self.stdin,
        };
        let process = match runtime.exec(&request).await {
            Err(error) if error.kind == ErrorKind::InvalidArgument => {
                eprintln!("mainstay: {}", error.chain());
                return Ok(ExitCode::from(CANNOT_EXECUTE));
            }
            other => other?,
        };
        let _raw = if self.tty && self.stdin { Raw::enter()? } else { None };
        let code = converse(process).await?;
        // 0 to 255 by contract.
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    }
}

/// Passes the streams on until the command has ended and all it said has been passed on.
async fn converse(process: Process) -> anyhow::Result<i32> {
    let Process { stdin: input, mut stdout, stderr, resize, exit } = process;
    let mut inputs = JoinSet::new();
    if let Some(mut input) = input {
        inputs.spawn(async move {
            // Its end is the end of file for the command; a command that does not read is no
            // failure.
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut input).await;
            let _ = input.shutdown().await;
        });
    }
    if let Some(resize) = resize {
        let mut changed = signal(SignalKind::window_change())?;
        inputs.spawn(async move {
            loop {
                if let Ok(size) = tcgetwinsize(stdin()) {
                    let size = TerminalSize { width: size.ws_col, height: size.ws_row };
                    // A terminal that has gone needs no size.
                    let _ = resize(size);
                }
                if changed.recv().await.is_none() {
                    return;
                }
            }
        });
    }
    let outputs = async {
        let error = async {
            match stderr {
                Some(mut stderr) => {
                    tokio::io::copy(&mut stderr, &mut tokio::io::stderr()).await.map(drop)
                }
                None => Ok(()),
            }
        };
        let mut out = tokio::io::stdout();
        let output = async {
            tokio::io::copy(&mut stdout, &mut out).await?;
            out.flush().await
        };
        tokio::try_join!(output, error)
    };
    outputs.await.context("cannot pass on what the command says")?;
    Ok(exit.await?)
}

/// The user's terminal, passing everything through; as before when dropped.
struct Raw {
    terminal: Stdin,
    before: Termios,
}

impl Raw {
    fn enter() -> anyhow::Result<Option<Self>> {
        let terminal = stdin();
        if !terminal.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&terminal).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&terminal, OptionalActions::Now, &raw)
            .context("cannot change the terminal's settings")?;
        Ok(Some(Self { terminal, before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone has no settings.
        let _ = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}
