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
use crate::kind::Resource;
use crate::object::{self, Object};
use crate::request::Shape;
use crate::selector::Selector;
use crate::status::{ApiError, Result};
use crate::storage;
use crate::table;
use crate::verbs::options;

/// How many entries are looked at in one go by a list that picks some of them.
const CHUNK: usize = 500;

/// What is found, in the form that it is answered in.
pub(crate) enum Found {
    /// As it is stored.
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
    let mut selector = call.named(selector)?;
    let Extent { limit, at, after } = extent(call).await?;
    let only = call.take_only_key(&mut selector);
    let prefix = only.clone().unwrap_or_else(|| resource.prefix(call.namespace()));
    let mut options = ListOptions { at, after, limit };
    if only.is_some() {
        options.limit = Some(1);
    } else if !selector.is_empty() && limit.is_some() {
        options.limit = Some(CHUNK);
    }
    let mut found = if call.is_raw() { Found::Raw(Vec::new()) } else { Found::Objects(Vec::new()) };
    let (revision, remaining) = loop {
        let mut page = call.server.storage.store.list(&prefix, &options).await?;
        if let Some(only) = &only {
            // Longer names begin with it too, and come after it.
            page.entries.retain(|entry| *entry.key == **only);
            page.remaining = 0;
        }
        let mut left = page.entries.len() + page.remaining;
        for entry in page.entries {
            if limit.is_some_and(|limit| found.len() >= limit) {
                break;
            }
            left -= 1;
            options.after = Some(entry.key.clone());
            found.take(resource, &selector, entry)?;
        }
        if left == 0 || limit.is_none_or(|limit| found.len() >= limit) {
            break (page.revision, left);
        }
        options.at = Some(page.revision);
    };
    let mut meta = json!({ "resourceVersion": revision.0.to_string() });
    if remaining > 0
        && let Some(after) = options.after
    {
        meta["continue"] = Continue { revision, after }.to_token().into();
        // What a selector would pick of the rest is not known.
        if selector.is_empty() {
            meta["remainingItemCount"] = remaining.into();
        }
    }
    Ok(answer(call, meta, found))
}

impl Found {
    /// Takes an entry, if the selector does.
    fn take(&mut self, resource: &Resource, selector: &Selector, entry: Entry) -> Result<()> {
        let read = || storage::decode(resource, &entry.value, entry.revision);
        match self {
            Self::Raw(entries) => {
                if selector.is_empty() || selector.matches(resource, &read()?) {
                    entries.push(entry);
                }
            }
            Self::Objects(objects) => {
                let object = read()?;
                if selector.matches(resource, &object) {
                    objects.push(object);
                }
            }
        }
        Ok(())
    }

    fn len(&self) -> usize {
        match self {
            Self::Raw(entries) => entries.len(),
            Self::Objects(objects) => objects.len(),
        }
    }
}

/// A list, with its metadata, in the shape that the client wants.
pub(crate) fn answer(call: &Call<'_>, meta: Value, found: Found) -> Answer {
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
            Answer::json_bytes(out)
        }
        Found::Objects(objects) => Answer::json(match call.accept.shape {
            Shape::Plain => {
                let items = objects.into_iter().map(|object| object.into_value(resource));
                whole(&kind, &version, meta, items.collect())
            }
            Shape::Partial => {
                let items = objects.into_iter().map(|object| table::partial(object, "v1"));
                whole("PartialObjectMetadataList", "meta.k8s.io/v1", meta, items.collect())
            }
            Shape::Table(version) => {
                table::table(resource, version, meta, objects, call.include(), Timestamp::now())
            }
        }),
    }
}

fn whole(kind: &str, version: &str, meta: Value, items: Value) -> Value {
    let mut list = json!({ "kind": kind, "apiVersion": version });
    // What `json!` is given is copied.
    list["metadata"] = meta;
    list["items"] = items;
    list
}

/// Which part of the list, as of when.
async fn extent(call: &Call<'_>) -> Result<Extent> {
    let query = &call.info.query;
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| *limit > 0);
    let (token, version) = (query.get("continue"), query.get("resourceVersion"));
    options::check_list(query)?;
    let exact = match query.get("resourceVersionMatch") {
        "" => limit.is_some() && !matches!(version, "" | "0"),
        wanted => wanted == "Exact",
    };
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
            "invalid resource version: resourceVersion: Invalid value: {text:?}: \
             strconv.ParseUint: parsing {text:?}: invalid syntax"
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
