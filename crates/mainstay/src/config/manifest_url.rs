//! Manifests that a server has.

use std::time::Duration;

use anyhow::Context;
use mainstay_node::ManifestUrl;
use serde_json::Value;

use super::raw::Raw;
use super::{said, time};

/// How often the server is asked. Source: `SetDefaults_KubeletConfiguration`.
const FREQUENCY: Duration = Duration::from_secs(20);

/// Where they are, if anywhere.
pub(super) fn manifest_url(raw: &Raw) -> anyhow::Result<Option<ManifestUrl>> {
    let interval = time("httpCheckFrequency", &raw.http_check_frequency)?.unwrap_or(FREQUENCY);
    let Some(url) = said(&raw.static_pod_url) else { return Ok(None) };
    let url = ManifestUrl::new(url, headers(&raw.static_pod_url_header)?, interval);
    url.context("staticPodURL").map(Some)
}

/// A map of lists. What is in it is not for messages.
fn headers(value: &Value) -> anyhow::Result<Vec<(String, String)>> {
    let wrong = "staticPodURLHeader: it is no map of names to lists of texts";
    let mut headers = Vec::new();
    let map = match value {
        Value::Null => return Ok(headers),
        value => value.as_object().context(wrong)?,
    };
    for (name, values) in map {
        for value in values.as_array().context(wrong)? {
            headers.push((name.clone(), value.as_str().context(wrong)?.to_owned()));
        }
    }
    Ok(headers)
}
