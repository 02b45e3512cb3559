//! A client of the Kubernetes API: HTTP/2 over TLS, as kubectl has it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// A server, and who asks it.
#[derive(Clone)]
pub struct Api {
    /// Where it listens.
    pub address: SocketAddr,
    tls: Arc<ClientConfig>,
    /// `Bearer` and a token, if that is who asks.
    authorization: Option<String>,
}

/// A connection, which carries any number of calls at the same time.
pub struct Connection {
    requests: http2::SendRequest<Full<Bytes>>,
    /// `https://` and the address.
    server: String,
    authorization: Option<String>,
    /// What sends and receives, as long as this is there.
    _driver: JoinSet<()>,
}

/// What a watch is told, a line for each event.
pub struct Watch {
    body: Incoming,
    /// What came and was not given to anybody yet.
    text: Vec<u8>,
}

// === impl Api ===

impl Api {
    /// The instance of mainstay with these directories.
    ///
    /// # Errors
    ///
    /// When one of its files cannot be used, since it does not run or never ran.
    pub fn of_instance(root_dir: &Path, run_dir: &Path, token: &str) -> anyhow::Result<Self> {
        let path = run_dir.join("secure-port");
        let port = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let port = port.trim().parse().with_context(|| format!("{port} is no port"))?;
        let path = root_dir.join("pki/ca.crt");
        let authority =
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let authorization = Some(format!("Bearer {token}"));
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Ok(Self { address, tls: tls(&authority, None)?, authorization })
    }

    /// The server and the user of a kubeconfig with one of each, as
    /// `kubectl config view --raw --flatten --minify -o json` tells it.
    ///
    /// # Errors
    ///
    /// When something is missing in it, or when the server's name is no address.
    pub fn of_kubeconfig(config: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| {
            let found = config.pointer(pointer).and_then(Value::as_str);
            found.with_context(|| format!("the kubeconfig has no {pointer}"))
        };
        let data = |pointer| anyhow::Ok(BASE64_STANDARD.decode(text(pointer)?)?);
        let server = text("/clusters/0/cluster/server")?;
        let address = server.trim_start_matches("https://").trim_end_matches('/');
        let address = address.parse().with_context(|| format!("{server} has no address"))?;
        let authority = data("/clusters/0/cluster/certificate-authority-data")?;
        let authorization = text("/users/0/user/token").ok().map(|token| format!("Bearer {token}"));
        let pair = match authorization {
            Some(_) => None,
            None => Some((
                data("/users/0/user/client-certificate-data")?,
                data("/users/0/user/client-key-data")?,
            )),
        };
        Ok(Self { address, tls: tls(&authority, pair)?, authorization })
    }

    /// Connects, and checks that it is this server.
    ///
    /// # Errors
    ///
    /// When it is not, or when nobody listens.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let address = self.address;
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let tls = TlsConnector::from(self.tls.clone()).connect(name, tcp).await?;
        let http = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        let (requests, driver) = http;
        let mut drivers = JoinSet::new();
        // Why it ends is told to whoever waits for an answer.
        drivers.spawn(async move { driver.await.unwrap_or_default() });
        let (server, authorization) = (format!("https://{address}"), self.authorization.clone());
        Ok(Connection { requests, server, authorization, _driver: drivers })
    }
}

/// What is asked of a server's certificate, and shown to it: a certificate and its key.
fn tls(authority: &[u8], pair: Option<(Vec<u8>, Vec<u8>)>) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    let mut config = match pair {
        None => config.with_no_client_auth(),
        Some((certificates, key)) => {
            let certificates =
                CertificateDer::pem_slice_iter(&certificates).collect::<Result<_, _>>();
            config.with_client_auth_cert(certificates?, PrivateKeyDer::from_pem_slice(&key)?)?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

// === impl Connection ===

impl Connection {
    /// Sends a request; its answer may go on for ever.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.server));
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::from(body))?;
        Ok(self.requests.clone().send_request(request).await?)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn answer(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let answer = self.call(method, path, content_type, body).await?;
        let status = answer.status();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    /// The same.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn done(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Bytes> {
        let (status, body) = self.answer(method.clone(), path, content_type, body).await?;
        let text = || String::from_utf8_lossy(&body);
        ensure!(status.is_success(), "{method} {path}: {status}: {}", text());
        Ok(body)
    }

    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// When the server refuses.
    pub async fn watch(&self, path: &str) -> anyhow::Result<Watch> {
        let answer = self.call(Method::GET, path, "", Vec::new()).await?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        Ok(Watch { body: answer.into_body(), text: Vec::new() })
    }
}

// === impl Watch ===

impl Watch {
    /// Gives each line to `tell`, for ever: why it has ended.
    pub async fn each(
        mut self,
        mut tell: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Error {
        loop {
            match self.next().await {
                Ok(Some(line)) => {
                    if let Err(error) = tell(&line) {
                        return error;
                    }
                }
                Ok(None) => return anyhow!("the watch has ended"),
                Err(error) => return error,
            }
        }
    }

    /// Waits for a line; `None` when the server has ended the watch in order.
    ///
    /// # Errors
    ///
    /// When the connection has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                return Ok(Some(self.text.drain(..=end).collect()));
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    self.text.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
                None => return Ok(None),
            }
        }
    }
}
