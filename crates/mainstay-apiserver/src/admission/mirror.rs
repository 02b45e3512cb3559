//! A mirror pod shows what a manifest says; whoever wants something else has to change the manifest.

use mainstay_pod::identity::{CONFIG_MIRROR_ANNOTATION, CONFIG_PATH_ANNOTATION};

use super::{Attributes, Operation};
use crate::object::Object;
use crate::status::Result;

pub(super) fn admit(attributes: &Attributes<'_>, new: &Object, old: Option<&Object>) -> Result<()> {
    let Some(old) = old else { return Ok(()) };
    if attributes.operation != Operation::Update || !attributes.is("", "pods") {
        return Ok(());
    }
    if old.annotation(CONFIG_MIRROR_ANNOTATION).is_none() || new.0.get("spec") == old.0.get("spec")
    {
        return Ok(());
    }
    let file = old.annotation(CONFIG_PATH_ANNOTATION).map_or_else(
        || "its manifest on the node".to_owned(),
        |path| format!("{path} on node {}", old.str_at(&["spec", "nodeName"])),
    );
    Err(attributes.forbidden(format!(
        "it is the mirror of a static pod, and a change here would change nothing that runs; edit {file}"
    )))
}
