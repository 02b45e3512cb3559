//! Who sends a request.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/authentication` and `pkg/serviceaccount` (Kubernetes 1.36).
//!
//! # Flow
//!
//! 1. The client's certificate, which TLS has verified against the authority, names a user.
//! 2. Otherwise a bearer token does: one of a file, one of a service account, or a bootstrap token.
//! 3. Otherwise, if there was neither, it is `system:anonymous`. A wrong token is 401 and not anonymous.
//! 4. [`impersonation`] may put somebody else in the place of who that is.

mod bearer;
mod bootstrap_token;
pub(crate) mod impersonation;
mod service_account;
mod user;

use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use mainstay_pki::{Accepted, ClientCertificate, StaticTokens, TokenError, TokenKeys};

use bootstrap_token::BootstrapToken;
pub(crate) use bootstrap_token::NAMESPACE as BOOTSTRAP_NAMESPACE;
pub(crate) use service_account::{Bound, Found, Lookup};
pub(crate) use user::SERVICE_ACCOUNT_PREFIX;
pub use user::{MASTERS, User};

use crate::status::{ApiError, Result};

/// Headers by which a proxy in front tells who somebody is. There is none in front of this server, and
/// nobody behind it shall believe them.
const PROXY_HEADERS: [&str; 3] = ["x-remote-user", "x-remote-uid", "x-remote-group"];
const PROXY_EXTRA: &str = "x-remote-extra-";

/// Finds out who sends a request.
pub(crate) struct Authenticator {
    /// What service-account tokens are checked with.
    pub(crate) keys: Arc<TokenKeys>,
    /// Tokens of a file.
    pub(crate) static_tokens: StaticTokens,
    /// Who may have made a service-account token. The first one makes new ones.
    pub(crate) issuers: Vec<String>,
    /// Whom a token is for that counts here. The first one is also that of tokens for nobody else.
    pub(crate) audiences: Vec<String>,
}

/// Who a token belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Authenticated {
    pub(crate) user: User,
    /// Those of the audiences asked for that the token is for.
    pub(crate) audiences: Vec<String>,
}

/// Why a token does not count. A TokenReview tells the text; a request is answered 401 and told nothing.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The token is wrong, or is not good any more.
    Token(String),
    /// It could not be found out.
    Unknown(ApiError),
}

impl Authenticator {
    /// Who sends a request with these headers over a connection with this certificate, which TLS has
    /// verified. The headers with secrets are taken out.
    ///
    /// # Errors
    ///
    /// 401 for a certificate or a token that does not count.
    pub(crate) async fn request(
        &self,
        certificate: Option<&ClientCertificate>,
        headers: &mut HeaderMap,
        lookup: &dyn Lookup,
        now: Timestamp,
    ) -> Result<User> {
        let mut refused = false;
        let mut user = None;
        if let Some(certificate) = certificate {
            match valid_at(certificate, now) {
                true => user = User::from_certificate(certificate),
                false => refused = true,
            }
        }
        if user.is_none() {
            match bearer::token(headers) {
                Ok(Some(token)) => match self.token(&token, &self.audiences, lookup, now).await {
                    Ok(found) => user = Some(found.user),
                    Err(Refusal::Token(_)) => refused = true,
                    Err(Refusal::Unknown(error)) => return Err(error),
                },
                Ok(None) => {}
                Err(bearer::Malformed) => refused = true,
            }
        }
        let user = match user {
            Some(user) => user,
            None if refused => return Err(ApiError::unauthorized()),
            None => User::anonymous(),
        };
        bearer::remove(headers);
        remove_proxy_headers(headers);
        Ok(user)
    }

    /// Who a token belongs to, if it is for one of `audiences`; of none asked for, of the server's own.
    ///
    /// # Errors
    ///
    /// When it does not count.
    pub(crate) async fn token(
        &self,
        token: &str,
        audiences: &[String],
        lookup: &dyn Lookup,
        now: Timestamp,
    ) -> std::result::Result<Authenticated, Refusal> {
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        if let Some(user) = self.static_tokens.user(token) {
            return self.for_the_server(User::from_static(user), audiences);
        }
        if let Some(token) = BootstrapToken::parse(token) {
            let user = bootstrap_user(&token, lookup, now).await?;
            return self.for_the_server(user, audiences);
        }
        let accepted =
            Accepted { issuers: &self.issuers, audiences, own_audiences: &self.audiences };
        let verified = self
            .keys
            .verify(token, &accepted, now)
            .map_err(|error| Refusal::Token(error.to_string()))?;
        let user = service_account::user(&verified.claims, lookup, now).await?;
        Ok(Authenticated { user, audiences: verified.audiences })
    }

    /// Of tokens that do not say whom they are for: the server only.
    ///
    /// Source: `AuthenticateToken` of `authenticator/audagnostic.go`.
    fn for_the_server(
        &self,
        user: User,
        audiences: &[String],
    ) -> std::result::Result<Authenticated, Refusal> {
        let audiences: Vec<_> =
            audiences.iter().filter(|it| self.audiences.contains(it)).cloned().collect();
        match audiences.is_empty() {
            true => Err(Refusal::Token(TokenError::NotOurs.to_string())),
            false => Ok(Authenticated { user, audiences }),
        }
    }
}

/// Who has a bootstrap token.
async fn bootstrap_user(
    token: &BootstrapToken<'_>,
    lookup: &dyn Lookup,
    now: Timestamp,
) -> std::result::Result<User, Refusal> {
    let name = token.secret_name();
    let known = lookup.bootstrap_secret(&name).await.map_err(Refusal::Unknown)?;
    let why = match known.as_ref().map(|known| token.user(known, now)) {
        Some(Ok(user)) => return Ok(user),
        Some(Err(why)) => why,
        None => "is not there",
    };
    tracing::debug!("the Secret {BOOTSTRAP_NAMESPACE}/{name} of a bootstrap token {why}");
    Err(Refusal::Token(TokenError::NotOurs.to_string()))
}

/// TLS has looked at this when the connection began; it may have lived for long since.
fn valid_at(certificate: &ClientCertificate, now: Timestamp) -> bool {
    certificate.not_before <= now && now <= certificate.not_after
}

fn remove_proxy_headers(headers: &mut HeaderMap) {
    for name in PROXY_HEADERS {
        headers.remove(name);
    }
    let extra: Vec<_> =
        headers.keys().filter(|name| name.as_str().starts_with(PROXY_EXTRA)).cloned().collect();
    for name in extra {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
