//! The control socket: HTTP on a Unix socket in the run directory.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /status` | [`wire::Status`] |
//! | `POST /pods/<namespace>/<name>/restart` | 202, or 404 |

pub mod wire;

use std::convert::Infallible;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mainstay_plan::pod::{PodKey, SourceKind};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::publish::{Board, Events};
use crate::supervise;

/// How long an answer waits for a new agent to know about all its pods and its runtime.
const PATIENCE: Duration = Duration::from_secs(2);

/// What requests are answered from.
pub(crate) struct Context {
    pub(crate) node_name: String,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) events: Events,
    pub(crate) requests: mpsc::Sender<supervise::Request>,
}

/// Binds a socket, for root only. One that was left is replaced: the caller owns the instance.
///
/// # Errors
///
/// When that cannot be done in the socket's directory.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = mainstay_linux::socket::listen(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Answers for ever.
pub(crate) async fn serve(listener: UnixListener, context: Context) {
    let context = Arc::new(context);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Cancel-safe is not asked for: nothing else is waited for here.
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors left, for one; some will be given back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let context = context.clone();
        connections.spawn(async move {
            let service = service_fn(move |request| answer(context.clone(), request));
            let served = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a client of the control socket went away");
            }
        });
    }
}

async fn answer(
    context: Arc<Context>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    Ok(match (request.method(), path.as_slice()) {
        (&Method::GET, ["status"]) => {
            let board = board(&context).await;
            let status = wire::Status::of(&context.node_name, &board, &context.events);
            match serde_json::to_vec(&status) {
                Ok(json) => reply(StatusCode::OK, json),
                Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            }
        }
        (&Method::POST, ["pods", namespace, name, "restart"]) => {
            restart(&context, namespace, name).await
        }
        _ => reply(StatusCode::NOT_FOUND, "there is nothing of this name"),
    })
}

/// The whole picture, as soon as a new agent has it.
async fn board(context: &Context) -> Arc<Board> {
    let mut board = context.board.clone();
    // Later, what there is has to do: a source may hang.
    let complete = tokio::time::timeout(PATIENCE, board.wait_for(|board| board.is_complete()));
    // An agent that is ending tells what it knew last.
    drop(complete.await);
    context.board.borrow().clone()
}

async fn restart(context: &Context, namespace: &str, name: &str) -> Response<Full<Bytes>> {
    // Of one name there is one, wherever its manifest is.
    for source in [SourceKind::File, SourceKind::Http] {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let (answer, done) = oneshot::channel();
        let pod = PodKey { source, namespace, name };
        let known = match context.requests.send(supervise::Request::Restart { pod, answer }).await {
            Ok(()) => done.await.unwrap_or(false),
            Err(_) => false,
        };
        if known {
            return reply(StatusCode::ACCEPTED, "");
        }
    }
    reply(StatusCode::NOT_FOUND, format!("there is no static pod {namespace}/{name}"))
}

fn reply(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
