//! What a request asks for, by its method, its path and its query.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

use std::collections::BTreeMap;

use http::{Method, Uri};
use mainstay_pod::validate::{Errors, Path};
use serde_json::Value;

use crate::kind::Resource;
use crate::status::{ApiError, Result};
use crate::verbs::options::{dry_run, told};

/// A request, understood.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct RequestInfo {
    /// Whether it is about objects; else only `verb` and `path` mean something.
    pub(crate) is_resource: bool,
    /// `get`, `list`, `watch`, `create`, ...; for paths of nothing the method in lower case.
    pub(crate) verb: &'static str,
    pub(crate) path: String,
    pub(crate) group: String,
    pub(crate) version: String,
    /// Empty for what is in no namespace, or in all.
    pub(crate) namespace: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) name: String,
    /// What follows the subresource: the path that a proxy is asked for.
    pub(crate) rest: String,
    pub(crate) query: Query,
}

/// The parameters of a request, each with all its values.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Query(BTreeMap<String, Vec<String>>);

/// Subresources of namespaces, which a path cannot tell from resources in them.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

impl RequestInfo {
    pub(crate) fn parse(method: &Method, uri: &Uri) -> Self {
        let path = uri.path();
        let mut info = Self {
            path: path.to_owned(),
            verb: lower(method),
            query: Query::parse(uri.query().unwrap_or_default()),
            ..Self::default()
        };
        let decoded: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(percent_decode).collect();
        let parts: Vec<&str> = decoded.iter().map(String::as_str).collect();
        let mut parts = match parts.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return info,
        };
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        };
        let old_watch = parts.first() == Some(&"watch") && parts.len() > 1;
        if old_watch {
            parts = parts.get(1..).unwrap_or_default();
        }
        if let ["namespaces", namespace, rest @ ..] = parts {
            info.namespace = (*namespace).to_owned();
            match rest.first() {
                Some(sub) if !NAMESPACE_SUBRESOURCES.contains(sub) => parts = rest,
                _ => {}
            }
        }
        let text = |at: usize| parts.get(at).map_or_else(String::new, |part| (*part).to_owned());
        info.resource = text(0);
        info.name = text(1);
        info.subresource = text(2);
        info.rest = parts.get(3..).unwrap_or_default().join("/");
        if info.subresource == "proxy" && path.ends_with('/') && !info.rest.is_empty() {
            info.rest.push('/');
        }
        if info.name.is_empty() && info.verb == "get" {
            info.verb = "list";
        }
        if info.name.is_empty() && info.verb == "delete" {
            info.verb = "deletecollection";
        }
        let watch = info.query.flag("watch") && matches!(info.verb, "get" | "list");
        if watch && info.subresource.is_empty() || old_watch {
            info.verb = "watch";
        }
        info
    }

    /// The namespace of a resource's objects; empty of those that are in none.
    pub(crate) fn namespace_of(&self, resource: &Resource) -> &str {
        if resource.namespaced { &self.namespace } else { "" }
    }
}

fn lower(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "",
    }
}

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            all.entry(key.into_owned()).or_default().push(value.into_owned());
        }
        Self(all)
    }

    /// The first value; empty if there is none.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.get(key).and_then(|values| values.first()).map_or("", String::as_str)
    }

    pub(crate) fn all(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// Whether people are to read the answer. Source: `isPrettyPrint`.
    pub(crate) fn is_pretty(&self) -> bool {
        matches!(self.get("pretty"), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    /// Whether nothing is to be written.
    pub(crate) fn dry_run(&self) -> bool {
        self.all("dryRun").iter().any(|value| !value.is_empty())
    }

    /// Whether a parameter says yes. As Go's converter has it: anything but `false` and `0` does, also
    /// nothing behind the name.
    pub(crate) fn flag(&self, key: &str) -> bool {
        match self.0.get(key).and_then(|values| values.first()) {
            Some(value) => !matches!(value.to_lowercase().as_str(), "false" | "0"),
            None => false,
        }
    }

    /// A number.
    ///
    /// # Errors
    ///
    /// 400 when it is none.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>> {
        match self.get(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                ApiError::bad_request(format!(
                    "strconv.ParseInt: parsing {text:?}: invalid syntax (query parameter {key})"
                ))
            }),
        }
    }
}

fn percent_decode(part: &str) -> String {
    if !part.contains('%') {
        return part.to_owned();
    }
    // A plus is itself in a path.
    let pair = part.replace('+', "%2B");
    form_urlencoded::parse(pair.replace('=', "%3D").replace('&', "%26").as_bytes())
        .next()
        .map_or_else(String::new, |(key, _)| key.into_owned())
}

/// Which of several things that a client takes is answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Plain,
    /// `Table` in this version.
    Table(&'static str),
    /// Metadata only.
    Partial,
}

/// What is answered, and as what text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Accept {
    pub(crate) shape: Shape,
    pub(crate) yaml: bool,
}

impl Accept {
    /// The first thing that a client takes and the server has.
    ///
    /// # Errors
    ///
    /// 406 when there is none, such as of a client that takes nothing but protobuf.
    pub(crate) fn parse(header: &str) -> Result<Self> {
        if header.trim().is_empty() {
            return Ok(Self { shape: Shape::Plain, yaml: false });
        }
        for alternative in header.split(',') {
            let mut parts = alternative.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let yaml = match media {
                "application/json" | "*/*" | "application/*" => false,
                "application/yaml" => true,
                _ => continue,
            };
            let parameters: BTreeMap<&str, &str> =
                parts.filter_map(|part| part.split_once('=')).collect();
            let of = |key| parameters.get(key).copied().unwrap_or_default();
            let shape = match (of("as"), of("g"), of("v")) {
                ("", _, _) => Shape::Plain,
                ("Table", "meta.k8s.io", "v1") => Shape::Table("v1"),
                ("Table", "meta.k8s.io", "v1beta1") => Shape::Table("v1beta1"),
                ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                    Shape::Partial
                }
                _ => continue,
            };
            return Ok(Self { shape, yaml });
        }
        Err(ApiError::not_acceptable("application/json, application/yaml"))
    }
}

/// Options of a delete, from the body or the query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct DeleteOptions {
    pub(crate) grace_period_seconds: Option<i64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) propagation_policy: Option<String>,
    pub(crate) orphan_dependents: Option<bool>,
    pub(crate) dry_run: bool,
}

impl DeleteOptions {
    /// Source: `DeleteResource` in `endpoints/handlers/delete.go`.
    ///
    /// # Errors
    ///
    /// 400 when a number is none, 422 when values contradict each other.
    pub(crate) fn parse(query: &Query, body: Option<&Value>) -> Result<Self> {
        let text = |key: &str| match query.get(key) {
            "" => None,
            text => Some(text.to_owned()),
        };
        let mut errors = Errors::default();
        let options = match body {
            Some(body) => {
                let at = |path: &str| body.pointer(path);
                let string = |path: &str| at(path).and_then(Value::as_str).map(str::to_owned);
                Self {
                    grace_period_seconds: at("/gracePeriodSeconds").and_then(Value::as_i64),
                    uid: string("/preconditions/uid"),
                    resource_version: string("/preconditions/resourceVersion"),
                    propagation_policy: string("/propagationPolicy"),
                    orphan_dependents: at("/orphanDependents").and_then(Value::as_bool),
                    dry_run: dry_run(
                        at("/dryRun")
                            .and_then(Value::as_array)
                            .into_iter()
                            .flatten()
                            .filter_map(Value::as_str),
                        &mut errors,
                    ),
                }
            }
            None => Self {
                grace_period_seconds: query.number("gracePeriodSeconds")?,
                propagation_policy: text("propagationPolicy"),
                orphan_dependents: text("orphanDependents").map(|_| query.flag("orphanDependents")),
                dry_run: dry_run(query.all("dryRun").iter().map(String::as_str), &mut errors),
                ..Self::default()
            },
        };
        let path = Path::new("propagationPolicy");
        match options.propagation_policy.as_deref() {
            Some(_) if options.orphan_dependents.is_some() => {
                let text = "orphanDependents and deletionPropagation cannot be both set";
                errors.invalid(&path, "Background", text);
            }
            None | Some("Orphan" | "Background" | "Foreground") => {}
            Some(policy) => {
                let known = ["Foreground", "Background", "Orphan", "nil"];
                errors.not_supported(&path, policy, &known);
            }
        }
        told("DeleteOptions", &errors).map(|()| options)
    }
}

#[cfg(test)]
mod tests;
