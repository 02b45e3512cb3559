//! `/run`: a command without streams, answered when it has ended.

use bytes::Bytes;
use mainstay_cri::{Exec, ExecRequest, Output, Runtime};
use tokio::io::{AsyncReadExt, copy, sink};

use super::super::auth::Denial;
use super::super::pods::Pods;
use super::super::route::Target;
use super::{denial, find, not_found, running};

/// The most that is answered of each output; the rest is dropped.
const MOST: u64 = 1 << 20;

/// Runs the command of a query and returns what it wrote, standard output first.
///
/// # Errors
///
/// 404 without such a pod, 500 when the container does not run or the command fails.
pub(in super::super) async fn run(
    runtime: &dyn Runtime,
    pods: &dyn Pods,
    target: &Target,
    query: &[(String, String)],
) -> Result<Bytes, Denial> {
    let pod = find(pods, target)?;
    let container = running(runtime, &pod, target).await?;
    let container = container.ok_or_else(|| denial(500, not_found(target)))?;
    let line = query.iter().find(|(name, _)| name == "cmd").map_or("", |(_, line)| line.as_str());
    let command = line.split(' ').map(str::to_owned).collect();
    let request = ExecRequest { container, command, tty: false, stdin: false };
    let failed = |error: mainstay_cri::Error| denial(500, error.chain());
    let Exec { stdout, stderr, exit, .. } = runtime.exec(&request).await.map_err(failed)?;
    let (output, error) = tokio::join!(take(Some(stdout)), take(stderr));
    let code = exit.await.map_err(failed)?;
    if code != 0 {
        let error = String::from_utf8_lossy(&error);
        return Err(denial(500, format!("command '{line}' exited with {code}: {error}")));
    }
    Ok([output, error].concat().into())
}

/// The beginning of an output, which is read to its end.
async fn take(output: Option<Output>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut output) = output {
        // What cannot be read is not there.
        let _ = (&mut output).take(MOST).read_to_end(&mut bytes).await;
        let _ = copy(&mut output, &mut sink()).await;
    }
    bytes
}
