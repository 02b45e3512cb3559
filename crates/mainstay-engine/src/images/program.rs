//! Running a program of the machine's owner that has credentials.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// How long one may take. Source: `ExecPlugin` in `pkg/credentialprovider/plugin/plugin.go`.
const PATIENCE: Duration = Duration::from_secs(60);

/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 1 << 20;

/// How much of a complaint is repeated, in bytes.
const COMPLAINT_MAX: u64 = 300;

/// What a program said.
pub struct Answer {
    /// Whether it ended with 0.
    pub success: bool,
    /// What it wrote to standard output: a secret.
    pub output: Vec<u8>,
    /// The beginning of what it wrote to standard error.
    pub complaint: String,
}

/// Runs a program with what the agent's environment has and `environment`, and ends it when it takes too
/// long or this is dropped.
///
/// # Errors
///
/// Why it has not answered: it cannot be run, or has taken more than a minute.
pub async fn run(
    program: impl AsRef<OsStr>,
    arguments: &[String],
    environment: &[(String, String)],
    input: &[u8],
) -> Result<Answer, String> {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child =
        command.kill_on_drop(true).spawn().map_err(|error| format!("it cannot be run: {error}"))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // One that does not want to know answers all the same.
            let _ = stdin.write_all(input).await;
        }
    };
    let all = async {
        let ((), output, complaint) =
            tokio::join!(write, read(stdout, ANSWER_MAX), read(stderr, COMPLAINT_MAX),);
        child.wait().await.map(|status| (status.success(), output, complaint))
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    let ended = ended.map_err(|_| format!("it took longer than {} s", PATIENCE.as_secs()))?;
    let (success, output, complaint) =
        ended.map_err(|error| format!("it cannot be waited for: {error}"))?;
    let complaint = String::from_utf8_lossy(&complaint).trim().replace(char::is_control, " ");
    Ok(Answer { success, output, complaint })
}

/// The beginning of what comes; the rest is dropped, so that nobody waits to get rid of it.
async fn read(from: Option<impl AsyncRead + Unpin>, limit: u64) -> Vec<u8> {
    let mut beginning = Vec::new();
    if let Some(mut from) = from {
        // What was read until an error is what there is.
        let _ = (&mut from).take(limit).read_to_end(&mut beginning).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    beginning
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sh(script: &str, input: &[u8]) -> Answer {
        let arguments = ["-c".to_owned(), script.to_owned()];
        run("/bin/sh", &arguments, &[("OWN".into(), "own".into())], input).await.ok().unwrap()
    }

    #[tokio::test]
    async fn programs_are_asked_and_answer() {
        let answer = sh("read x; echo $x $OWN; echo why\twhy >&2; exit 1", b"in\n").await;
        assert_eq!((answer.success, answer.output.as_slice()), (false, &b"in own\n"[..]));
        assert_eq!(answer.complaint, "why why");
        // One that does not read, and one that writes without an end that matters.
        let large = vec![b'x'; 1 << 20];
        assert!(sh("true", &large).await.success);
        let answer = sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2", b"").await;
        assert_eq!((answer.success, answer.output.len()), (true, 1 << 20));
        let error = run("/no/such/program", &[], &[], b"").await.err().unwrap();
        assert_eq!(error, "it cannot be run: No such file or directory (os error 2)");
    }
}
