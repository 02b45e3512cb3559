//! Manifests that a server has.
//!
//! # Flow
//!
//! One task asks the server again and again; what it answers goes to the merge as a file's bytes do.
//!
//! # Guarantees
//!
//! - Only a whole answer with status 200 and something in it counts. Whatever else comes, or nothing, leaves
//!   what there was: the kubelet stops all its pods when a body is empty.
//! - An answer is bounded in size, in time and in redirects.
//! - Credentials are shown to nobody but the server that they are for, and in no message. What comes over
//!   TLS is not replaced by what comes without.
//!
//! Source: `pkg/kubelet/config/http.go`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, LOCATION};
use http::{Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use mainstay_plan::backoff::after_failures;
use mainstay_plan::probe::{HttpGet, Redirect};
use mainstay_pod::MAX_FILE_BYTES;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use super::manifest_dir::{Batch, Change, Place};
use crate::probe::{dial, driven, message};

/// How long an answer may take, redirects included. Source: `NewSourceURL`.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often an answer may lead elsewhere. Source: the default of Go's `net/http`.
const REDIRECTS: usize = 10;
/// How many bytes of an answer's headers are read.
const MOST_HEADERS: usize = 64 << 10;

/// Where manifests are, and how it is asked for them.
#[derive(Clone)]
pub struct ManifestUrl {
    request: HttpGet,
    /// Without credentials: what people see, and what the ledger knows it by.
    name: PathBuf,
    interval: Duration,
}

/// A URL that cannot be asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UrlError(String);

impl std::fmt::Debug for ManifestUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ManifestUrl").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for ManifestUrl {
    fn eq(&self, other: &Self) -> bool {
        (&self.request, self.interval) == (&other.request, other.interval)
    }
}

impl ManifestUrl {
    /// A URL of `http` or `https`, with the headers that it is asked with, so often.
    ///
    /// # Errors
    ///
    /// When it is no such URL, or a header cannot be sent; no message has a header's value or a password.
    pub fn new(
        url: &str,
        headers: Vec<(String, String)>,
        interval: Duration,
    ) -> Result<Self, UrlError> {
        let mut request = parse(url).map_err(UrlError)?;
        // What the owner says of a header is all that is said of it.
        let is_said = |own: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(own));
        request.headers.retain(|(own, _)| !is_said(own));
        for (name, value) in headers {
            let is_name = HeaderName::from_bytes(name.as_bytes()).is_ok();
            if !is_name || HeaderValue::from_bytes(value.trim().as_bytes()).is_err() {
                return Err(UrlError(format!("the header {name:?} cannot be sent")));
            }
            request.headers.push((name, value));
        }
        let (path, _) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let name = HttpGet { path: path.to_owned(), ..request.clone() }.url();
        Ok(Self { request, name: name.into(), interval })
    }

    /// What it is called, as a path: nothing of it is a secret.
    pub fn name(&self) -> &Path {
        &self.name
    }
}

/// Source for credentials in a URL: `Request.SetBasicAuth` as `net/http` calls it.
fn parse(url: &str) -> Result<HttpGet, String> {
    // Whatever is wrong with it, it may have a password.
    let invalid = || "it is no URL such as https://host/manifests.yaml".to_owned();
    let (url, _) = url.split_once('#').unwrap_or((url, ""));
    let uri: Uri = url.parse().map_err(|_| invalid())?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err(invalid()),
    };
    let authority = uri.authority().ok_or_else(invalid)?;
    let (user, authority_text) = match authority.as_str().rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, authority.as_str()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(invalid());
    }
    let mut headers = vec![
        ("User-Agent".to_owned(), concat!("mainstay/", env!("CARGO_PKG_VERSION")).to_owned()),
        ("Accept".to_owned(), "*/*".to_owned()),
    ];
    if let Some(user) = user {
        let plain = crate::percent::decoded(user.as_bytes());
        let plain = if plain.contains(':') { plain } else { format!("{plain}:") };
        headers.push(("Authorization".to_owned(), format!("Basic {}", STANDARD.encode(plain))));
    }
    Ok(HttpGet {
        tls,
        host: host.to_owned(),
        port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
        authority: authority_text.to_owned(),
        path: uri.path_and_query().map_or("/", |it| it.as_str()).to_owned(),
        headers,
    })
}

/// Asks for ever.
pub(crate) async fn watch(url: ManifestUrl, batches: mpsc::UnboundedSender<Batch>) {
    let mut client = Client::default();
    let (mut failures, mut told) = (0, None);
    loop {
        let name = url.name.clone();
        let (error, mut batch) = match client.ask(&url.request).await {
            Ok(Some(bytes)) => {
                let (path, place) = (name.clone(), Place::default());
                (None, vec![Change::Read { path, bytes, place, exposed: false }])
            }
            Ok(None) => (None, Vec::new()),
            Err(error) => (Some(error), Vec::new()),
        };
        failures = if error.is_some() { failures + 1 } else { 0 };
        if told != error {
            told.clone_from(&error);
            batch.push(Change::Directory { path: name, error });
        }
        if !batch.is_empty() && batches.send(batch).is_err() {
            return;
        }
        sleep(match failures {
            0 => url.interval,
            count => after_failures(count, url.interval),
        })
        .await;
    }
}

/// What is remembered of the server.
#[derive(Default)]
struct Client {
    tls: Option<Arc<ClientConfig>>,
    /// What the last whole answer was called.
    tag: Option<HeaderValue>,
}

/// What an answer is.
enum Answer {
    /// Something new.
    Body(Vec<u8>, Option<HeaderValue>),
    /// The same as before.
    Same,
    /// It is to be asked for elsewhere.
    Elsewhere(String),
}

impl Client {
    /// What the server has, or nothing if it is what it was.
    async fn ask(&mut self, first: &HttpGet) -> Result<Option<Vec<u8>>, String> {
        let deadline = Instant::now() + PATIENCE;
        let mut request = first.clone();
        if let Some(tag) = self.tag.as_ref().and_then(|tag| tag.to_str().ok()) {
            request.headers.push((IF_NONE_MATCH.as_str().to_owned(), tag.to_owned()));
        }
        for _ in 0..REDIRECTS {
            let asked = timeout_at(deadline, self.exchange(&request, deadline)).await;
            let late = || Err("it took longer than 10s to answer".to_owned());
            let location = match asked.unwrap_or_else(|_| late())? {
                Answer::Body(bytes, tag) => {
                    self.tag = tag;
                    return Ok(Some(bytes));
                }
                Answer::Same => return Ok(None),
                Answer::Elsewhere(location) => location,
            };
            request = redirected(&request, &location)?;
        }
        Err(format!("stopped after {REDIRECTS} redirects"))
    }

    async fn exchange(&mut self, request: &HttpGet, deadline: Instant) -> Result<Answer, String> {
        let stream = dial(&request.host, request.port, deadline).await;
        let stream = stream.map_err(|error| error.to_string())?;
        if !request.tls {
            return converse(stream, request).await;
        }
        let name = ServerName::try_from(request.host.clone());
        let name = name.map_err(|_| format!("{:?} is no name for a server", request.host))?;
        let connector = TlsConnector::from(self.tls().await?);
        let stream = connector.connect(name, stream).await;
        converse(stream.map_err(|error| format!("tls: {error}"))?, request).await
    }

    /// TLS with whomever this machine trusts, which may change while nobody is trusted.
    async fn tls(&mut self) -> Result<Arc<ClientConfig>, String> {
        if let Some(tls) = &self.tls {
            return Ok(tls.clone());
        }
        let loaded = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(loaded.map_err(|error| error.to_string())?.certs);
        if roots.is_empty() {
            return Err("this machine has no certificate authorities; install them, such as \
                        Debian's package ca-certificates, or name a file with SSL_CERT_FILE"
                .to_owned());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(self.tls.insert(Arc::new(config)).clone())
    }
}

/// Where an answer leads. Another server is not told who asks.
fn redirected(request: &HttpGet, location: &str) -> Result<HttpGet, String> {
    let next = match request.redirected(location) {
        Redirect::To(next) if next.authority == request.authority => *next,
        Redirect::Broken(why) => return Err(why),
        Redirect::To(_) | Redirect::Elsewhere => {
            let scheme = if request.tls { "https:" } else { "http:" };
            let absolute = match location.starts_with("//") {
                true => format!("{scheme}{location}"),
                false => location.to_owned(),
            };
            parse(&absolute).map_err(|_| "it leads to what is no URL".to_owned())?
        }
    };
    if request.tls && !next.tls {
        return Err(format!("it leads from https to {}, which is not followed", next.authority));
    }
    Ok(next)
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    request: &HttpGet,
) -> Result<Answer, String> {
    let sent = message(request, false)?;
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.title_case_headers(true).max_buf_size(MOST_HEADERS);
    let broken = |error: hyper::Error| mainstay_cri::chain(&error);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let work = async { take(sender.send_request(sent).await.map_err(broken)?).await };
    driven(connection, work).await
}

async fn take(response: Response<Incoming>) -> Result<Answer, String> {
    let (parts, mut body) = response.into_parts();
    match parts.status {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED => return Ok(Answer::Same),
        status if status.is_redirection() => {
            let location = parts.headers.get(LOCATION).and_then(|it| it.to_str().ok());
            let location = location.ok_or_else(|| format!("{status}, and does not say whither"))?;
            return Ok(Answer::Elsewhere(location.to_owned()));
        }
        status => return Err(format!("it answers {status}")),
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| mainstay_cri::chain(&error))?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        if bytes.len() + data.len() >= MAX_FILE_BYTES {
            return Err(format!("it answers with {MAX_FILE_BYTES} bytes or more"));
        }
        bytes.extend_from_slice(data);
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(
            "it answers with nothing; a PodList without items is how to have no pods".into()
        );
    }
    Ok(Answer::Body(bytes, parts.headers.get(ETAG).cloned()))
}

#[cfg(test)]
mod tests;
