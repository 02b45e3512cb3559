//! Connections to servers, through proxies where there are some.
//!
//! Proxies are for servers that are spoken to by TLS, of which they see nothing but the name. Those of the
//! environment count as for programs in Go, kubelets and containerd among them: not for this machine itself.
//! Source: `golang.org/x/net/http/httpproxy`.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::future::BoxFuture;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

/// How proxies are written.
const FORM: &str =
    "a proxy is http://[USER:PASSWORD@]HOST:PORT or socks5://[USER:PASSWORD@]HOST:PORT";

/// What can go wrong on the way.
type Broken = Box<dyn Error + Send + Sync>;

/// Which servers are behind a proxy.
#[derive(Clone, Debug)]
pub struct Proxies {
    matcher: Arc<Matcher>,
    /// Whether servers on this machine are, too.
    here: bool,
}

/// Connects to servers. Clones share how.
#[derive(Clone, Debug)]
pub struct Dialer {
    tcp: HttpConnector,
    proxies: Proxies,
}

/// A proxy that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} cannot be used: {FORM}")]
pub struct NoProxy(String);

/// A server that is not reached through its proxy.
#[derive(Debug, thiserror::Error)]
#[error("cannot reach {host} through the proxy {proxy}")]
struct Unreached {
    host: String,
    /// Without a name and a password.
    proxy: Uri,
    #[source]
    source: Broken,
}

impl Proxies {
    /// Those that the environment names: `HTTPS_PROXY`, else `ALL_PROXY`, without what is in `NO_PROXY`; or the
    /// same in small letters.
    ///
    /// # Errors
    ///
    /// When a proxy is named that cannot be used.
    pub fn of_environment() -> Result<Self, NoProxy> {
        let variable = |names: [&str; 2]| {
            let mut said = names.into_iter().filter_map(|name| std::env::var(name).ok());
            said.find(|text| !text.is_empty())
        };
        let proxy = variable(["HTTPS_PROXY", "https_proxy"]);
        let proxy = proxy.or_else(|| variable(["ALL_PROXY", "all_proxy"]));
        let without = variable(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Self::of(proxy.as_deref(), &without)
    }

    /// This one for all servers, as the `proxy-url` of a kubeconfig is.
    ///
    /// # Errors
    ///
    /// When it cannot be used.
    pub fn one(url: &str) -> Result<Self, NoProxy> {
        Ok(Self { here: true, ..Self::of(Some(url), "")? })
    }

    /// None.
    pub fn none() -> Self {
        Self { matcher: Arc::new(Matcher::builder().build()), here: false }
    }

    fn of(proxy: Option<&str>, without: &str) -> Result<Self, NoProxy> {
        let Some(proxy) = proxy else { return Ok(Self::none()) };
        let matcher = |without: &str| {
            Matcher::builder().https(proxy.to_owned()).no(without.to_owned()).build()
        };
        let found = matcher("").intercept(&Uri::from_static("https://example.com"));
        match found.as_ref().and_then(|it| it.uri().scheme_str()) {
            Some("http" | "socks5" | "socks5h") => {
                Ok(Self { matcher: Arc::new(matcher(without)), here: false })
            }
            // A password is nobody's business.
            _ => Err(NoProxy(proxy.rsplit('@').next().unwrap_or_default().to_owned())),
        }
    }

    fn to(&self, server: &Uri) -> Option<Intercept> {
        let host = server.host().unwrap_or_default();
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_here = host == "localhost" || address.is_ok_and(|it| it.is_loopback());
        if is_here && !self.here { None } else { self.matcher.intercept(server) }
    }
}

impl Dialer {
    /// Connects by TCP as is said there.
    pub fn new(tcp: HttpConnector, proxies: Proxies) -> Self {
        Self { tcp, proxies }
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TcpStream>;
    type Error = Broken;
    type Future = BoxFuture<'static, Result<Self::Response, Broken>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Some(found) = self.proxies.to(&server) else {
            let connecting = self.tcp.call(server);
            return Box::pin(async move { connecting.await.map_err(Into::into) });
        };
        let (proxy, tcp) = (found.uri().clone(), self.tcp.clone());
        Box::pin(async move {
            let host = server.host().unwrap_or_default().to_owned();
            let connected = connect(&found, tcp, server).await;
            connected.map_err(|source| Unreached { host, proxy, source }.into())
        })
    }
}

/// Has a proxy connect to a server.
async fn connect(
    proxy: &Intercept,
    tcp: HttpConnector,
    server: Uri,
) -> Result<TokioIo<TcpStream>, Broken> {
    let place = proxy.uri().clone();
    if place.scheme_str() == Some("http") {
        let tunnel = Tunnel::new(place, tcp);
        let mut tunnel = match proxy.basic_auth() {
            Some(secret) => tunnel.with_auth(secret.clone()),
            None => tunnel,
        };
        return tunnel.call(server).await.map_err(Into::into);
    }
    let socks = SocksV5::new(place, tcp);
    let mut socks = match proxy.raw_auth() {
        Some((name, password)) => socks.with_auth(name.to_owned(), password.to_owned()),
        None => socks,
    };
    socks.call(server).await.map_err(Into::into)
}

#[cfg(test)]
mod tests;
