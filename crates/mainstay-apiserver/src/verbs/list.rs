//! `list`: the objects of a namespace, or of all.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/storage/etcd3/store.go` (`GetList`) and
//! `staging/src/k8s.io/apiserver/pkg/storage/continue.go`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use mainstay_store::{Entry, ListOptions, Revision};
use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::object::{self, Object};
use crate::request::Shape;
use crate::selector::Selector;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::table::{self, IncludeObject};

/// How many entries are looked at in one go by a list that picks some of them.
const CHUNK: usize = 500;

/// What is found, in the form that it is answered in.
enum Found {
    /// As it is stored: nothing had to look at it.
    Raw(Vec<Entry>),
    /// Read.
    Objects(Vec<Object>),
}

/// Where a list in pieces goes on.
#[derive(Debug, PartialEq)]
struct Continue {
    revision: Revision,
    /// The last key that was answered.
    after: Arc<str>,
}

/// What a list is asked for beside what to pick.
struct Extent {
    limit: Option<usize>,
    at: Option<Revision>,
    after: Option<Arc<str>>,
}

/// Answers a list.
pub(crate) async fn list(call: &Call<'_>) -> Result<Answer> {
    let (resource, query) = (call.resource, &call.info.query);
    let selector =
        Selector::parse(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let selector = call.named(selector)?;
    let extent = extent(call).await?;
    let plain = call.accept.shape == Shape::Plain && !call.accept.yaml;
    let raw = plain && selector.is_empty() && !resource.strategy.converts();
    let mut options = ListOptions { at: extent.at, after: extent.after, limit: extent.limit };
    if !selector.is_empty() && extent.limit.is_some() {
        options.limit = Some(CHUNK);
    }
    let mut found = if raw { Found::Raw(Vec::new()) } else { Found::Objects(Vec::new()) };
    let (revision, remaining, last) = loop {
        let page = call.server.storage.page(resource, call.namespace(), &options).await?;
        let last = page.entries.last().map(|entry| entry.key.clone());
        let mut stopped = None;
        match &mut found {
            Found::Raw(entries) => entries.extend(page.entries),
            Found::Objects(objects) => {
                for (at, entry) in page.entries.iter().enumerate() {
                    if extent.limit.is_some_and(|limit| objects.len() >= limit) {
                        let more = page.entries.len() - at + page.remaining;
                        stopped = Some((more, entry_before(&page.entries, at)));
                        break;
                    }
                    let object = storage::decode(resource, &entry.value, entry.revision)?;
                    if selector.matches(resource, &object) {
                        objects.push(object);
                    }
                }
            }
        }
        if let Some((remaining, last)) = stopped {
            break (page.revision, remaining, last.or_else(|| options.after.clone()));
        }
        let whole = matches!(&found, Found::Objects(objects)
            if extent.limit.is_some_and(|limit| objects.len() < limit) && page.remaining > 0);
        if !whole {
            break (page.revision, page.remaining, last);
        }
        options.at = Some(page.revision);
        options.after = last;
    };
    let mut meta = json!({ "resourceVersion": revision.0.to_string() });
    if remaining > 0
        && let Some(after) = last
    {
        meta["continue"] = Continue { revision, after }.to_token().into();
        // What a selector would pick of the rest is not known.
        if selector.is_empty() {
            meta["remainingItemCount"] = remaining.into();
        }
    }
    Ok(answer(call, &meta, found))
}

fn entry_before(entries: &[Entry], at: usize) -> Option<Arc<str>> {
    Some(entries.get(at.checked_sub(1)?)?.key.clone())
}

fn answer(call: &Call<'_>, meta: &Value, found: Found) -> Answer {
    let resource = call.resource;
    let (kind, version) = (format!("{}List", resource.kind), resource.api_version());
    match found {
        Found::Raw(entries) => {
            let size: usize = entries.iter().map(|entry| entry.value.len() + 96).sum();
            let mut out = Vec::with_capacity(size + 160);
            out.extend_from_slice(
                format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{version}\",\"metadata\":{meta},\"items\":[")
                    .as_bytes(),
            );
            for (at, entry) in entries.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                object::render(&mut out, resource, &entry.value, entry.revision);
            }
            out.extend_from_slice(b"]}");
            Answer::json_bytes(http::StatusCode::OK, out)
        }
        Found::Objects(objects) => Answer::json(match call.accept.shape {
            Shape::Plain => {
                let items: Vec<Value> =
                    objects.iter().map(|object| object.to_value(resource)).collect();
                json!({ "kind": kind, "apiVersion": version, "metadata": meta, "items": items })
            }
            Shape::Partial => {
                let items: Vec<Value> =
                    objects.iter().map(|object| table::partial(object, "v1")).collect();
                json!({
                    "kind": "PartialObjectMetadataList",
                    "apiVersion": "meta.k8s.io/v1",
                    "metadata": meta,
                    "items": items,
                })
            }
            Shape::Table(version) => {
                let include = IncludeObject::parse(call.info.query.get("includeObject"));
                table::table(resource, version, meta, &objects, include, Timestamp::now())
            }
        }),
    }
}

/// Which part of the list, as of when.
///
/// Source: `ValidateListOptions` in `apimachinery/pkg/apis/meta/internalversion/validation`.
async fn extent(call: &Call<'_>) -> Result<Extent> {
    let query = &call.info.query;
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| *limit > 0);
    let (token, version) = (query.get("continue"), query.get("resourceVersion"));
    let exact = match query.get("resourceVersionMatch") {
        "" => limit.is_some() && !matches!(version, "" | "0"),
        "Exact" => true,
        "NotOlderThan" => false,
        other => {
            return Err(ApiError::unprocessable(format!(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Unsupported value: \
                 {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            )));
        }
    };
    if !query.get("resourceVersionMatch").is_empty() && version.is_empty() {
        return Err(ApiError::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if !token.is_empty() {
        if !matches!(version, "" | "0") {
            return Err(ApiError::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        let token = Continue::parse(token)?;
        let prefix = call.resource.prefix(call.namespace());
        if !token.after.starts_with(&prefix) {
            return Err(ApiError::bad_request(
                "continue key is not valid: it is of another list; start the list anew",
            ));
        }
        let at = (token.revision.0 > 0).then_some(token.revision);
        check_known(call, at)?;
        return Ok(Extent { limit, at, after: Some(token.after) });
    }
    if exact {
        let at = Some(revision(version)?);
        if at == Some(Revision(0)) {
            return Err(ApiError::unprocessable(
                "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
                 resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        check_known(call, at)?;
        return Ok(Extent { limit, at, after: None });
    }
    call.not_older_than_asked().await?;
    Ok(Extent { limit, at: None, after: None })
}

/// A list that began too long ago says so in words of its own.
fn check_known(call: &Call<'_>, at: Option<Revision>) -> Result<()> {
    match at {
        Some(at) if at < call.server.storage.store.known().start => Err(ApiError::expired(
            "The provided continue parameter is too old to display a consistent list result. You can \
             start a new list without the continue parameter.",
        )),
        _ => Ok(()),
    }
}

/// A resourceVersion of a client.
///
/// # Errors
///
/// 400 when it is no number.
pub(crate) fn revision(text: &str) -> Result<Revision> {
    text.parse().map(Revision).map_err(|_| {
        ApiError::bad_request(format!(
            "Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

impl Continue {
    fn to_token(&self) -> String {
        let json = json!({ "v": "meta.k8s.io/v1", "rv": self.revision.0, "start": &*self.after });
        STANDARD_NO_PAD.encode(json.to_string())
    }

    fn parse(token: &str) -> Result<Self> {
        let read = || {
            let bytes = STANDARD_NO_PAD.decode(token).ok()?;
            let json: Value = serde_json::from_slice(&bytes).ok()?;
            (json.get("v")?.as_str()? == "meta.k8s.io/v1").then_some(())?;
            Some(Self {
                revision: Revision(json.get("rv")?.as_u64()?),
                after: json.get("start")?.as_str()?.into(),
            })
        };
        read().ok_or_else(|| ApiError::bad_request("continue key is not valid"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_round() {
        let token = Continue { revision: Revision(7), after: "pods/a/b".into() };
        assert_eq!(Continue::parse(&token.to_token()).unwrap(), token);
        for bad in ["", "!", "e30", "bnVsbA"] {
            assert!(Continue::parse(bad).is_err(), "{bad}");
        }
    }
}
