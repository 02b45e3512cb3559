//! A Kubernetes API on another machine, or of another process, over TLS.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::AUTHORIZATION;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use mainstay_proxy::{Dialer, Proxies};
use rustls::CertificateError;
use rustls::pki_types::ServerName;
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

/// Where an API is: `https://HOST[:PORT]`, and a path in a kubeconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    authority: Authority,
    /// What comes before every path; mostly nothing.
    prefix: String,
}

impl Server {
    /// As a kubeconfig has it, where something in front may serve several APIs below paths.
    pub(super) fn of_kubeconfig(text: &str) -> anyhow::Result<Self> {
        const FORM: &str = "a server is https://HOST:PORT[/PATH]";
        // Source: `defaultServerURL` in `staging/src/k8s.io/client-go/rest/url_utils.go`.
        let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let parts = text.parse::<Uri>().context(FORM)?.into_parts();
        anyhow::ensure!(parts.scheme == Some(Scheme::HTTPS), "{text:?} is not encrypted; {FORM}");
        let path = parts.path_and_query;
        let plain = path.as_ref().is_none_or(|it| it.query().is_none());
        let authority = parts.authority.filter(|it| plain && !it.as_str().contains('@'));
        let prefix = path.map(|it| it.path().trim_end_matches('/').to_owned()).unwrap_or_default();
        Ok(Self { authority: authority.context(FORM)?, prefix })
    }
}

impl FromStr for Server {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        const FORM: &str = "a server is https://HOST:PORT, such as https://192.0.2.10:6443";
        let parts = text.parse::<Uri>().context(FORM)?.into_parts();
        let path = parts.path_and_query.map(|it| it.as_str().to_owned()).unwrap_or_default();
        let bare = parts.scheme == Some(Scheme::HTTPS) && matches!(path.as_str(), "" | "/");
        let authority = parts.authority.filter(|it| bare && !it.as_str().contains('@'));
        let prefix = String::new();
        authority.map(|authority| Self { authority, prefix }).context(FORM)
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "https://{}{}", self.authority, self.prefix)
    }
}

/// Sends requests there. Cheap to clone; the clones share connections.
#[derive(Clone)]
pub(crate) struct Remote {
    client: Client<HttpsConnector<Dialer>, Body>,
    server: Server,
    bearer: Option<HeaderValue>,
    known: Option<watch::Sender<Option<bool>>>,
}

impl Remote {
    /// Whoever is trusted and what is shown to him stand in `tls`; a token is shown with each request.
    pub(crate) fn new(server: &Server, tls: &rustls::ClientConfig, token: Option<&str>) -> Self {
        Self::named(server, None, &Proxies::none(), tls, token)
    }

    /// The same with a server that shows a certificate for this name, and may be behind a proxy.
    pub(super) fn named(
        server: &Server,
        name: Option<&ServerName<'static>>,
        proxies: &Proxies,
        tls: &rustls::ClientConfig,
        token: Option<&str>,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_tcp_user_timeout(Some(SILENCE));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        let tcp = Dialer::new(tcp, proxies.clone());
        let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_only();
        let https = match name {
            Some(name) => https
                .with_server_name_resolver(FixedServerNameResolver::new(name.clone()))
                .enable_http1()
                .wrap_connector(tcp),
            None => https.enable_http1().wrap_connector(tcp),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(https);
        let bearer = token.and_then(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Self { client, server: server.clone(), bearer, known: None }
    }

    /// Tells whether the API knows who asks: `false` with each answer that says that it does not.
    pub(super) fn telling(self, known: watch::Sender<Option<bool>>) -> Self {
        Self { known: Some(known), ..self }
    }

    async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, Broken> {
        let mut uri = request.uri().clone().into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.server.authority);
        if !self.server.prefix.is_empty() {
            let path = uri.path_and_query.as_ref().map_or("/", PathAndQuery::as_str);
            uri.path_and_query = Some(format!("{}{path}", self.server.prefix).parse()?);
        }
        *request.uri_mut() = Uri::from_parts(uri)?;
        if let Some(bearer) = self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let answer = self.client.request(request).await.map_err(|error| -> Broken {
            match hint(&error) {
                Some(hint) => Box::new(Explained { error, hint }),
                None => Box::new(error),
            }
        })?;
        if let Some(known) = &self.known {
            let now = Some(answer.status() != StatusCode::UNAUTHORIZED);
            known.send_if_modified(|known| std::mem::replace(known, now) != now);
        }
        Ok(answer)
    }

    /// The API for whoever asks there.
    pub(crate) fn client(self) -> kube::Client {
        kube::Client::new(service_fn(move |request| self.clone().send(request)), "default")
    }
}

/// A request that was not answered, and what that may come from.
#[derive(Debug, thiserror::Error)]
#[error("{hint}")]
struct Explained {
    #[source]
    error: hyper_util::client::legacy::Error,
    hint: &'static str,
}

/// An error of TLS in an error, which may be wrapped as one of I/O, more than once.
fn of_tls<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    loop {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

/// What it may come from that a server is not believed.
fn hint(error: &hyper_util::client::legacy::Error) -> Option<&'static str> {
    let first: &(dyn std::error::Error + 'static) = error;
    let mut causes = std::iter::successors(Some(first), |it| it.source());
    let tls = causes.find_map(of_tls)?;
    let rustls::Error::InvalidCertificate(why) = tls else { return None };
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Some(
            "who answers is not the API that this node knows by its authority, or that has another one now",
        ),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            Some("the server's certificate is not good at this machine's time, which may be wrong")
        }
        _ => None,
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
    fn a_kubeconfigs_server_may_have_a_path() {
        for (text, expected) in [
            ("https://192.0.2.10:6443", Some("https://192.0.2.10:6443")),
            ("192.0.2.10:6443", Some("https://192.0.2.10:6443")),
            ("https://api.example.com/k8s/c-1/", Some("https://api.example.com/k8s/c-1")),
            ("http://192.0.2.10:8080", None),
            ("https://api.example.com/?a=b", None),
            ("https://me:secret@192.0.2.10", None),
            ("https://", None),
        ] {
            let found = Server::of_kubeconfig(text).ok().map(|it| it.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }

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
