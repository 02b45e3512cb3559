//! What the server adds to objects, and what it does not let in, whoever's role allows it.
//!
//! Source: `plugin/pkg/admission` and `staging/src/k8s.io/apiserver/pkg/admission`. Each plug-in is one
//! file here; the order is that of `pkg/kubeapiserver/options/plugins.go`.

mod certificates;
mod mirror;
mod namespace;
pub(crate) mod node_restriction;
mod node_taint;
mod pod_resize;
mod priority;
mod runtime_class;
mod service_account;
mod tolerations;

use crate::authn::User;
use crate::kind::Resource;
use crate::object::Object;
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// What is being done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

/// Who does what to which object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a User,
    pub(crate) operation: Operation,
    pub(crate) resource: &'static Resource,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    /// Empty of a new object whose name the server makes.
    pub(crate) name: &'a str,
    pub(crate) dry_run: bool,
}

impl Attributes<'_> {
    /// Whether it is about the objects of a resource themselves.
    fn is(&self, group: &str, plural: &str) -> bool {
        self.resource.group == group
            && self.resource.plural == plural
            && self.subresource.is_empty()
    }

    fn forbidden(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::forbidden(self.resource, self.name, why)
    }
}

impl Inner {
    /// Adds to a new or changed object what the server adds.
    pub(crate) async fn admit(
        &self,
        attributes: &Attributes<'_>,
        new: &mut Object,
        old: Option<&Object>,
    ) -> Result<()> {
        namespace::admit(self, attributes, Some(new)).await?;
        if attributes.is("", "pods") {
            service_account::admit(self, attributes, new).await?;
            priority::admit(self, attributes, new, old).await?;
            tolerations::admit(new);
            runtime_class::admit(self, attributes, new).await?;
        }
        node_taint::admit(attributes, new);
        certificates::admit(attributes, new);
        mirror::admit(attributes, new, old)
    }

    /// Judges what is about to be written; `new` is `None` for what is to be deleted.
    pub(crate) async fn validate_admission(
        &self,
        attributes: &Attributes<'_>,
        new: Option<&Object>,
        old: Option<&Object>,
    ) -> Result<()> {
        if attributes.operation == Operation::Delete {
            namespace::admit(self, attributes, None).await?;
        }
        self.restrict_node(attributes, new, old).await?;
        certificates::validate(self, attributes, new, old)?;
        pod_resize::validate(self, attributes, new, old).await?;
        self.check_escalation(attributes, new, old)
    }
}
