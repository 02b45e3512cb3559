//! Connections: TLS, HTTP/2 for calls, HTTP/1.1 for what is upgraded.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mainstay_pki::ClientCertificate;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::body::boxed;
use crate::server::{ApiServer, Peer};

/// How long a client may take for its handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections at the same time; more wait to be accepted.
const CONNECTIONS: usize = 4096;

/// Streams of one HTTP/2 connection at the same time. Source: `HTTP2MaxStreamsPerConnection`.
const STREAMS: u32 = 1000;

/// Answers connections for ever. `tls` asks for client certificates without requiring them.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, server: ApiServer) {
    let mut connections = JoinSet::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // No descriptors left, for one; some will be given back.
                tracing::debug!(%error, "cannot accept a connection to the API");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, server) = (tls.clone(), server.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = connection(stream, tls, server).await {
                tracing::debug!(%error, "a connection to the API ended");
            }
        });
    }
}

async fn connection(
    stream: TcpStream,
    tls: Arc<rustls::ServerConfig>,
    server: ApiServer,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let handshake = TlsAcceptor::from(tls).accept(stream);
    let stream = tokio::time::timeout(PATIENCE, handshake).await.map_err(io::Error::from)??;
    let certificates = stream.get_ref().1.peer_certificates();
    let certificate = match certificates.and_then(|chain| chain.first()) {
        Some(der) => Some(Arc::new(ClientCertificate::read(der)?)),
        None => None,
    };
    let peer = Peer::Connection(certificate);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, peer) = (server.clone(), peer.clone());
        async move { Ok::<_, Infallible>(server.handle(request.map(boxed), &peer).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15));
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await
}
