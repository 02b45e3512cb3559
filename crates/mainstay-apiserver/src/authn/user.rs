//! Users.

use std::collections::BTreeMap;

use jiff::Timestamp;
use mainstay_pki::{ClientCertificate, StaticUser};
use serde_json::{Value, json};

/// Whoever shows nothing.
pub(crate) const ANONYMOUS: &str = "system:anonymous";
/// The group of users that have shown who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of those that have not.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of nodes.
pub(crate) const NODES: &str = "system:nodes";
/// The group of all service accounts. With a colon and a namespace, of those in the namespace.
pub(crate) const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// What the names of nodes as users begin with.
pub(crate) const NODE_PREFIX: &str = "system:node:";
/// What the names of service accounts as users begin with; a namespace, a colon and a name follow.
pub(crate) const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// The key of [`User::extra`] that tells which certificate or token was shown.
pub(super) const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// The key of [`User::extra`] that tells which node a token is for, or of a pod's token, where the pod is.
pub(super) const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// Who sends a request.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct User {
    /// Whom roles are bound to.
    pub name: String,
    /// Another one for somebody else of the same name later; mostly empty.
    pub uid: String,
    /// The groups that roles are bound to.
    pub groups: Vec<String>,
    /// What else is known, such as the pod that a token is of.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Whoever shows nothing.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// A node, such as the agent in this process, as it would be if it showed its certificate.
    pub fn node(name: &str) -> Self {
        Self {
            name: format!("{NODE_PREFIX}{name}"),
            groups: vec![NODES.to_owned(), AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Somebody of this process who may do everything.
    pub fn master(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            groups: vec![MASTERS.to_owned(), AUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// The user of a certificate that TLS has verified; `None` if it names nobody, or not now.
    pub fn of_certificate(certificate: &ClientCertificate, now: Timestamp) -> Option<Self> {
        super::valid_at(certificate, now).then(|| Self::from_certificate(certificate)).flatten()
    }

    /// The user of a certificate; `None` if it names nobody.
    pub(super) fn from_certificate(certificate: &ClientCertificate) -> Option<Self> {
        let subject = &certificate.subject;
        if subject.common_name.is_empty() {
            return None;
        }
        let id = vec![certificate.credential_id.clone()];
        let user = Self {
            name: subject.common_name.clone(),
            uid: certificate.uid.clone(),
            groups: subject.organizations.clone(),
            extra: BTreeMap::from([(CREDENTIAL_ID.to_owned(), id)]),
        };
        Some(user.authenticated())
    }

    /// The user of a token of a file.
    pub(super) fn from_static(user: &StaticUser) -> Self {
        let StaticUser { name, uid, groups } = user.clone();
        Self { name, uid, groups, extra: BTreeMap::new() }.authenticated()
    }

    /// A service account.
    pub(super) fn from_service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let user = Self {
            name: format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"),
            uid: uid.to_owned(),
            groups: service_account_groups(namespace),
            extra: BTreeMap::new(),
        };
        user.authenticated()
    }

    /// With the group of those that have shown who they are, unless the groups say something about that.
    pub(super) fn authenticated(mut self) -> Self {
        let known =
            self.name == ANONYMOUS || self.is_in(AUTHENTICATED) || self.is_in(UNAUTHENTICATED);
        if !known {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// Whether the user is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }

    /// The name of the node that the user is; empty of a node without one.
    ///
    /// Source: `pkg/auth/nodeidentifier/default.go`.
    pub(crate) fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix(NODE_PREFIX)?;
        self.is_in(NODES).then_some(name)
    }

    /// As a TokenReview and a SelfSubjectReview tell it.
    pub(crate) fn to_json(&self) -> Value {
        let mut json = json!({ "username": self.name });
        if !self.uid.is_empty() {
            json["uid"] = self.uid.as_str().into();
        }
        if !self.groups.is_empty() {
            json["groups"] = self.groups.clone().into();
        }
        if !self.extra.is_empty() {
            json["extra"] =
                self.extra.iter().map(|(key, values)| (key.clone(), values.clone())).collect();
        }
        json
    }
}

/// The groups that all service accounts of a namespace are in.
pub(super) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")]
}

/// Namespace and name of the service account that a user's name is for.
pub(crate) fn split_service_account(user: &str) -> Option<(&str, &str)> {
    use mainstay_pod::validate::names::{dns_label, dns_subdomain};
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let valid = dns_label(namespace).is_empty() && dns_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// The name of the node that a user's name is for, if a node can have it.
pub(super) fn split_node(user: &str) -> Option<&str> {
    let name = user.strip_prefix(NODE_PREFIX)?;
    mainstay_pod::validate::names::dns_subdomain(name).is_empty().then_some(name)
}
