//! `serviceaccounts/token`: a token of a service account.
//!
//! Source: `pkg/registry/core/serviceaccount/storage/token.go` and
//! `pkg/apis/authentication/validation/validation.go`.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use mainstay_pki::{BoundObject, TokenRequest};
use mainstay_pod::validate::{Errors, Path};
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::decode;
use crate::kind::{PLAIN, Resource};
use crate::kinds;
use crate::object::{self, Object};
use crate::status::{ApiError, Result};

/// What refusals are about.
static REQUESTS: Resource = Resource {
    group: "authentication.k8s.io",
    kind: "TokenRequest",
    plural: "tokenrequests",
    ..PLAIN
};

/// How long tokens count, in seconds: what is the least, what if nobody says, and what is the most.
const MIN_SECONDS: i64 = 10 * 60;
const DEFAULT_SECONDS: i64 = 60 * 60;
const MAX_SECONDS: i64 = 1 << 32;

/// Makes a token.
pub(crate) async fn create(call: &Call<'_>) -> Result<Answer> {
    let mut request = decode::body(call)?.object;
    let (resource, name) = (call.resource, &call.info.name);
    let namespace = call.namespace();
    same("name", request.name(), name)?;
    same("namespace", request.namespace(), namespace)?;
    let account = call.server.storage.get(resource, namespace, name).await?.object;
    call.admit_part(&request).await?;
    if !request.uid().is_empty() && request.uid() != account.uid() {
        return Err(ApiError::conflict(
            &REQUESTS,
            name,
            format!(
                "the UID in the token request ({}) does not match the UID of the service account ({})",
                request.uid(),
                account.uid()
            ),
        ));
    }
    let now = Timestamp::now();
    complete(&mut request, &account, call.server.access.audiences(), now);
    let seconds = request.i64_at(&["spec", "expirationSeconds"]);
    check(seconds)?;
    let mut wanted = TokenRequest {
        audiences: texts(&request, "audiences"),
        seconds: u64::try_from(seconds).unwrap_or(0),
        namespace: namespace.to_owned(),
        service_account: bound(&account),
        ..TokenRequest::default()
    };
    bind(call, &request, &mut wanted).await?;
    let token = call.server.access.issue(wanted, now)?;
    let ends = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(now);
    request.0.insert(
        "status".into(),
        json!({ "token": token, "expirationTimestamp": object::time(ends) }),
    );
    Ok(Answer::json(request.to_value(&REQUESTS)).with_code(StatusCode::CREATED))
}

/// What a request says about its account, if it does, is so.
fn same(what: &str, given: &str, known: &str) -> Result<()> {
    if given.is_empty() || given == known {
        return Ok(());
    }
    let mut errors = Errors::default();
    let path = Path::new("metadata");
    let detail = format!("must match the service account {what} if specified");
    errors.invalid(&path.field(what), given, &detail);
    Err(ApiError::invalid(&REQUESTS, known, &errors.0))
}

fn complete(request: &mut Object, account: &Object, audiences: &[String], now: Timestamp) {
    for key in ["name", "namespace", "uid"] {
        let value = account.meta_str(key).to_owned();
        request.meta_mut().insert(key.into(), value.into());
    }
    request.meta_mut().insert("creationTimestamp".into(), object::time(now).into());
    let none = texts(request, "audiences").is_empty();
    let spec = request.field_mut("spec");
    if none {
        spec.insert("audiences".into(), audiences.into());
    }
    let seconds = spec.entry("expirationSeconds").or_insert(Value::Null);
    if seconds.is_null() {
        *seconds = DEFAULT_SECONDS.into();
    }
    spec.entry("boundObjectRef").or_insert(Value::Null);
}

fn check(seconds: i64) -> Result<()> {
    let detail = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let mut errors = Errors::default();
    let path = Path::new("spec");
    errors.invalid(&path.field("expirationSeconds"), seconds, detail);
    Err(ApiError::invalid(&REQUESTS, "", &errors.0))
}

/// The object that the token ends with.
async fn bind(call: &Call<'_>, request: &Object, wanted: &mut TokenRequest) -> Result<()> {
    let reference = |key: &str| request.str_at(&["spec", "boundObjectRef", key]);
    let (kind, version) = (reference("kind"), reference("apiVersion"));
    if request.at(&["spec", "boundObjectRef"]).is_none_or(Value::is_null) {
        return Ok(());
    }
    let storage = &call.server.storage;
    let (name, namespace) = (reference("name"), call.namespace());
    let (resource, place) = match (version, kind) {
        ("v1", "Pod") => (&kinds::PODS, namespace),
        ("v1", "Node") => (&kinds::NODES, ""),
        ("v1", "Secret") => (&kinds::SECRETS, namespace),
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let found = storage.get(resource, place, name).await?.object;
    if !reference("uid").is_empty() && reference("uid") != found.uid() {
        return Err(ApiError::conflict(
            resource,
            name,
            format!(
                "the UID in the bound object reference ({}) does not match the UID in record. The object \
                 might have been deleted and then recreated",
                reference("uid")
            ),
        ));
    }
    match kind {
        "Pod" => {
            let account = &call.info.name;
            if found.str_at(&["spec", "serviceAccountName"]) != account {
                return Err(ApiError::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different \
                     serviceaccount name."
                )));
            }
            let node = found.str_at(&["spec", "nodeName"]);
            if !node.is_empty() {
                let known = storage.find(&kinds::NODES, "", node).await?;
                let unknown = BoundObject { name: node.to_owned(), uid: String::new() };
                wanted.node = Some(known.map_or(unknown, |stored| bound(&stored.object)));
            }
            wanted.pod = Some(bound(&found));
        }
        "Node" => wanted.node = Some(bound(&found)),
        _ => wanted.secret = Some(bound(&found)),
    }
    Ok(())
}

fn bound(object: &Object) -> BoundObject {
    BoundObject { name: object.name().to_owned(), uid: object.uid().to_owned() }
}

fn texts(request: &Object, key: &str) -> Vec<String> {
    let list = request.list_at(&["spec", key]).iter();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}
