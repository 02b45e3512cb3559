//! The certificate authority, certificates and their rotation, kubeconfigs, service-account and join tokens; time is an argument.
//!
//! # Files
//!
//! All in one directory, 0700, the keys 0600; [`NodeCredentials`] has those of a node that has joined another
//! machine's API. Each is written under a temporary name, synced and renamed, so that it is there whole or
//! not at all.
//!
//! | file | what |
//! | --- | --- |
//! | `ca.crt`, `ca.key` | the authority (ECDSA P-256, 10 years); `ca.crt` may hold more authorities to trust |
//! | `apiserver.crt`, `.key` | what the API server shows to its clients |
//! | `kubelet.crt`, `.key` | what the node's HTTPS port shows to its clients |
//! | `admin.crt`, `.key` | `kubernetes-admin` of `system:masters`, for the kubeconfig |
//! | `apiserver-kubelet-client.crt`, `.key` | how the API server shows itself to nodes |
//! | `sa.key`, `sa.pub` | what service-account tokens are signed and checked with |
//!
//! # Guarantees
//!
//! - [`Pki::open`] makes what is missing and re-issues what [`renewal()`] says; with the same wishes and the
//!   same time it changes nothing the second time.
//! - The authority's key and the service-account key are never replaced: what was given out with them
//!   stays good. A file of theirs that is broken is an error with the way out.
//! - The authority's certificate is renewed in time under the same key and name, so that what it has
//!   signed, and the kubeconfigs that carry the old one, stay good until the old one ends.
//!
//! # The clock
//!
//! A machine without a battery for its clock starts in 1970 and learns the time later, sometimes a wrong
//! one first. So the authority's certificate is valid from 1970 on, and all others from 30 days before
//! they are made. One that is made before [`EARLIEST_PLAUSIBLE`] is valid from 1970 until ten years after
//! that date: now, and also once the clock is set; then it is replaced by an ordinary one. Call
//! [`Pki::open`] again at [`Pki::next_renewal`], which is soon while the clock is not plausible.

mod authority;
mod certificate;
mod client;
mod files;
mod join_token;
mod kubeconfig;
mod names;
mod node_credentials;
mod pki;
mod renewal;
mod request;
mod static_tokens;
mod tokens;
mod unverified;

pub use authority::Authority;
pub use certificate::{CertificateFacts, Identity, Leaf, Usage};
pub use client::{ClientCertificate, NotACertificate, Subject, request_subject};
pub use files::PkiError;
pub use join_token::{
    BOOTSTRAP_SECRET_PREFIX, BOOTSTRAP_SECRET_TYPE, JoinToken, KeyHash, NoToken, NotAToken,
    bootstrap_token, same_secret,
};
pub use kubeconfig::{Kubeconfig, KubeconfigError, ReadKubeconfig, Written};
pub use names::{NameError, SubjectName};
pub use node_credentials::{NodeCertificate, NodeCredentials, NodeRequest};
pub use pki::{Note, Pki, Wanted};
pub use renewal::{EARLIEST_PLAUSIBLE, Reason, Renewal, renewal};
pub use request::{RequestFacts, SignError};
pub use static_tokens::{StaticTokens, StaticTokensError, StaticUser};
pub use tokens::{
    Accepted, Audience, BoundObject, Claims, KubernetesClaims, TokenError, TokenKeys, TokenRequest,
    Verified,
};
pub use unverified::unverified_client;
