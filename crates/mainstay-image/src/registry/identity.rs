//! Being somebody for a registry: passwords, and tokens that are exchanged for them.
//!
//! Sources: distribution `docs/spec/auth/token.md` and `oauth.md`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request};
use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Credentials;
use super::endpoint::{Endpoint, Scheme};
use super::error::RequestError;
use super::http::{ANSWER_MAX, Session, lock, refusal};

/// As whom to ask a token server. Source: distribution `docs/spec/auth/oauth.md`, `client_id`.
const CLIENT_ID: &str = "mainstay";

/// As whom to ask one endpoint.
#[derive(Default)]
pub(super) struct Identity {
    /// What to try, in order; empty to ask as nobody.
    credentials: Vec<Credentials>,
    /// Which of them is in use, once the registry has asked.
    current: Option<usize>,
    header: Option<HeaderValue>,
    /// How often the header was made anew without any request succeeding with it.
    renewals: usize,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

// === impl Session ===

impl Session {
    /// What to show `endpoint`, in order, if it asks.
    pub(super) fn set_credentials(&self, endpoint: &Endpoint, credentials: Vec<Credentials>) {
        let identity = Identity { credentials, ..Identity::default() };
        lock(&self.identities).insert(endpoint.to_string(), identity);
    }

    pub(super) fn header(&self, endpoint: &Endpoint) -> Option<HeaderValue> {
        lock(&self.identities).get(&endpoint.to_string())?.header.clone()
    }

    pub(super) fn is_anonymous(&self, endpoint: &Endpoint) -> bool {
        let identities = lock(&self.identities);
        identities.get(&endpoint.to_string()).is_none_or(|identity| identity.credentials.is_empty())
    }

    pub(super) fn accepted(&self, endpoint: &Endpoint) {
        if let Some(identity) = lock(&self.identities).get_mut(&endpoint.to_string()) {
            identity.renewals = 0;
        }
    }

    /// Makes another header than `refused`: with a new token, or as somebody else.
    pub(super) async fn renew(
        &self,
        endpoint: &Endpoint,
        refused: Option<HeaderValue>,
        challenge: &Challenge,
        message: String,
    ) -> Result<(), RequestError> {
        let _renewing = self.renewing.lock().await;
        let exhausted = |anonymous| RequestError::Unauthorized { anonymous, message };
        let (place, credentials) = {
            let mut identities = lock(&self.identities);
            let identity = identities.entry(endpoint.to_string()).or_default();
            if identity.header != refused {
                // Another layer's request has been through this meanwhile.
                return Ok(());
            }
            let anonymous = identity.credentials.is_empty();
            // A token that has been accepted before may just have run out. One that never was
            // shows that these credentials do not suffice.
            let place = match identity.current {
                None => 0,
                Some(place) if identity.renewals == 0 => place,
                Some(place) => place + 1,
            };
            identity.renewals += 1;
            if place >= identity.credentials.len().max(1) {
                return Err(exhausted(anonymous));
            }
            (place, identity.credentials.get(place).cloned())
        };
        let header = match (challenge, &credentials) {
            (_, Some(Credentials::RegistryToken(token))) => bearer(token),
            (Challenge::Basic, Some(credentials)) => basic(credentials),
            (Challenge::Basic, None) => return Err(exhausted(true)),
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                let scope = match scope {
                    Some(scope) => scope.clone(),
                    None => format!("repository:{}:pull", self.repository),
                };
                let service = service.as_deref().unwrap_or_default();
                match self.token(endpoint, realm, service, &scope, credentials.as_ref()).await {
                    Ok(token) => bearer(&token),
                    Err(error) if is_refusal(&error) => None,
                    Err(source) => {
                        let realm = realm.clone();
                        return Err(RequestError::Token { realm, source: Box::new(source) });
                    }
                }
            }
        };
        let mut identities = lock(&self.identities);
        let identity = identities.entry(endpoint.to_string()).or_default();
        identity.current = Some(place);
        match header {
            Some(header) => {
                identity.header = Some(header);
                Ok(())
            }
            // The next one, if there is one; the registry is asked again to say so.
            None if place + 1 < identity.credentials.len() => Ok(()),
            None => Err(exhausted(credentials.is_none())),
        }
    }

    /// Gets a token for a scope.
    async fn token(
        &self,
        endpoint: &Endpoint,
        realm: &str,
        service: &str,
        scope: &str,
        credentials: Option<&Credentials>,
    ) -> Result<String, RequestError> {
        let plain =
            endpoint.scheme == Scheme::Http || lock(&self.plain).contains(&endpoint.authority);
        if !(realm.starts_with("https://") || plain && realm.starts_with("http://")) {
            // A password is not sent in the clear because somebody on the way says so.
            return Err(RequestError::Address(realm.into()));
        }
        let wrong = |_| RequestError::Address(realm.into());
        let request = match credentials {
            Some(Credentials::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", token),
                    ("client_id", CLIENT_ID),
                    ("service", service),
                    ("scope", scope),
                ];
                let form = encode(&form);
                let request = Request::builder().method(Method::POST).uri(realm);
                let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                request.body(Full::new(Bytes::from(form))).map_err(wrong)?
            }
            other => {
                let mut query = vec![("scope", scope), ("client_id", CLIENT_ID)];
                if !service.is_empty() {
                    query.insert(0, ("service", service));
                }
                let separator = if realm.contains('?') { '&' } else { '?' };
                let request =
                    Request::builder().uri(format!("{realm}{separator}{}", encode(&query)));
                let mut request = request.body(Full::default()).map_err(wrong)?;
                let basic = other.and_then(basic);
                request.headers_mut().extend(basic.map(|basic| (AUTHORIZATION, basic)));
                request
            }
        };
        let (response, body) = self.exchange(request).await?;
        if !response.status().is_success() {
            return Err(refusal(&response, body).await);
        }
        let bytes = body.read(ANSWER_MAX).await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|token| token.token.or(token.access_token));
        token
            .filter(|token| !token.is_empty())
            .ok_or_else(|| RequestError::NoToken { realm: realm.into() })
    }
}

/// Whether a token server refuses the credentials, as against being unable to answer.
fn is_refusal(error: &RequestError) -> bool {
    matches!(error, RequestError::Status { status, .. }
        if matches!(status.as_u16(), 400 | 401 | 403))
}

fn bearer(token: &str) -> Option<HeaderValue> {
    secret(&format!("Bearer {token}"))
}

fn basic(credentials: &Credentials) -> Option<HeaderValue> {
    match credentials {
        Credentials::Password { username, password } => {
            secret(&format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
        }
        Credentials::IdentityToken(_) | Credentials::RegistryToken(_) => None,
    }
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// `application/x-www-form-urlencoded`. Source: RFC 3986 section 2.3 for what stays as it is.
fn encode(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| {
        let mut escaped = String::new();
        for byte in text.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    escaped.push(char::from(byte));
                }
                other => escaped.push_str(&format!("%{other:02X}")),
            }
        }
        escaped
    };
    let pairs = pairs.iter().map(|(key, value)| format!("{key}={}", escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            encode(&[("scope", "repository:a/b:pull"), ("x", "~&=%é")]),
            "scope=repository%3Aa%2Fb%3Apull&x=~%26%3D%25%C3%A9"
        );
    }
}
