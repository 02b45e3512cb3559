//! A client of the API, in another process: `crates/mainstay-e2e/examples/api_client`.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::process;

/// Who asks, whom, with what.
pub(crate) struct Client {
    pub(crate) program: PathBuf,
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    /// Of a user who may do everything.
    pub(crate) token: String,
}

/// A job under way. It ends with this.
pub(crate) struct Job(Child);

impl Client {
    /// Begins a job.
    pub(crate) fn begin(&self, work: &Value) -> anyhow::Result<Job> {
        let mut command = process::command(&self.program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut job = Job(command.spawn().context("cannot start the client of the API")?);
        let text = json!({ "root_dir": self.root_dir, "run_dir": self.run_dir,
            "token": self.token, "work": work });
        // Closed afterwards: the client reads to the end.
        let mut input = job.0.stdin.take().context("the client has no input")?;
        input.write_all(&serde_json::to_vec(&text)?).context("the client reads nothing")?;
        Ok(job)
    }

    /// Does a job to its end.
    pub(crate) fn ask(&self, work: &Value) -> anyhow::Result<Value> {
        self.begin(work)?.answer()
    }
}

impl Job {
    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// When it fails; why, it has printed.
    pub(crate) fn answer(mut self) -> anyhow::Result<Value> {
        let mut text = Vec::new();
        let mut output = self.0.stdout.take().context("the client has no output")?;
        output.read_to_end(&mut text).context("the client's answer cannot be read")?;
        let status = self.0.wait()?;
        ensure!(status.success(), "the client of the API failed: {status}");
        serde_json::from_slice(&text).context("the client's answer is no JSON")
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // Both do nothing to one that has ended.
        let ended = self.0.kill().and_then(|()| self.0.wait());
        if let Err(error) = ended {
            eprintln!("a client of the API may still run: {error}");
        }
    }
}
