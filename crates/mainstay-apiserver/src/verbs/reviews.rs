//! `create` of a question about who somebody is or what he may do: the answer is all there is.
//!
//! Source: `pkg/registry/authorization`, `pkg/registry/authentication`,
//! `pkg/registry/authorization/util/helpers.go`.

use std::collections::BTreeMap;

use http::StatusCode;
use jiff::Timestamp;
use mainstay_pod::validate::{Errors, Path};
use serde_json::{Value, json};

use crate::authn::{Refusal, User};
use crate::authz::{Attributes, Decision, Rule};
use crate::call::{Answer, Call};
use crate::object::{self, Object};
use crate::status::{ApiError, Result};

/// Answers a question; `None` for what is none.
pub(crate) async fn answer(call: &Call<'_>, object: &Object) -> Result<Option<Answer>> {
    let status = match call.resource.kind {
        "SelfSubjectReview" => json!({ "userInfo": call.user.to_json() }),
        "TokenReview" => token(call, object).await?,
        "SubjectAccessReview" | "LocalSubjectAccessReview" => access(call, object, &named(object))?,
        "SelfSubjectAccessReview" => access(call, object, call.user)?,
        "SelfSubjectRulesReview" => rules(call, object)?,
        _ => return Ok(None),
    };
    let mut answered = object.clone();
    let created = object::time(Timestamp::now());
    answered.meta_mut().insert(
        "creationTimestamp".into(),
        match call.resource.kind {
            "SelfSubjectReview" => created.into(),
            _ => Value::Null,
        },
    );
    answered.0.insert("status".into(), status);
    let answer = Answer::json(answered.into_value(call.resource));
    Ok(Some(answer.with_code(StatusCode::CREATED)))
}

async fn token(call: &Call<'_>, object: &Object) -> Result<Value> {
    let token = object.str_at(&["spec", "token"]);
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> = object
        .list_at(&["spec", "audiences"])
        .iter()
        .filter_map(|it| it.as_str().map(str::to_owned))
        .collect();
    match call.server.review_token(token, &audiences).await {
        Ok(found) => Ok(json!({
            "authenticated": true,
            "user": found.user.to_json(),
            "audiences": found.audiences,
        })),
        Err(Refusal::Token(why)) => Ok(json!({ "user": {}, "error": why })),
        Err(Refusal::Unknown(error)) => Err(error),
    }
}

/// Whether somebody may do something: whoever the object names, or the sender himself.
fn access(call: &Call<'_>, object: &Object, user: &User) -> Result<Value> {
    let mut errors = Errors::default();
    let spec = Path::new("spec");
    let about = object.at(&["spec", "resourceAttributes"]);
    let path = object.at(&["spec", "nonResourceAttributes"]);
    if about.is_some() == path.is_some() {
        errors.invalid(
            &spec.field("resourceAttributes"),
            "",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        );
    }
    if user.name.is_empty() && user.groups.is_empty() {
        let text = "at least one of user or group must be specified";
        errors.invalid(&spec.field("user"), "", text);
    }
    let text = |value: Option<&Value>, key: &str| -> String {
        value.and_then(|it| it.get(key)?.as_str()).unwrap_or_default().to_owned()
    };
    let namespace = text(about, "namespace");
    if call.resource.kind == "LocalSubjectAccessReview" && namespace != call.namespace() {
        errors.invalid(
            &spec.field("resourceAttributes").field("namespace"),
            namespace.as_str(),
            "must match metadata.namespace",
        );
    }
    if !errors.0.is_empty() {
        return Err(ApiError::invalid(call.resource, object.name(), &errors.0));
    }
    let fields = required(about, "/fieldSelector/requirements");
    let labels = required(about, "/labelSelector/requirements");
    let verb = text(about.or(path), "verb");
    let attributes = Attributes {
        user,
        verb: &verb,
        group: &text(about, "group"),
        resource: &text(about, "resource"),
        subresource: &text(about, "subresource"),
        namespace: &namespace,
        name: &text(about, "name"),
        path: &text(path, "path"),
        is_resource: about.is_some(),
        fields: &fields,
        labels: &labels,
    };
    let mut status = json!({ "allowed": false });
    let reason = match call.server.decide(&attributes) {
        Decision::Allow(reason) => {
            status["allowed"] = true.into();
            reason
        }
        Decision::NoOpinion(reason) => reason,
    };
    if !reason.is_empty() {
        status["reason"] = reason.into();
    }
    Ok(status)
}

/// The fields, or labels, that a question's selector pins down.
fn required(about: Option<&Value>, pointer: &str) -> Vec<(String, String)> {
    let requirements = about.and_then(|it| it.pointer(pointer)?.as_array());
    requirements
        .into_iter()
        .flatten()
        .filter(|it| it.get("operator").and_then(Value::as_str) == Some("In"))
        .filter_map(|it| match it.get("values")?.as_array()?.as_slice() {
            [one] => Some((it.get("key")?.as_str()?.to_owned(), one.as_str()?.to_owned())),
            _ => None,
        })
        .collect()
}

fn named(object: &Object) -> User {
    let texts = |list: &[Value]| -> Vec<String> {
        list.iter().filter_map(|it| it.as_str().map(str::to_owned)).collect()
    };
    let extra = object.at(&["spec", "extra"]).and_then(Value::as_object);
    let extra: BTreeMap<String, Vec<String>> = extra
        .into_iter()
        .flatten()
        .map(|(key, values)| {
            let values = values.as_array().map(Vec::as_slice).unwrap_or_default();
            (key.to_lowercase(), texts(values))
        })
        .collect();
    User {
        name: object.str_at(&["spec", "user"]).to_owned(),
        uid: object.str_at(&["spec", "uid"]).to_owned(),
        groups: texts(object.list_at(&["spec", "groups"])),
        extra,
    }
}

fn rules(call: &Call<'_>, object: &Object) -> Result<Value> {
    let namespace = object.str_at(&["spec", "namespace"]);
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    let found = call.server.rules_for(call.user, namespace);
    let mut of_resources = Vec::new();
    let mut of_paths = Vec::new();
    for rule in &found.rules {
        if rule.non_resource_urls.is_empty() {
            of_resources.push(resource_rule(rule));
        } else {
            of_paths
                .push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }));
        }
    }
    let mut status = json!({
        "resourceRules": of_resources,
        "nonResourceRules": of_paths,
        "incomplete": found.incomplete,
    });
    if !found.error.is_empty() {
        status["evaluationError"] = found.error.into();
    }
    Ok(status)
}

fn resource_rule(rule: &Rule) -> Value {
    let mut json = json!({
        "verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources,
    });
    if !rule.resource_names.is_empty() {
        json["resourceNames"] = rule.resource_names.clone().into();
    }
    json
}
