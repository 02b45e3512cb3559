//! Service-account tokens: JSON Web Tokens signed with ES256.
//!
//! Source: `pkg/serviceaccount/{jwt,claims}.go` (Kubernetes 1.36).

mod claims;
mod keys;

pub use claims::{
    Accepted, Audience, BoundObject, Claims, KubernetesClaims, TokenRequest, Verified,
};
pub use keys::{TokenError, TokenKeys};

#[cfg(test)]
mod tests;
