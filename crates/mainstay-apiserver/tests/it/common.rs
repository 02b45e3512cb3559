//! A server over a store of its own, asked without a connection.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use mainstay_apiserver::{Access, ApiServer, Body, Config, Peer, User, boxed};
use mainstay_pki::{Pki, StaticTokens, Wanted};
use mainstay_store::Store;
use mainstay_store::embedded::{EmbeddedStore, Options};
use serde_json::Value;
use tempfile::TempDir;

/// A server that goes with what it had on disk.
pub(crate) struct Server {
    pub(crate) api: ApiServer,
    _directory: TempDir,
}

/// An answer, read.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

/// A server with nothing but what every cluster has.
pub(crate) async fn server() -> Server {
    server_over(|store| store).await
}

/// The same over what is made of its store.
pub(crate) async fn server_over(wrap: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>) -> Server {
    let directory = TempDir::new().unwrap();
    let store = EmbeddedStore::open(&directory.path().join("api.redb"), Options::default());
    let wanted = Wanted {
        node_name: "n1".into(),
        host_name: "n1".into(),
        addresses: BTreeSet::new(),
        extra: BTreeSet::new(),
    };
    let (pki, _) = Pki::open(&directory.path().join("pki"), &wanted, Timestamp::now()).unwrap();
    let config = Config {
        store: wrap(Arc::new(store.unwrap())),
        access: Access::new(pki.tokens().clone(), StaticTokens::default()),
        nodes: None,
        version: "v1.36.0".into(),
    };
    Server { api: ApiServer::open(config).await.unwrap(), _directory: directory }
}

impl Server {
    /// Asks as somebody who may do everything.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        self.ask_as(User::master("admin"), method, path, "application/json", body).await
    }

    /// Asks as somebody, with a body of some type.
    pub(crate) async fn ask_as(
        &self,
        user: User,
        method: &str,
        path: &str,
        media: &str,
        body: Option<&Value>,
    ) -> Response {
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("content-type", media)
            .header("user-agent", "test/1")
            .body(Full::new(bytes))
            .unwrap();
        self.send(user, request).await
    }

    /// Sends any request.
    pub(crate) async fn send(&self, user: User, request: Request<Full<Bytes>>) -> Response {
        let response = self.raw(user, request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let warnings = parts.headers.get_all("warning").iter();
        Response {
            code: parts.status.as_u16(),
            body: serde_json::from_str(&text).unwrap_or(Value::String(text)),
            warnings: warnings.map(|it| it.to_str().unwrap().to_owned()).collect(),
        }
    }

    /// Sends a request and leaves the body to be read.
    pub(crate) async fn raw(
        &self,
        user: User,
        request: Request<Full<Bytes>>,
    ) -> http::Response<Body> {
        self.api.handle(request.map(boxed), &Peer::Trusted(user)).await
    }
}
