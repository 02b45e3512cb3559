//! `/openapi`: what the kinds look like, for `kubectl explain` and for validation by clients. Made when it
//! is asked for, since hardly anybody does.
//!
//! Source: `k8s.io/kube-openapi/pkg/handler` and `handler3`.

use http::header::ACCEPT;
use http::request::Parts;
use mainstay_schema::openapi::{self, Subresource, V2_PROTOBUF, V2_PROTOBUF_ASKED};

use crate::body;
use crate::call::Answer;
use crate::kinds;

/// Answers a path below `/openapi`; `None` for one that leads nowhere.
pub(crate) fn answer(version: &str, parts: &Parts, rest: &[&str]) -> Option<Answer> {
    let below: Vec<Vec<Subresource<'_>>> = kinds::ALL
        .iter()
        .map(|resource| {
            let each = resource.subresources.iter().map(|it| {
                let (group, version) = it.of.unwrap_or((resource.group, resource.version));
                Subresource { name: it.name, group, version, kind: it.kind, verbs: it.verbs }
            });
            each.collect()
        })
        .collect();
    let resources: Vec<openapi::Resource<'_>> = kinds::ALL
        .iter()
        .zip(&below)
        .map(|(it, subresources)| openapi::Resource {
            group: it.group,
            version: it.version,
            kind: it.kind,
            plural: it.plural,
            namespaced: it.namespaced,
            verbs: it.verbs,
            subresources,
        })
        .collect();
    match rest {
        ["v2"] if asks_for_protobuf(parts) => {
            let document = openapi::v2_protobuf(version, &resources);
            Some(Answer::stream(V2_PROTOBUF, body::full(document)))
        }
        ["v2"] => Some(Answer::json_bytes(openapi::v2(version, &resources))),
        ["v3"] => Some(Answer::json_bytes(openapi::v3_index(version, &resources))),
        ["v3", "api", of] => openapi::v3(version, "", of, &resources).map(Answer::json_bytes),
        ["v3", "apis", group, of] => {
            openapi::v3(version, group, of, &resources).map(Answer::json_bytes)
        }
        _ => None,
    }
}

/// Whether a client would rather have protobuf.
fn asks_for_protobuf(parts: &Parts) -> bool {
    let accepts = parts.headers.get(ACCEPT).and_then(|it| it.to_str().ok()).unwrap_or_default();
    let mut alternatives =
        accepts.split(',').map(|it| it.split(';').next().unwrap_or_default().trim());
    let known = |it: &&str| [V2_PROTOBUF_ASKED, V2_PROTOBUF, "application/json"].contains(it);
    alternatives.find(known).is_some_and(|it| it != "application/json")
}
