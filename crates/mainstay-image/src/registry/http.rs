//! Asking one registry: connections, certificates, redirections, answers.
//!
//! Source: OCI distribution-spec v1.1.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, RETRY_AFTER, USER_AGENT, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use mainstay_proxy::Dialer;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use tokio::time::timeout;

use super::challenge;
use super::endpoint::{Endpoint, Scheme, configured_as};
use super::error::RequestError;
use super::identity::Identity;
use super::{RegistryConfig, retry};

/// The most redirections one after the other. Source: Go's `net/http`, `defaultCheckRedirect`.
const REDIRECTS_MAX: usize = 10;
/// The longest answer of a token server, or explanation of an error, that is read, in bytes.
pub(super) const ANSWER_MAX: u64 = 256 << 10;

type HttpClient = Client<HttpsConnector<Dialer>, Full<Bytes>>;

/// What is remembered while one image is pulled: connections, tokens, which certificates count.
/// All of it goes with this.
pub(super) struct Session {
    config: Arc<RegistryConfig>,
    /// What tokens have to be for.
    pub(super) repository: String,
    /// The authorities that this machine trusts; read when the first one is needed.
    roots: tokio::sync::OnceCell<Arc<RootCertStore>>,
    clients: Mutex<HashMap<String, HttpClient>>,
    pub(super) identities: Mutex<HashMap<String, Identity>>,
    /// Held while a header is made anew: the layers that are refused at the same time need one.
    pub(super) renewing: tokio::sync::Mutex<()>,
    /// Hosts on this machine that turned out to speak plain HTTP.
    pub(super) plain: Mutex<Vec<String>>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    /// Below `/v2/`.
    pub(super) path: &'a str,
    pub(super) accept: &'a str,
    /// The first byte that is wanted.
    pub(super) from: u64,
}

/// The content of an answer.
pub(super) struct Body {
    pub(super) host: String,
    incoming: Incoming,
    stalled: Duration,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

// === impl Session ===

impl Session {
    pub(super) fn new(config: Arc<RegistryConfig>, repository: &str) -> Self {
        Self {
            config,
            repository: repository.into(),
            roots: tokio::sync::OnceCell::new(),
            clients: Mutex::default(),
            identities: Mutex::default(),
            renewing: tokio::sync::Mutex::default(),
            plain: Mutex::default(),
        }
    }

    /// Asks `endpoint`, as whoever it takes. Any answer but a success is an error.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
    ) -> Result<(Response<()>, Body), RequestError> {
        loop {
            let shown = self.header(endpoint);
            let (response, body) = self.exchange_either(endpoint, ask, shown.clone()).await?;
            match response.status() {
                status if status.is_success() => {
                    self.accepted(endpoint);
                    return Ok((response, body));
                }
                StatusCode::UNAUTHORIZED => {
                    let headers = response.headers().get_all(WWW_AUTHENTICATE).iter();
                    let challenge = challenge::choose(headers.filter_map(|h| h.to_str().ok()));
                    let message = body.explanation().await;
                    let Some(challenge) = challenge else {
                        return Err(RequestError::Challenge { host: endpoint.authority.clone() });
                    };
                    self.renew(endpoint, shown, &challenge, message).await?;
                }
                StatusCode::FORBIDDEN => {
                    let anonymous = self.is_anonymous(endpoint);
                    let message = body.explanation().await;
                    return Err(RequestError::Unauthorized { anonymous, message });
                }
                _ => return Err(refusal(&response, body).await),
            }
        }
    }

    /// Asks over TLS, or without where that is allowed and there is none.
    async fn exchange_either(
        &self,
        endpoint: &Endpoint,
        ask: Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<(Response<()>, Body), RequestError> {
        let plain = lock(&self.plain).contains(&endpoint.authority);
        let scheme = match endpoint.scheme {
            Scheme::Http => "http",
            Scheme::Either if plain => "http",
            Scheme::Https | Scheme::Either => "https",
        };
        let request = |scheme| {
            let mut request = Request::builder()
                .method(ask.method)
                .uri(endpoint.url(scheme, ask.path))
                .header(ACCEPT, ask.accept);
            if ask.from > 0 {
                request = request.header(RANGE, format!("bytes={}-", ask.from));
            }
            if let Some(authorization) = &authorization {
                request = request.header(AUTHORIZATION, authorization);
            }
            let url = || RequestError::Address(endpoint.url(scheme, ask.path));
            request.body(Full::default()).map_err(|_| url())
        };
        match self.exchange(request(scheme)?).await {
            Err(RequestError::PlainHttp { .. } | RequestError::Connect { .. })
                if endpoint.scheme == Scheme::Either && !plain =>
            {
                let answer = self.exchange(request("http")?).await?;
                lock(&self.plain).push(endpoint.authority.clone());
                Ok(answer)
            }
            answer => answer,
        }
    }

    /// Sends a request, and again wherever it is redirected to, unless there is something in it:
    /// that is a secret for whom it was sent to.
    pub(super) async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<()>, Body), RequestError> {
        let agent = HeaderValue::from_str(&self.config.user_agent);
        request.headers_mut().extend(agent.ok().map(|agent| (USER_AGENT, agent)));
        for _ in 0..=REDIRECTS_MAX {
            let from = request.uri().clone();
            let host = from.authority().map(ToString::to_string).unwrap_or_default();
            let client = self.client(&host, from.scheme_str() == Some("https")).await?;
            let waited = self.config.timeouts.answer;
            let answer = timeout(waited, client.request(request.clone())).await;
            let answer =
                answer.map_err(|_| RequestError::Stalled { host: host.clone(), waited })?;
            let response = answer.map_err(|error| {
                let no_roots = self.roots.get().is_some_and(|roots| roots.is_empty());
                let connecting = error.is_connect();
                RequestError::of_connection(host.clone(), connecting, no_roots, error)
            })?;
            let location = match response.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => response.headers().get(LOCATION),
                _ => None,
            };
            let Some(location) = location else {
                let (parts, incoming) = response.into_parts();
                let stalled = self.config.timeouts.stalled;
                let body = Body { host, incoming, stalled };
                return Ok((Response::from_parts(parts, ()), body));
            };
            let location = String::from_utf8_lossy(location.as_bytes()).into_owned();
            let to = match *request.method() {
                Method::POST => None,
                _ => redirected(&from, &location),
            };
            let to = to.ok_or_else(|| RequestError::Redirect { host, location })?;
            // What is for the registry is not for whoever keeps its blobs.
            if to.authority() != from.authority() {
                request.headers_mut().remove(AUTHORIZATION);
            }
            *request.uri_mut() = to;
        }
        let host = request.uri().host().unwrap_or_default().to_owned();
        Err(RequestError::Redirect { host, location: request.uri().to_string() })
    }

    /// A client for a host: each has its own, since each may have its own authorities.
    async fn client(&self, host: &str, tls: bool) -> Result<HttpClient, RequestError> {
        let key = format!("{tls} {host}");
        if let Some(client) = lock(&self.clients).get(&key) {
            return Ok(client.clone());
        }
        let roots = match tls {
            true => self.roots_for(host).await?,
            false => RootCertStore::empty(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| RequestError::Connect { host: host.into(), source: error.into() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(self.config.timeouts.connect));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(self.config.parallel_layers)
            .build(
                https.enable_http1().wrap_connector(Dialer::new(tcp, self.config.proxies.clone())),
            );
        lock(&self.clients).insert(key, HttpClient::clone(&client));
        Ok(client)
    }

    /// The authorities that count for `host`: those of this machine and those configured.
    async fn roots_for(&self, host: &str) -> Result<RootCertStore, RequestError> {
        let of_machine = self.roots.get_or_init(|| async {
            // Reads files, so it must not hold up others.
            let load = tokio::task::spawn_blocking(|| {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            });
            Arc::new(load.await.unwrap_or_else(|_| RootCertStore::empty()))
        });
        let mut roots = RootCertStore::clone(of_machine.await);
        let configured = self.config.hosts.get(configured_as(host));
        let configured = configured.into_iter().flat_map(|host| &host.authorities);
        for pem in configured {
            let wrong = || RequestError::Authority { host: host.into() };
            let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem)
                .collect::<Result<_, _>>()
                .map_err(|_| wrong())?;
            if certificates.is_empty() {
                return Err(wrong());
            }
            for certificate in certificates {
                roots.add(certificate).map_err(|_| wrong())?;
            }
        }
        Ok(roots)
    }
}

// === impl Body ===

impl Body {
    /// The next part, or `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, RequestError> {
        loop {
            let waited = self.stalled;
            let frame = timeout(waited, self.incoming.frame()).await;
            let frame =
                frame.map_err(|_| RequestError::Stalled { host: self.host.clone(), waited })?;
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    // Trailers say nothing that is needed.
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => {
                    return Err(RequestError::Broken {
                        host: self.host.clone(),
                        source: error.into(),
                    });
                }
            }
        }
    }

    /// All of it, if that is at most `limit` bytes.
    pub(super) async fn read(mut self, limit: u64) -> Result<Vec<u8>, RequestError> {
        let mut content = Vec::new();
        while let Some(part) = self.next().await? {
            if content.len() as u64 + part.len() as u64 > limit {
                return Err(RequestError::Long { host: self.host, limit });
            }
            content.extend_from_slice(&part);
        }
        Ok(content)
    }

    /// What a registry says about a failure, in a line; empty if nothing that is understood.
    async fn explanation(self) -> String {
        let Ok(bytes) = self.read(ANSWER_MAX).await else { return String::new() };
        let Ok(Errors { errors }) = serde_json::from_slice(&bytes) else { return String::new() };
        let line = |ErrorEntry { code, message }: ErrorEntry| match message.as_str() {
            "" => code,
            _ => message,
        };
        let lines: Vec<String> = errors.into_iter().take(3).map(line).collect();
        let mut text = lines.join(", ").replace(|c: char| c.is_control(), " ");
        if text.len() > 300 {
            let end = (0..=300).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("...");
        }
        text
    }
}

/// An answer that is no success, as an error.
pub(super) async fn refusal(response: &Response<()>, body: Body) -> RequestError {
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok());
    RequestError::Status {
        status: response.status(),
        retry_after: retry_after.and_then(retry::retry_after),
        message: body.explanation().await,
    }
}

/// Nothing that could panic is done while one of these locks is held, so a poisoned one is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a redirection from `from` leads, or `None` if it must not be followed: to something else
/// than HTTP, or from TLS to plain HTTP.
fn redirected(from: &Uri, location: &str) -> Option<Uri> {
    let scheme = from.scheme_str()?;
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", from.authority()?)
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{}{directory}/{location}", from.authority()?)
    };
    let absolute = absolute.split('#').next()?;
    let to: Uri = absolute.parse().ok()?;
    let allowed = match to.scheme_str()? {
        "https" => true,
        "http" => scheme == "http",
        _ => false,
    };
    (allowed && to.authority().is_some()).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_stay_as_safe_as_they_were() {
        let check = |from: &str, location: &str, to: Option<&str>| {
            let found = redirected(&from.parse().unwrap(), location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), to, "{location}");
        };
        let from = "https://r.example/v2/a/blobs/x";
        check(from, "https://cdn.example/x?sig=1#frag", Some("https://cdn.example/x?sig=1"));
        check(from, "/other", Some("https://r.example/other"));
        check(from, "//cdn.example/x", Some("https://cdn.example/x"));
        check(from, "y", Some("https://r.example/v2/a/blobs/y"));
        check(from, "http://cdn.example/x", None);
        check(from, "ftp://cdn.example/x", None);
        check(from, "file:///etc/passwd", None);
        check(from, "https://", None);
        check(from, "https://a b/", None);
        check("http://r.example/x", "http://cdn.example/x", Some("http://cdn.example/x"));
    }
}
