//! The commands that can be run in a container.

use mainstay_cri::{Error, ErrorKind, Exec, ExecRequest, Result, TerminalSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{oneshot, watch};

use super::FakeRuntime;

/// How many bytes lie between a command and its client.
const BUFFER: usize = 64 << 10;

/// Runs one of
///
/// - `echo WORDS`: writes the words and ends;
/// - `cat`: writes back what it reads, and ends with its input;
/// - `fail CODE WORDS`: writes the words to standard error and ends with the code;
/// - `size`: writes the size of its terminal, as `<columns>x<rows>`, when it gets one, and ends;
/// - `wait`: reads its input to the end and ends;
/// - `hang`: does not end.
pub(super) fn run(runtime: &FakeRuntime, request: &ExecRequest) -> Result<Exec> {
    let words: Vec<String> = request.command.clone();
    let known = ["echo", "cat", "fail", "size", "wait", "hang"];
    let name = words.first().map(String::as_str).unwrap_or_default();
    if !known.contains(&name) {
        let cause = format!("cannot execute {name:?}: executable file not found in $PATH");
        let cause = Error::new(ErrorKind::InvalidArgument, cause);
        let message = "failed to exec in container";
        return Err(Error::with_source(ErrorKind::InvalidArgument, message, cause));
    }
    let (stdin, input) = duplex(BUFFER);
    let (output, stdout) = duplex(BUFFER);
    let (error, stderr) = duplex(BUFFER);
    let (sizes, size) = watch::channel(None);
    let (tell, exit) = oneshot::channel();
    let input = request.stdin.then_some(input);
    runtime.spawn(async move {
        // A client that has left needs no code.
        let _ = tell.send(execute(&words, input, output, error, size).await);
    });
    let resize = move |size: TerminalSize| {
        sizes.send_replace(Some(size));
        Ok(())
    };
    Ok(Exec {
        stdin: request.stdin.then(|| Box::pin(stdin) as mainstay_cri::Input),
        stdout: Box::pin(stdout),
        stderr: (!request.tty).then(|| Box::pin(stderr) as mainstay_cri::Output),
        resize: request.tty.then(|| Box::new(resize) as mainstay_cri::Resize),
        exit: Box::pin(async move {
            exit.await.map_err(|_| Error::new(ErrorKind::Internal, "the command is lost"))
        }),
    })
}

async fn execute(
    words: &[String],
    input: Option<DuplexStream>,
    mut output: DuplexStream,
    mut error: DuplexStream,
    mut size: watch::Receiver<Option<TerminalSize>>,
) -> i32 {
    let text = |from: usize| format!("{}\n", words.get(from..).unwrap_or_default().join(" "));
    match words.first().map(String::as_str) {
        Some("echo") => drop(output.write_all(text(1).as_bytes()).await),
        Some("fail") => {
            drop(error.write_all(text(2).as_bytes()).await);
            return words.get(1).and_then(|code| code.parse().ok()).unwrap_or(1);
        }
        Some("cat") => {
            if let Some(mut input) = input {
                drop(tokio::io::copy(&mut input, &mut output).await);
            }
        }
        Some("hang") => std::future::pending().await,
        Some("size") => {
            if let Ok(size) = size.wait_for(Option::is_some).await.map(|size| *size)
                && let Some(TerminalSize { width, height }) = size
            {
                drop(output.write_all(format!("{width}x{height}\n").as_bytes()).await);
            }
        }
        _ => {
            if let Some(mut input) = input {
                drop(input.read_to_end(&mut Vec::new()).await);
            }
        }
    }
    0
}
