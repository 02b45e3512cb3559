//! Objects live in namespaces that are there. Source: `NamespaceLifecycle`.

use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use serde_json::json;

use super::{Attributes, Operation, mirror};
use crate::kinds;
use crate::object::Object;
use crate::pipeline::Writer;
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// Namespaces that cannot be deleted. Source: `NewPlugin` of `namespace/lifecycle`.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub(super) async fn admit(
    server: &Inner,
    attributes: &Attributes<'_>,
    new: Option<&Object>,
) -> Result<()> {
    let namespaces = &kinds::NAMESPACES;
    if attributes.operation == Operation::Delete {
        let immortal = attributes.is("", "namespaces") && IMMORTAL.contains(&attributes.name);
        return match immortal {
            true => Err(attributes.forbidden("this namespace may not be deleted")),
            false => Ok(()),
        };
    }
    if !attributes.resource.namespaced || attributes.operation != Operation::Create {
        return Ok(());
    }
    let namespace = attributes.namespace;
    // Asking who may do what is not making anything.
    if !attributes.resource.allows("get") {
        return Ok(());
    }
    match server.storage.find(namespaces, "", namespace).await? {
        None if attributes.user.node_name().is_some()
            && new.is_some_and(|new| is_mirror(attributes, new)) =>
        {
            // A node may not make namespaces, and a static pod that nobody sees helps nobody.
            let object = Object::from_json(json!({ "metadata": { "name": namespace } }));
            let system = server.system_user();
            let writer = Writer {
                dry_run: attributes.dry_run,
                ..Writer::system(&system, jiff::Timestamp::now())
            };
            match Box::pin(server.create(namespaces, "", object, &writer)).await {
                Err(error) if error.reason != "AlreadyExists" => Err(error),
                _ => Ok(()),
            }
        }
        None => Err(ApiError::not_found(namespaces, namespace)),
        Some(stored) if stored.object.is_terminating() => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut error = attributes.forbidden(why);
            if let Some(details) = &mut error.details {
                details.causes.push(crate::status::Cause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {namespace} is being terminated"),
                    field: "metadata.namespace".to_owned(),
                });
            }
            Err(error)
        }
        Some(_) => Ok(()),
    }
}

fn is_mirror(attributes: &Attributes<'_>, object: &Object) -> bool {
    object.annotation(CONFIG_MIRROR_ANNOTATION).is_some() || mirror::is_of_file(attributes, object)
}
