//! Who sends a request and whether he may have what it asks for: `authn` and `authz` put to work on what
//! is in the store.

use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;
use jiff::Timestamp;
use mainstay_pki::{StaticTokens, TokenKeys, TokenRequest};

use crate::admission::{Attributes as Admitted, Operation, node_restriction};
use crate::authn::{
    Authenticated, Authenticator, BOOTSTRAP_NAMESPACE, Bound, Found, Lookup, Refusal, User,
    impersonation,
};
use crate::authz::{self, Attributes, Decision, UserRules, escalation};
use crate::call::Call;
use crate::kind::Resource;
use crate::kinds;
use crate::object::Object;
use crate::request::RequestInfo;
use crate::selector::Selector;
use crate::server::{Inner, Peer};
use crate::status::{ApiError, Result};
use crate::storage::Storage;

/// Who is who, and who may do what.
pub struct Access {
    authenticator: Authenticator,
}

/// Who makes and takes service-account tokens. Source: `--service-account-issuer`.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

impl Access {
    /// With the keys of service-account tokens, and the tokens of a file.
    pub fn new(keys: Arc<TokenKeys>, static_tokens: StaticTokens) -> Self {
        let authenticator = Authenticator {
            keys,
            static_tokens,
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![ISSUER.to_owned()],
        };
        Self { authenticator }
    }

    /// Whom the server itself is as an audience of tokens.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.authenticator.audiences
    }

    /// Makes a service-account token.
    pub(crate) fn issue(&self, mut request: TokenRequest, now: Timestamp) -> Result<String> {
        ISSUER.clone_into(&mut request.issuer);
        let signed = self.authenticator.keys.sign(&request, now);
        let failed = |error| ApiError::internal(format!("failed to generate token: {error}"));
        signed.map(|(token, _)| token).map_err(failed)
    }
}

impl Inner {
    /// Who sends a request, or who he wants to be.
    pub(crate) async fn authenticate(
        &self,
        parts: &mut Parts,
        peer: &Peer,
        info: &RequestInfo,
    ) -> Result<User> {
        let user = match peer {
            Peer::Trusted(user) => return Ok(user.clone()),
            Peer::Connection(certificate) => {
                let now = Timestamp::now();
                let headers = &mut parts.headers;
                let authenticator = &self.access.authenticator;
                authenticator.request(certificate.as_deref(), headers, &self.storage, now).await?
            }
        };
        let Some(wanted) = impersonation::requested(&mut parts.headers)? else { return Ok(user) };
        let required = Required::of(info);
        let rules = self.storage.rules.read();
        let request = attributes(&user, info, &required);
        impersonation::impersonate(&wanted, &request, &|attributes| rules.decide(attributes))
    }

    /// # Errors
    ///
    /// 403 when he may not.
    pub(crate) fn authorize(&self, user: &User, info: &RequestInfo) -> Result<()> {
        let required = Required::of(info);
        let asked = attributes(user, info, &required);
        self.require(&asked)?;
        // Upgraded connections are made by GET too, and make something nevertheless. Source:
        // `AuthorizePodWebsocketUpgradeCreatePermission`.
        let makes = asked.resource == "pods"
            && matches!(asked.subresource, "exec" | "attach" | "portforward")
            && asked.verb == "get";
        if makes { self.require(&Attributes { verb: "create", ..asked }) } else { Ok(()) }
    }

    fn require(&self, asked: &Attributes<'_>) -> Result<()> {
        match self.decide(asked) {
            Decision::Allow(_) => Ok(()),
            Decision::NoOpinion(reason) => Err(authz::forbidden(asked, &reason)),
        }
    }

    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let rules = self.storage.rules.read();
        rules.decide(attributes)
    }

    /// What somebody may do in a namespace, and outside of all.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> UserRules {
        let rules = self.storage.rules.read();
        rules.rules_for(user, namespace)
    }

    /// Who a token belongs to.
    pub(crate) async fn review_token(
        &self,
        token: &str,
        audiences: &[String],
    ) -> std::result::Result<Authenticated, Refusal> {
        let now = Timestamp::now();
        self.access.authenticator.token(token, audiences, &self.storage, now).await
    }

    /// Who somebody is in this process when the server itself does something.
    pub(crate) fn system_user(&self) -> User {
        User::master("system:apiserver")
    }

    /// What a node may write. Source: `plugin/pkg/admission/noderestriction`.
    pub(crate) async fn restrict_node(
        &self,
        attributes: &Admitted<'_>,
        new: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<()> {
        if attributes.user.node_name().is_none() {
            return Ok(());
        }
        let resource = attributes.resource;
        let request = node_restriction::Request {
            user: attributes.user,
            operation: attributes.operation,
            group: resource.group,
            resource: resource.plural,
            subresource: attributes.subresource,
            namespace: attributes.namespace,
            name: attributes.name,
        };
        let needs = node_restriction::needs(&request, new);
        let object = async |resource, namespace, name: Option<String>| match name {
            Some(name) => {
                let found = self.storage.find_current(resource, namespace, &name).await?;
                Ok::<_, ApiError>(found.map(|stored| stored.object))
            }
            None => Ok(None),
        };
        let node = object(&kinds::NODES, "", needs.node).await?;
        let pod = object(&kinds::PODS, attributes.namespace, needs.pod).await?;
        let found = node_restriction::Found { node: node.as_ref(), pod: pod.as_ref() };
        match node_restriction::admit(&request, new, old, &found) {
            Ok(()) => Ok(()),
            Err(node_restriction::Refusal::Forbidden(why)) => {
                Err(ApiError::forbidden(resource, attributes.name, why))
            }
            Err(node_restriction::Refusal::NotFound { resource, name }) => {
                let resource = if resource == "nodes" { &kinds::NODES } else { &kinds::PODS };
                Err(ApiError::not_found(resource, &name))
            }
        }
    }

    /// Nobody gives others what he does not have.
    pub(crate) fn check_escalation(
        &self,
        attributes: &Admitted<'_>,
        new: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<()> {
        let resource = attributes.resource;
        let writes = matches!(attributes.operation, Operation::Create | Operation::Update);
        let Some(new) = new.filter(|_| writes && resource.group == authz::rbac::GROUP) else {
            return Ok(());
        };
        let write = escalation::Write {
            user: attributes.user,
            resource: resource.plural,
            namespace: attributes.namespace,
            new,
            old,
        };
        let rules = self.storage.rules.read();
        match escalation::check(&rules, &write) {
            Ok(()) => Ok(()),
            Err(escalation::Refusal::Forbidden(why)) => {
                Err(ApiError::forbidden(resource, attributes.name, why))
            }
            Err(escalation::Refusal::NotFound(text)) => Err(ApiError::not_found_text(text)),
        }
    }
}

impl Call<'_> {
    /// Judges what is made below an object, such as a token or an eviction.
    pub(crate) async fn admit_part(&self, part: &Object) -> Result<()> {
        let attributes = Admitted {
            user: self.user,
            operation: Operation::Create,
            resource: self.resource,
            subresource: &self.info.subresource,
            namespace: self.namespace(),
            name: &self.info.name,
            dry_run: false,
        };
        self.server.validate_admission(&attributes, Some(part), None).await
    }
}

fn attributes<'a>(user: &'a User, info: &'a RequestInfo, required: &'a Required) -> Attributes<'a> {
    let Required { fields, labels } = required;
    Attributes {
        user,
        verb: info.verb,
        group: &info.group,
        resource: &info.resource,
        subresource: &info.subresource,
        namespace: &info.namespace,
        name: if info.name.is_empty() { selected_name(info, fields) } else { &info.name },
        path: &info.path,
        is_resource: info.is_resource,
        fields,
        labels,
    }
}

/// The one name that a list or a watch asks for. Source: `NewRequestInfo` in
/// `staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.
fn selected_name<'a>(info: &RequestInfo, fields: &'a [(String, String)]) -> &'a str {
    let one = fields.iter().find(|(field, _)| field == "metadata.name").map(|(_, name)| name);
    let is_segment =
        |name: &&String| !matches!(name.as_str(), "." | "..") && !name.contains(['/', '%']);
    match info.verb {
        "list" | "watch" => one.filter(is_segment).map_or("", String::as_str),
        _ => "",
    }
}

/// What a request's selectors pin down.
#[derive(Default)]
struct Required {
    fields: Vec<(String, String)>,
    labels: Vec<(String, String)>,
}

impl Required {
    fn of(info: &RequestInfo) -> Self {
        if !matches!(info.verb, "list" | "watch" | "deletecollection") {
            return Self::default();
        }
        Self {
            fields: Selector::required_fields(info.query.get("fieldSelector")),
            labels: Selector::required_labels(info.query.get("labelSelector")),
        }
    }
}

#[async_trait]
impl Lookup for Storage {
    async fn find(&self, kind: Bound, namespace: &str, name: &str) -> Result<Option<Found>> {
        let resource: &Resource = match kind {
            Bound::ServiceAccount => &kinds::SERVICE_ACCOUNTS,
            Bound::Pod => &kinds::PODS,
            Bound::Node => &kinds::NODES,
            Bound::Secret => &kinds::SECRETS,
        };
        let found = Self::find(self, resource, namespace, name).await?;
        Ok(found.map(|stored| Found {
            uid: stored.object.uid().to_owned(),
            deletion_timestamp: stored.object.meta_str("deletionTimestamp").parse().ok(),
        }))
    }

    async fn bootstrap_secret(&self, name: &str) -> Result<Option<Object>> {
        let found = Self::find(self, &kinds::SECRETS, BOOTSTRAP_NAMESPACE, name).await?;
        Ok(found.map(|stored| stored.object))
    }
}
