//! From an HTTP request to an upgraded connection: what is asked for, what is answered.
//!
//! Source: `staging/src/k8s.io/streaming/pkg/httpstream/httpstream.go` and `spdy/upgrade.go`
//! there, `golang.org/x/net/websocket/hybi.go`, and
//! `staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.

mod sha1;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use sha1::sha1;

/// The header in which SPDY clients list protocols, and in which the choice is answered.
pub(crate) const PROTOCOL_VERSION: HeaderName =
    HeaderName::from_static("x-stream-protocol-version");
/// The header that lists what the server has, when there is nothing in common.
const ACCEPTED_PROTOCOL_VERSIONS: HeaderName =
    HeaderName::from_static("x-accepted-stream-protocol-versions");
pub(crate) const SPDY: &str = "SPDY/3.1";
const WEBSOCKET: &str = "websocket";
/// Source: RFC 6455, section 1.3.
const WEBSOCKET_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request is not upgraded.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of the answer.
    pub status: StatusCode,
    /// For the answer's content: plain text, or the message of a `Status` object.
    pub message: String,
    /// For the answer's header, beside those of its content.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Which of the two ways a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    WebSocket,
}

/// Whether a request wants to become something else than HTTP.
#[must_use]
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values.into_iter().any(|value| contains(value.as_bytes(), b"upgrade"))
}

/// Which way a request asks for.
pub(crate) fn transport(headers: &HeaderMap) -> Result<Transport, Refusal> {
    if !is_upgrade(headers) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "Upgrade request required"));
    }
    match headers.get(UPGRADE).map(HeaderValue::as_bytes) {
        Some(upgrade) if upgrade.eq_ignore_ascii_case(WEBSOCKET.as_bytes()) => {
            Ok(Transport::WebSocket)
        }
        Some(_) | None => Ok(Transport::Spdy),
    }
}

/// Chooses a protocol for SPDY. The answer's status is 101.
pub(crate) fn spdy<P: Copy>(
    parts: &Parts,
    supported: &[(&'static str, P)],
) -> Result<(P, Response<()>), Refusal> {
    let refused = |message| Refusal::new(StatusCode::BAD_REQUEST, message);
    let headers = &parts.headers;
    if !headers.contains_key(PROTOCOL_VERSION) {
        let count = headers.keys_len() - usize::from(headers.contains_key(HOST));
        return Err(refused(format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request \
             with {count} headers"
        )));
    }
    let offered = comma_separated(headers, &PROTOCOL_VERSION);
    if offered.is_empty() {
        return Err(refused(
            "unable to upgrade: header X-Stream-Protocol-Version contains no valid protocols"
                .to_owned(),
        ));
    }
    let Some((name, protocol)) = choose(&offered, supported) else {
        let names = supported.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let mut refusal = Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server \
                 accepts [{}]",
                offered.join(" "),
                names.join(" ")
            ),
        );
        for name in names {
            let value = HeaderValue::from_static(name);
            refusal.headers.push((ACCEPTED_PROTOCOL_VERSIONS, value));
        }
        return Err(refusal);
    };
    if !headers.get(UPGRADE).is_some_and(|value| contains(value.as_bytes(), b"spdy/3.1")) {
        return Err(refused(
            "unable to upgrade: missing upgrade headers in request: `Upgrade: SPDY/3.1` or \
             `Upgrade: websocket` is needed"
                .to_owned(),
        ));
    }
    let mut response = switching(SPDY);
    response.headers_mut().insert(PROTOCOL_VERSION, HeaderValue::from_static(name));
    Ok((protocol, response))
}

/// Chooses a subprotocol for a WebSocket connection. The answer's status is 101. A client that
/// names none gets the one with the empty name.
pub(crate) fn websocket<P: Copy>(
    parts: &Parts,
    supported: &[(&'static str, P)],
) -> Result<(P, Response<()>), Refusal> {
    let headers = &parts.headers;
    if parts.method != Method::GET {
        let message = "unable to upgrade: the method of a WebSocket request is GET";
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if key.is_empty() {
        let message = "unable to upgrade: header Sec-WebSocket-Key does not exist in request";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "unable to upgrade: header Sec-WebSocket-Version is not 13";
        let mut refusal = Refusal::new(StatusCode::BAD_REQUEST, message);
        refusal.headers.push((SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
        return Err(refusal);
    }
    let mut offered = comma_separated(headers, &SEC_WEBSOCKET_PROTOCOL);
    if offered.is_empty() {
        offered.push("");
    }
    let Some((name, protocol)) = choose(&offered, supported) else {
        let names = supported.iter().map(|(name, _)| *name).filter(|name| !name.is_empty());
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!(
                "unable to upgrade: requested protocol(s) are not supported: [{}]; supports [{}]",
                offered.join(" "),
                names.collect::<Vec<_>>().join(" ")
            ),
        ));
    };
    let mut response = switching(WEBSOCKET);
    let accept = STANDARD.encode(sha1(&[key, WEBSOCKET_GUID.as_bytes()].concat()));
    if let Ok(accept) = HeaderValue::try_from(accept) {
        response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if !name.is_empty() {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    Ok((protocol, response))
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), headers: Vec::new() }
    }
}

/// The answer without the headers of a protocol.
fn switching(to: &'static str) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(to));
    response
}

/// The first that the client offers and the server has.
fn choose<P: Copy>(offered: &[&str], supported: &[(&'static str, P)]) -> Option<(&'static str, P)> {
    let find = |offered| supported.iter().find(|(name, _)| *name == offered);
    offered.iter().find_map(|offered| find(*offered)).copied()
}

fn comma_separated<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|s| !s.is_empty()).collect()
}

/// Whether `text` has `part` in it; `part` is in lower case.
fn contains(text: &[u8], part: &[u8]) -> bool {
    text.to_ascii_lowercase().windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests;
