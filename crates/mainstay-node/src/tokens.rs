//! Tokens of service accounts for the volumes of pods.
//!
//! # Guarantees
//!
//! - A token is asked for once until it has to be replaced, and lives in memory only.
//! - One that cannot be replaced is used until it has expired.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use mainstay_client::{CallError, Calls};
use mainstay_plan::tokens::{self, WantedToken};
use mainstay_pod::Pod;
use serde::Deserialize;
use serde_json::json;

/// What they are asked for with, and those that are held.
pub(crate) struct Tokens {
    /// `None` without an API.
    calls: Option<Calls>,
    /// By the UID of the pod.
    held: Mutex<BTreeMap<(String, WantedToken), Held>>,
}

#[derive(Clone)]
struct Held {
    token: Arc<str>,
    expires: Timestamp,
    replace_at: Timestamp,
}

/// Source: `TokenRequest` of `authentication.k8s.io/v1`.
#[derive(Deserialize)]
struct Answer {
    spec: Spec,
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    expiration_seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: String,
    expiration_timestamp: Timestamp,
}

impl Tokens {
    pub(crate) fn new(calls: Option<Calls>) -> Self {
        Self { calls, held: Mutex::default() }
    }

    /// The tokens that a pod wants, and when the first of them is to be replaced.
    pub(crate) async fn of(&self, pod: &Pod) -> (tokens::Tokens, Option<Timestamp>) {
        let mut all = tokens::Tokens::new();
        let mut replace_at: Option<Timestamp> = None;
        for wanted in tokens::wanted(pod) {
            let token = match self.one(pod, &wanted).await {
                Ok(held) => {
                    replace_at =
                        Some(replace_at.map_or(held.replace_at, |at| at.min(held.replace_at)));
                    Ok(held.token)
                }
                Err(why) => Err(why.into()),
            };
            all.insert(wanted, token);
        }
        (all, replace_at)
    }

    async fn one(&self, pod: &Pod, wanted: &WantedToken) -> Result<Held, String> {
        let key = (pod.uid().to_owned(), wanted.clone());
        let known = self.lock().get(&key).cloned();
        let now = Timestamp::now();
        if let Some(known) = known.as_ref().filter(|known| now < known.replace_at) {
            return Ok(known.clone());
        }
        let Some(calls) = &self.calls else {
            return Err("failed to fetch token: the node belongs to no API".to_owned());
        };
        match ask(calls, pod, wanted).await {
            Ok(held) => {
                self.lock().insert(key, held.clone());
                Ok(held)
            }
            Err(error) => match known {
                Some(known) if now < known.expires => {
                    tracing::warn!(pod = %pod.full_name(), error = error.message, "cannot replace a token");
                    // It is tried again before the next one is due.
                    let soon = now.checked_add(jiff::SignedDuration::from_secs(10)).unwrap_or(now);
                    Ok(Held { replace_at: soon, ..known })
                }
                Some(_) => Err(format!("token expired and refresh failed: {}", error.answer)),
                None => Err(format!("failed to fetch token: {}", error.answer)),
            },
        }
    }

    /// Forgets the tokens of a pod that is gone.
    pub(crate) fn forget(&self, uid: &str) {
        self.lock().retain(|(of, _), _| of != uid);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, WantedToken), Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(calls: &Calls, pod: &Pod, wanted: &WantedToken) -> Result<Held, CallError> {
    let account = pod.spec().service_account_name.as_deref().unwrap_or_default();
    let path = format!("/api/v1/namespaces/{}/serviceaccounts/{account}/token", pod.namespace());
    let audiences = Some(&wanted.audience).filter(|it| !it.is_empty());
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {
            "audiences": audiences.into_iter().collect::<Vec<_>>(),
            "expirationSeconds": wanted.seconds,
            "boundObjectRef":
                { "apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid() },
        },
    });
    let answer: Answer = calls.post(&path, &request).await?;
    let expires = answer.status.expiration_timestamp;
    // It may last otherwise than was asked for.
    let seconds = answer.spec.expiration_seconds.unwrap_or(wanted.seconds);
    let replace_at = tokens::replace_at(expires, seconds);
    Ok(Held { token: answer.status.token.into(), expires, replace_at })
}
