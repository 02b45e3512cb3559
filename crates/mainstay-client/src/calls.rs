//! Requests.

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{Extensions, Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::lines::Lines;
use crate::{CallError, PATIENCE, Partial};

/// For those who need nothing but the metadata, of a list and of an object.
pub(crate) const PARTIAL_LIST: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";
pub(crate) const PARTIAL: &str =
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Calls {
    client: kube::Client,
    agent: Arc<str>,
    /// What every request carries for whoever passes it on.
    extensions: Extensions,
}

/// How an object is to be deleted. What is not said is as the API has it by default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deletion<'a> {
    /// It is deleted only if it has this UID.
    pub uid: &'a str,
    /// And, if it says one, this resource version.
    pub version: Option<&'a str>,
    /// Seconds; zero deletes it at once.
    pub grace: Option<u32>,
    /// What becomes of what it owns: `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<&'a str>,
}

impl<'a> Deletion<'a> {
    /// Of the object that has this UID.
    pub fn of(uid: &'a str) -> Self {
        Self { uid, ..Self::default() }
    }
}

impl Calls {
    /// `agent` says who asks: its first word, up to a `/`, is the name under which the API remembers
    /// who wrote a field.
    pub fn new(client: kube::Client, agent: &str) -> Self {
        Self { client, agent: agent.into(), extensions: Extensions::new() }
    }

    /// The same, whose requests carry this for a service in this process, which is no part of what is sent over a
    /// wire. So many can share one client, which has 10 KiB.
    #[must_use]
    pub fn carrying<T: Clone + Send + Sync + 'static>(mut self, what: T) -> Self {
        self.extensions.insert(what);
        self
    }

    /// Nothing but an object's metadata.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn get_metadata(&self, path: &str) -> Result<Partial, CallError> {
        self.get_as(path, Some(PARTIAL)).await
    }

    /// An object, or a list.
    ///
    /// # Errors
    ///
    /// These and those of the other calls: when there is no answer within [`PATIENCE`], when it is a
    /// refusal, and when it cannot be read.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.get_as(path, None).await
    }

    /// As [`get`](Self::get), in the form that `accept` asks for.
    pub(crate) async fn get_as<T: DeserializeOwned>(
        &self,
        path: &str,
        accept: Option<&'static str>,
    ) -> Result<T, CallError> {
        self.send(Method::GET, path, accept, None::<(&str, &())>).await
    }

    /// Makes an object.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn post<T: DeserializeOwned, B: Serialize>(
        &self,
        path: &str,
        object: &B,
    ) -> Result<T, CallError> {
        self.send(Method::POST, path, None, Some(("application/json", object))).await
    }

    /// Replaces an object.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn put<T: DeserializeOwned, B: Serialize>(
        &self,
        path: &str,
        object: &B,
    ) -> Result<T, CallError> {
        self.send(Method::PUT, path, None, Some(("application/json", object))).await
    }

    /// A strategic merge patch.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<T, CallError> {
        let kind = "application/strategic-merge-patch+json";
        self.send(Method::PATCH, path, None, Some((kind, patch))).await
    }

    /// A JSON merge patch, which every kind takes.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn merge<T: DeserializeOwned>(
        &self,
        path: &str,
        patch: &Value,
    ) -> Result<T, CallError> {
        let kind = "application/merge-patch+json";
        self.send(Method::PATCH, path, None, Some((kind, patch))).await
    }

    /// Writes the status of an object, whatever else of it changed since it was read; not if there is
    /// another one in its place.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get); [`Conflict`](crate::CallErrorKind::Conflict) also when the object
    /// has another UID.
    pub async fn put_status<S: Serialize>(
        &self,
        path: &str,
        uid: &str,
        status: &S,
    ) -> Result<(), CallError> {
        // As JSON: what this program does not know of is not lost.
        let mut object: Value = self.get(path).await?;
        if object["metadata"]["uid"] != uid {
            return Err(CallError::conflict(format!("{path}: the object is another one by now")));
        }
        object["status"] = serde_json::to_value(status)
            .map_err(|error| CallError::refused(format!("PUT {path}/status: {error}")))?;
        self.put::<Value, _>(&format!("{path}/status"), &object).await.map(drop)
    }

    /// Answers the object as it is after that, or a status.
    ///
    /// # Errors
    ///
    /// As with [`get`](Self::get).
    pub async fn delete(&self, path: &str, deletion: Deletion<'_>) -> Result<Value, CallError> {
        let Deletion { uid, version, grace, propagation } = deletion;
        let mut options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        });
        if let Some(version) = version {
            options["preconditions"]["resourceVersion"] = version.into();
        }
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = grace.into();
        }
        if let Some(propagation) = propagation {
            options["propagationPolicy"] = propagation.into();
        }
        self.send(Method::DELETE, path, None, Some(("application/json", &options))).await
    }

    /// What comes on a watch.
    pub(crate) async fn watch(
        &self,
        path: &str,
        accept: Option<&'static str>,
        asked: &str,
    ) -> Result<Lines, CallError> {
        let request = self.request(Method::GET, path, accept);
        // Servers may compress each event by itself, which the client does not understand.
        let request = request.header(ACCEPT_ENCODING, "identity").body(Vec::new());
        let request = request.map_err(|error| CallError::refused(format!("{asked}: {error}")))?;
        match timeout(PATIENCE, self.client.request_stream(request)).await {
            Ok(Ok(answer)) => Ok(Lines::new(answer)),
            Ok(Err(error)) => Err(CallError::of(asked, &error)),
            Err(_) => Err(CallError::late(asked)),
        }
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
    ) -> http::request::Builder {
        let mut request = Request::builder().method(method).uri(path);
        // There are none where something else of the request is wrong, which is told when it is made.
        if let Some(extensions) = request.extensions_mut() {
            extensions.clone_from(&self.extensions);
        }
        let request = request.header(USER_AGENT, &*self.agent);
        match accept {
            Some(accept) => request.header(ACCEPT, accept),
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        accept: Option<&'static str>,
        body: Option<(&str, &impl Serialize)>,
    ) -> Result<T, CallError> {
        let asked = || format!("{method} {path}");
        let failed = |message: String| CallError::refused(format!("{}: {message}", asked()));
        let mut request = self.request(method.clone(), path, accept);
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

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").field("agent", &self.agent).finish_non_exhaustive()
    }
}
