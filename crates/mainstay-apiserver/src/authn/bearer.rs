//! Bearer tokens in the headers of a request.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/authentication/request/{bearertoken,websocket}`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue};

/// A browser cannot set headers of a WebSocket; the token comes as one of the protocols that it offers.
const PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// There is a token that cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

/// The token of a request.
pub(super) fn token(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    let Some(value) = headers.get(AUTHORIZATION) else { return websocket_token(headers) };
    // A token is ASCII. Whether this was meant to be one is not asked.
    let value = value.to_str().map_err(|_| Malformed)?;
    let mut parts = value.trim().splitn(3, ' ');
    match (parts.next(), parts.next()) {
        (Some(scheme), Some(token))
            if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() =>
        {
            Ok(Some(token.to_owned()))
        }
        _ => websocket_token(headers),
    }
}

fn websocket_token(headers: &HeaderMap) -> Result<Option<String>, Malformed> {
    if !is_websocket(headers) {
        return Ok(None);
    }
    let mut found = None;
    let mut others = false;
    for protocol in protocols(headers) {
        let Some(encoded) = protocol.strip_prefix(PROTOCOL) else {
            others = true;
            continue;
        };
        let token = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Malformed)?;
        let token = String::from_utf8(token).map_err(|_| Malformed)?;
        if found.replace(token).is_some() {
            return Err(Malformed);
        }
    }
    match found {
        // Nothing would be left to agree upon.
        Some(token) if !token.is_empty() => {
            if others {
                Ok(Some(token))
            } else {
                Err(Malformed)
            }
        }
        _ => Ok(None),
    }
}

fn is_websocket(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token)))
    };
    has(UPGRADE, "websocket") && has(CONNECTION, "upgrade")
}

fn protocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Takes the tokens out of the headers.
pub(super) fn remove(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    if !protocols(headers).any(|protocol| protocol.starts_with(PROTOCOL)) {
        return;
    }
    let kept: Vec<&str> =
        protocols(headers).filter(|protocol| !protocol.starts_with(PROTOCOL)).collect();
    let kept = HeaderValue::from_str(&kept.join(","));
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    if let Ok(kept) = kept
        && !kept.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, kept);
    }
}
