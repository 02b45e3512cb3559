//! A Kubernetes API on another machine, or of another process, over TLS.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::AUTHORIZATION;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use tokio::sync::watch;
use tower::service_fn;

/// What can go wrong on the way.
type Broken = Box<dyn std::error::Error + Send + Sync>;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection whose other end has not answered for so long is one that is cut: what is asked next makes
/// another one, and whoever watches hears of it.
const SILENCE: Duration = Duration::from_secs(15);

/// How often the other end is asked for a sign of life when there is nothing to say.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long a connection is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);

/// Where an API is: `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server(Authority);

impl FromStr for Server {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        const FORM: &str = "a server is https://HOST:PORT, such as https://192.0.2.10:6443";
        let parts = text.parse::<Uri>().context(FORM)?.into_parts();
        let path = parts.path_and_query.map(|it| it.as_str().to_owned()).unwrap_or_default();
        let bare = parts.scheme == Some(Scheme::HTTPS) && matches!(path.as_str(), "" | "/");
        let authority = parts.authority.filter(|it| bare && !it.as_str().contains('@'));
        authority.map(Self).context(FORM)
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

/// Sends requests there. Cheap to clone; the clones share connections.
#[derive(Clone)]
pub(crate) struct Remote {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    server: Authority,
    bearer: Option<HeaderValue>,
}

impl Remote {
    /// Whoever is trusted and what is shown to him stand in `tls`; a token is shown with each request.
    pub(crate) fn new(server: &Server, tls: &rustls::ClientConfig, token: Option<&str>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_tcp_user_timeout(Some(SILENCE));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone());
        let https = https.https_only().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https);
        let bearer = token.and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { client, server: server.0.clone(), bearer }
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.server);
        *request.uri_mut() = Uri::from_parts(uri)?;
        if let Some(bearer) = self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        Ok(self.client.request(request).await?)
    }

    /// The API for whoever asks there.
    pub(crate) fn client(self) -> kube::Client {
        kube::Client::new(service_fn(move |request| self.clone().send(request)), "default")
    }
}

/// The same for those who may ask before it is known how to show who this is. A request that comes too early
/// waits; whoever sends it has a deadline.
pub(super) fn late_client(remote: watch::Receiver<Option<Arc<Remote>>>) -> kube::Client {
    let send = move |request| {
        let mut remote = remote.clone();
        async move {
            // Without a sender this process ends.
            let there = remote.wait_for(Option::is_some).await?.clone();
            let remote = there.ok_or("this process is ending")?;
            Remote::clone(&remote).send(request).await
        }
    };
    kube::Client::new(service_fn(send), "default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_and_nothing_more() {
        for (text, expected) in [
            ("https://192.0.2.10:6443", Some("https://192.0.2.10:6443")),
            ("https://[2001:db8::1]:6443/", Some("https://[2001:db8::1]:6443")),
            ("https://api.example.com", Some("https://api.example.com")),
            ("http://192.0.2.10:6443", None),
            ("192.0.2.10:6443", None),
            ("https://192.0.2.10:6443/api", None),
            ("https://192.0.2.10:6443?a=b", None),
            ("https://me:secret@192.0.2.10:6443", None),
            ("https://", None),
            ("", None),
        ] {
            let found = text.parse::<Server>().ok().map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }
}
