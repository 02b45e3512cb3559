//! Speaking to a Kubernetes API.
//!
//! # Guarantees
//!
//! - Every request has an end: an API that is wedged is one that is away.
//! - Nothing on the way from a manifest to a container waits for anything here.

mod pods;
mod watch;

use std::sync::LazyLock;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::KUBERNETES;

pub(crate) use pods::{ApiPods, Entry};
pub(crate) use watch::follow;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first wait after something failed.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait after an API did not answer. A short one, so that what it shows is right within a
/// second of its return; one request a second is no burden to anybody.
pub(crate) const LONGEST_AWAY: Duration = Duration::from_millis(800);

/// The longest wait after an API refused something. Source: the cap of the kubelet's registration,
/// `pkg/kubelet/kubelet_node_status.go`.
pub(crate) const LONGEST_REFUSED: Duration = Duration::from_secs(7);

/// Who asks. The first word is the name under which the API remembers who wrote a field.
static AGENT: LazyLock<String> = LazyLock::new(|| {
    format!("kubelet/{KUBERNETES} (linux) mainstay/{}", env!("CARGO_PKG_VERSION"))
});

/// How the agent reaches a Kubernetes API.
#[derive(Clone)]
pub struct ApiAccess {
    /// Acts as `system:node:<name>` of the group `system:nodes`.
    pub client: kube::Client,
    /// The port of the node API; `None` when nothing is served.
    pub node_port: Option<u16>,
}

/// Sends requests.
#[derive(Clone)]
pub(crate) struct Calls {
    client: kube::Client,
}

/// A request that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallError {
    pub(crate) kind: CallErrorKind,
    /// What was asked, and the answer.
    pub(crate) message: String,
}

/// What an error means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// There is no such object, or no such namespace.
    NotFound,
    /// There is such an object already.
    AlreadyExists,
    /// The object is not, or not any more, the one that was meant.
    Conflict,
    /// The version to go on from is too old.
    Gone,
    /// The API refuses it as it stands.
    Refused,
    /// No answer, or none that says anything: the API may be back in a moment.
    Away,
}

/// How an object is to be deleted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deletion<'a> {
    /// It is deleted only if it has this UID.
    pub(crate) uid: &'a str,
    /// Seconds; zero deletes it at once.
    pub(crate) grace: u32,
}

// === impl ApiAccess ===

impl std::fmt::Debug for ApiAccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiAccess").field("node_port", &self.node_port).finish_non_exhaustive()
    }
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.send(Method::GET, path, None::<(&str, &())>).await
    }

    pub(crate) async fn post<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        object: &T,
    ) -> Result<T, CallError> {
        self.send(Method::POST, path, Some(("application/json", object))).await
    }

    pub(crate) async fn put<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        object: &T,
    ) -> Result<T, CallError> {
        self.send(Method::PUT, path, Some(("application/json", object))).await
    }

    /// A strategic merge patch.
    pub(crate) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<T, CallError> {
        let kind = "application/strategic-merge-patch+json";
        self.send(Method::PATCH, path, Some((kind, patch))).await
    }

    /// Answers the object as it is after that, or a status.
    pub(crate) async fn delete(
        &self,
        path: &str,
        deletion: Deletion<'_>,
    ) -> Result<Value, CallError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": deletion.grace,
            "preconditions": {"uid": deletion.uid},
        });
        self.send(Method::DELETE, path, Some(("application/json", &options))).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &impl Serialize)>,
    ) -> Result<T, CallError> {
        let asked = || format!("{method} {path}");
        let failed = |message: String| CallError {
            kind: CallErrorKind::Refused,
            message: format!("{}: {message}", asked()),
        };
        let mut request = Request::builder().method(method.clone()).uri(path);
        request = request.header(USER_AGENT, AGENT.as_str());
        let mut bytes = Vec::new();
        if let Some((kind, body)) = body {
            request = request.header(CONTENT_TYPE, kind);
            bytes = serde_json::to_vec(body).map_err(|error| failed(error.to_string()))?;
        }
        let request = request.body(bytes).map_err(|error| failed(error.to_string()))?;
        match timeout(PATIENCE, self.client.request(request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(CallError::of(&asked(), &error)),
            Err(_) => Err(CallError::late(&asked())),
        }
    }
}

// === impl CallError ===

impl CallError {
    fn late(asked: &str) -> Self {
        let message = format!("{asked}: no answer within {} seconds", PATIENCE.as_secs());
        Self { kind: CallErrorKind::Away, message }
    }

    fn of(asked: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(asked, status),
            error => {
                let message = format!("{asked}: {}", mainstay_cri::chain(error));
                Self { kind: CallErrorKind::Away, message }
            }
        }
    }

    fn of_status(asked: &str, status: &kube::core::Status) -> Self {
        let kind = match (status.code, status.reason.as_str()) {
            (404, _) => CallErrorKind::NotFound,
            (409, "AlreadyExists") => CallErrorKind::AlreadyExists,
            (409, _) => CallErrorKind::Conflict,
            (410, _) => CallErrorKind::Gone,
            (408 | 429 | 500.., _) => CallErrorKind::Away,
            _ => CallErrorKind::Refused,
        };
        Self { kind, message: format!("{asked}: {}", status.message) }
    }

    /// The longest wait before it is tried again.
    pub(crate) fn longest(&self) -> Duration {
        match self.kind {
            CallErrorKind::Away => LONGEST_AWAY,
            CallErrorKind::NotFound
            | CallErrorKind::AlreadyExists
            | CallErrorKind::Conflict
            | CallErrorKind::Gone
            | CallErrorKind::Refused => LONGEST_REFUSED,
        }
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// What stands in the way of one thing: how often it failed in a row, and what was said of it.
#[derive(Default)]
pub(crate) struct Trouble {
    count: u32,
    said: Option<String>,
}

impl Trouble {
    /// Whether a failure is another one than was said last. It is to be said then.
    pub(crate) fn is_news(&mut self, error: &CallError) -> bool {
        let news = self.said.as_ref() != Some(&error.message);
        if news {
            self.said = Some(error.message.clone());
        }
        news
    }

    /// Counts a failure; answers how long to wait after it.
    pub(crate) fn count(&mut self, longest: Duration) -> Duration {
        self.count += 1;
        wait_after(self.count, longest)
    }

    /// Counts from the beginning again.
    pub(crate) fn recount(&mut self) {
        self.count = 0;
    }

    /// Forgets what was said; answers whether anything was.
    pub(crate) fn unsay(&mut self) -> bool {
        self.said.take().is_some()
    }

    /// It went well. Answers whether a failure was said before.
    pub(crate) fn end(&mut self) -> bool {
        self.recount();
        self.unsay()
    }
}

/// How long to wait after something failed so many times in a row.
pub(crate) fn wait_after(failures: u32, longest: Duration) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(longest)
}

/// Where a pod is.
pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

#[cfg(test)]
pub(crate) mod fake;
