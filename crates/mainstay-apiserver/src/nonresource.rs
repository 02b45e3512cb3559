//! Paths that are about no object: health, the version, discovery, OpenAPI, metrics.

use http::request::Parts;
use http::{Method, StatusCode, header};
use serde_json::{Value, json};

use crate::body;
use crate::call::{Answer, Content};
use crate::discovery;
use crate::openapi;
use crate::request::RequestInfo;
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// Answers one.
pub(crate) async fn answer(server: &Inner, parts: &Parts, info: &RequestInfo) -> Result<Answer> {
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(ApiError::no_such_path());
    }
    let segments: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
    let accepts = parts.headers.get(header::ACCEPT).and_then(|it| it.to_str().ok());
    let accepts = accepts.unwrap_or_default();
    let found = match segments.as_slice() {
        [] => Some(Answer::json(json!({ "paths": paths() }))),
        ["healthz" | "livez" | "readyz", checks @ ..] => health(server, info, checks).await,
        ["version"] => Some(Answer::json(version(&server.version))),
        ["api"] => Some(discovered(accepts, true, discovery::core_versions)),
        ["apis"] => Some(discovered(accepts, false, discovery::group_list)),
        ["api", version] => discovery::resource_list("", version).map(Answer::json),
        ["apis", group] => discovery::one_group(group).map(Answer::json),
        ["apis", group, version] => discovery::resource_list(group, version).map(Answer::json),
        ["openapi", rest @ ..] => openapi::answer(&server.version, parts, rest),
        _ => None,
    };
    found.ok_or_else(ApiError::no_such_path)
}

/// Discovery as one document, for clients that take it.
fn discovered(accepts: &str, core: bool, plain: impl FnOnce() -> Value) -> Answer {
    let wanted = accepts.split(',').map(str::trim).find_map(|alternative| {
        let aggregated = alternative.contains("as=APIGroupDiscoveryList")
            && alternative.contains("g=apidiscovery.k8s.io");
        match (aggregated, alternative.starts_with("application/json")) {
            (true, true) if alternative.contains("v=v2beta1") => Some("v2beta1"),
            (true, true) => Some("v2"),
            (false, true) => Some(""),
            _ => None,
        }
    });
    let Some(version @ ("v2" | "v2beta1")) = wanted else { return Answer::json(plain()) };
    let mut document = discovery::aggregated(core);
    document["apiVersion"] = format!("apidiscovery.k8s.io/{version}").into();
    let media = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    Answer::stream(media, body::full(document.to_string()))
}

/// Whether the server can do its work: that of the store, in the end.
async fn health(server: &Inner, info: &RequestInfo, only: &[&str]) -> Option<Answer> {
    let excluded = info.query.all("exclude");
    let checks = [("ping", None), ("store", store_problem(server).await)];
    match only {
        [] => {}
        [one] if checks.iter().any(|(name, _)| name == one) => {}
        _ => return None,
    }
    let wanted = |name: &str| only.is_empty() || only.contains(&name);
    let mut report = String::new();
    let mut failed = false;
    for (name, problem) in checks.iter().filter(|(name, _)| wanted(name)) {
        if excluded.iter().any(|it| it == name) {
            report.push_str(&format!("[+]{name} excluded: ok\n"));
        } else if problem.is_some() {
            failed = true;
            report.push_str(&format!("[-]{name} failed: reason withheld\n"));
        } else {
            report.push_str(&format!("[+]{name} ok\n"));
        }
    }
    let path = info.path.trim_matches('/').split('/').next().unwrap_or_default();
    let verbose = !info.query.all("verbose").is_empty();
    let (code, text) = match failed {
        true => (StatusCode::INTERNAL_SERVER_ERROR, format!("{report}{path} check failed\n")),
        false if verbose => (StatusCode::OK, format!("{report}{path} check passed\n")),
        false => (StatusCode::OK, "ok".to_owned()),
    };
    let content = Content::Stream("text/plain; charset=utf-8", body::full(text));
    Some(Answer { code, content, warnings: Vec::new() })
}

async fn store_problem(server: &Inner) -> Option<String> {
    server.storage.store.catch_up().await.err().map(|error| error.to_string())
}

/// Source: `staging/src/k8s.io/apimachinery/pkg/version/types.go`.
fn version(text: &str) -> Value {
    let mut numbers = text.trim_start_matches('v').split('.');
    let (major, minor) = (numbers.next().unwrap_or("1"), numbers.next().unwrap_or("36"));
    let platform = match std::env::consts::ARCH {
        "x86_64" => "linux/amd64",
        "aarch64" => "linux/arm64",
        _ => "linux/unknown",
    };
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": text,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": platform,
    })
}

fn paths() -> Vec<String> {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .into_iter()
    .map(str::to_owned)
    .collect();
    for (group, versions) in discovery::groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    paths
}
