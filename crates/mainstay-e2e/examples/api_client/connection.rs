//! HTTP/2 over TLS, as kubectl has it.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// The API of an instance of mainstay.
pub(crate) struct Api {
    pub(crate) root_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    /// Who asks.
    pub(crate) token: String,
}

/// A connection, which carries any number of calls at the same time.
pub(crate) struct Connection {
    requests: http2::SendRequest<Full<Bytes>>,
    /// `https://` and the address.
    server: String,
    authorization: String,
    /// What sends and receives, as long as this is there.
    _driver: JoinSet<()>,
}

/// What a watch is told, a line for each event.
pub(crate) struct Watch(Incoming);

// === impl Api ===

impl Api {
    /// Connects, and checks that it is this instance.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let path = self.run_dir.join("secure-port");
        let port = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let port = port.trim().parse().with_context(|| format!("{port} is no port"))?;
        let address = Ipv4Addr::LOCALHOST;
        let tcp = TcpStream::connect((address, port)).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.into());
        let tls = TlsConnector::from(Arc::new(self.tls()?)).connect(name, tcp).await?;
        let http = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        let (requests, driver) = http;
        let mut drivers = JoinSet::new();
        drivers.spawn(async move {
            if let Err(error) = driver.await {
                eprintln!("a connection ended: {error}");
            }
        });
        Ok(Connection {
            requests,
            server: format!("https://{address}:{port}"),
            authorization: format!("Bearer {}", self.token),
            _driver: drivers,
        })
    }

    fn tls(&self) -> anyhow::Result<ClientConfig> {
        let path = self.root_dir.join("pki/ca.crt");
        let context = || format!("cannot use {}", path.display());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(&path).with_context(context)? {
            roots.add(certificate.with_context(context)?).with_context(context)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

// === impl Connection ===

impl Connection {
    /// Sends a request; its answer may go on for ever.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Vec<u8>,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.server))
            .header(AUTHORIZATION, &self.authorization);
        if !content_type.is_empty() {
            request = request.header(CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::from(body))?;
        Ok(self.requests.clone().send_request(request).await?)
    }

    /// Sends a request and reads its answer.
    pub(crate) async fn answer(
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
    pub(crate) async fn done(
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
    pub(crate) async fn watch(&self, path: &str) -> anyhow::Result<Watch> {
        let answer = self.call(Method::GET, path, "", Vec::new()).await?;
        ensure!(answer.status().is_success(), "GET {path}: {}", answer.status());
        Ok(Watch(answer.into_body()))
    }
}

// === impl Watch ===

impl Watch {
    /// Gives each line to `tell`, for ever: why it has ended.
    pub(crate) async fn each(self, tell: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Error {
        match self.read(tell).await {
            Ok(()) => anyhow!("the watch has ended"),
            Err(error) => error,
        }
    }

    async fn read(
        mut self,
        mut tell: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut text = Vec::new();
        while let Some(frame) = self.0.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            text.extend_from_slice(&data);
            let mut told = 0;
            for line in text.split_inclusive(|byte| *byte == b'\n') {
                if line.ends_with(b"\n") {
                    tell(line)?;
                    told += line.len();
                }
            }
            text.drain(..told);
        }
        Ok(())
    }
}
