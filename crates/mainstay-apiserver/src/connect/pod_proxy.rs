//! `proxy` of a pod: what is asked there is asked of the pod itself, at its address.
//!
//! Source: `ProxyREST` in `pkg/registry/core/pod/rest/subresources.go`, `ResourceLocation` in
//! `pkg/registry/core/pod/strategy.go`, and
//! `staging/src/k8s.io/apimachinery/pkg/util/proxy/{upgradeaware,transport}.go`. Addresses within HTML
//! pages are left as they are.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode, Uri};
use mainstay_pki::unverified_client;
use rustls::pki_types::ServerName;

use super::backend::{self, Backend};
use super::with_query;
use crate::body::{self, Body};
use crate::kinds;
use crate::object::Object;
use crate::request::RequestInfo;
use crate::server::{Inner, Reply};
use crate::status::{ApiError, Result};

/// The parts of `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`; what follows is the pod's.
const OWN_PARTS: usize = 7;

pub(super) async fn proxy(
    server: &Inner,
    info: &RequestInfo,
    parts: &mut Parts,
    body: Body,
) -> Result<Reply> {
    let asked = Asked::parse(&info.name)
        .ok_or_else(|| ApiError::bad_request(format!("invalid pod request {:?}", info.name)))?;
    let pods = &kinds::PODS;
    let pod = server.storage.get(pods, &info.namespace, asked.name).await?.object;
    let address = asked.address(&pod)?;
    let (prefix, path) = split(parts.uri.path());
    if path.is_empty() && matches!(parts.method, Method::GET | Method::HEAD) {
        let there = with_query(&format!("{prefix}/"), parts.uri.query());
        return redirect(&there).map(Reply::Whole);
    }
    let (prefix, path) = (prefix.to_owned(), if path.is_empty() { "/" } else { path });
    let target = with_query(path, parts.uri.query());

    let called = called(parts);
    let host = called.clone().or_else(|| HeaderValue::from_str(&address.to_string()).ok());
    let original = HeaderValue::from_str(parts.uri.path()).map_err(ApiError::internal)?;
    parts.headers.insert("x-forwarded-uri", original);
    let backend = Backend {
        stream: asked.dial(address).await?,
        host: host.unwrap_or(HeaderValue::from_static("")),
        broken: Box::new(unreachable),
    };
    let mut response = backend.pass_on(server, &target, parts, body).await?;
    if let Some(location) = response.headers().get(LOCATION).and_then(|it| it.to_str().ok()) {
        let names = [address.to_string(), called.as_ref().map_or("", text).to_owned()];
        if let Some(there) = relocated(location, &prefix, &names) {
            let there = HeaderValue::from_str(&there).map_err(ApiError::internal)?;
            response.headers_mut().insert(LOCATION, there);
        }
    }
    Ok(Reply::Whole(response))
}

/// What is asked for: `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq)]
struct Asked<'a> {
    tls: bool,
    name: &'a str,
    /// Empty where it is not said.
    port: &'a str,
}

impl<'a> Asked<'a> {
    /// Source: `SplitSchemeNamePort`.
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match *parts.as_slice() {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Self { tls: scheme == "https", name, port })
    }

    /// Where the pod is; nothing but itself is reached by this.
    fn address(&self, pod: &Object) -> Result<SocketAddr> {
        let ip: Option<IpAddr> = pod.str_at(&["status", "podIP"]).parse().ok();
        let Some(ip) = ip.filter(is_global_unicast) else {
            return Err(ApiError::bad_request("address not allowed"));
        };
        let mut containers = pod.list_at(&["spec", "containers"]).iter();
        let first = containers.find_map(|it| it.pointer("/ports/0/containerPort")?.as_u64());
        let port = match (self.port, first.and_then(|port| u16::try_from(port).ok())) {
            ("", Some(port)) => port,
            ("", None) => {
                if self.tls {
                    443
                } else {
                    80
                }
            }
            (port, _) => port
                .parse()
                .map_err(|_| unreachable(&format!("dial tcp: address {port}: invalid port")))?,
        };
        Ok(SocketAddr::new(ip, port))
    }

    async fn dial(&self, address: SocketAddr) -> Result<Box<dyn backend::Stream>> {
        let tls = match self.tls {
            true => {
                let client = Arc::new(unverified_client().map_err(ApiError::internal)?);
                Some((client, ServerName::IpAddress(address.ip().into())))
            }
            false => None,
        };
        let dialed = backend::dial(address, tls).await;
        dialed.map_err(|error| {
            let why = match error.kind() {
                ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                ErrorKind::TimedOut => "i/o timeout".to_owned(),
                _ => error.to_string(),
            };
            unreachable(&format!("dial tcp {address}: {why}"))
        })
    }
}

/// Whether an address is one of a machine, and neither of this one alone nor of this link. Source:
/// `net.IP.IsGlobalUnicast`.
fn is_global_unicast(ip: &IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_link_local()
                || ip.is_broadcast())
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_multicast()
                || ip.is_unicast_link_local())
        }
    }
}

fn unreachable(why: &str) -> ApiError {
    ApiError::unavailable(format!("error trying to reach service: {why}"))
}

/// The path of the proxy, and what is asked of the pod, both as the client wrote them.
fn split(path: &str) -> (&str, &str) {
    let mut parts = 0;
    let mut before = '/';
    let end = path.char_indices().find_map(|(at, c)| {
        let ends = c == '/' && before != '/';
        before = c;
        parts += usize::from(ends);
        (ends && parts == OWN_PARTS).then_some(at)
    });
    path.split_at(end.unwrap_or(path.len()))
}

/// How the client calls this server.
fn called(parts: &Parts) -> Option<HeaderValue> {
    let authority = || HeaderValue::from_str(parts.uri.authority()?.as_str()).ok();
    parts.headers.get(HOST).cloned().or_else(authority)
}

fn text(header: &HeaderValue) -> &str {
    header.to_str().unwrap_or_default()
}

fn redirect(there: &str) -> Result<Response<Body>> {
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let there = HeaderValue::from_str(there).map_err(ApiError::internal)?;
    response.headers_mut().insert(LOCATION, there);
    Ok(response)
}

/// Where a redirect within the pod leads from outside; `None` if that is where it leads anyway. Source:
/// `rewriteURL`.
fn relocated(location: &str, prefix: &str, names: &[String; 2]) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let elsewhere = !host.is_empty() && !names.iter().any(|name| name == host);
    if elsewhere || !uri.path().starts_with('/') {
        return None;
    }
    let path = uri.path();
    let path = match path.starts_with(prefix) {
        true => path.to_owned(),
        false => format!("{prefix}{path}"),
    };
    Some(with_query(&path, uri.query()))
}

#[cfg(test)]
mod tests;
