//! What a request is passed on to.
//!
//! Source: `staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, HOST, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::TlsConnector;

use crate::body::{self, Body};
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// How long it may take to be reached.
const PATIENCE: Duration = Duration::from_secs(10);

/// Headers that belong to a connection and not to what is passed on.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to what answers a request.
pub(super) struct Backend<'a> {
    pub(super) stream: Box<dyn Stream>,
    /// How the request calls it.
    pub(super) host: HeaderValue,
    /// What the client is told when it breaks off.
    pub(super) broken: Box<dyn Fn(&str) -> ApiError + Send + Sync + 'a>,
}

/// Connects to an address, over TLS if there is a configuration and a name for it.
pub(super) async fn dial(
    address: impl ToSocketAddrs,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
) -> io::Result<Box<dyn Stream>> {
    let connected = async {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(match tls {
            Some((config, name)) => {
                Box::new(TlsConnector::from(config).connect(name, tcp).await?) as Box<dyn Stream>
            }
            None => Box::new(tcp),
        })
    };
    match tokio::time::timeout(PATIENCE, connected).await {
        Ok(connected) => connected,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

impl Backend<'_> {
    /// Passes a request on, and its answer back; of an upgrade, everything that follows.
    pub(super) async fn pass_on(
        self,
        server: &Inner,
        path: &str,
        parts: &mut Parts,
        body: Body,
    ) -> Result<Response<Body>> {
        let upgraded = parts.headers.contains_key(UPGRADE);
        let client_side = upgraded.then(|| parts.extensions.remove::<hyper::upgrade::OnUpgrade>());
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        remove_hop_by_hop(request.headers_mut());
        // What the client is to this server is not what this server is to others.
        request.headers_mut().remove(AUTHORIZATION);
        if let (true, Some(protocol)) = (upgraded, parts.headers.get(UPGRADE)) {
            request.headers_mut().insert(UPGRADE, protocol.clone());
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        let mut response = self.send(server, path, request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (mut parts, body) = response.into_parts();
            remove_hop_by_hop(&mut parts.headers);
            return Ok(Response::from_parts(parts, body::boxed(body)));
        }
        let Some(Some(client_side)) = client_side else {
            return Err(ApiError::bad_request("the connection cannot be upgraded"));
        };
        let other_side = hyper::upgrade::on(&mut response);
        server.streams.spawn(async move {
            let (client, other) = tokio::join!(client_side, other_side);
            let (Ok(client), Ok(other)) = (client, other) else { return };
            let (mut client, mut other) = (TokioIo::new(client), TokioIo::new(other));
            // Whichever side ends, the other is told so, and both are closed.
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut other).await {
                tracing::debug!(%error, "a stream that is passed on broke off");
            }
        });
        let (parts, _) = response.into_parts();
        Ok(Response::from_parts(parts, body::full("")))
    }

    /// Sends a request that has no path yet.
    pub(super) async fn send(
        self,
        server: &Inner,
        path: &str,
        mut request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>> {
        let Self { stream, host, broken } = self;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| broken(&error.to_string()))?;
        server.streams.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection that requests are passed on by broke off");
            }
        });
        *request.uri_mut() = path.parse::<Uri>().map_err(|error| {
            ApiError::bad_request(format!("there is no path such as {path:?}: {error}"))
        })?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().remove(ACCEPT_ENCODING);
        sender.send_request(request).await.map_err(|error| broken(&error.to_string()))
    }
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}
