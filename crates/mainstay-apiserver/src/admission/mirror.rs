//! A mirror shows what a manifest says; whoever wants something else has to change the manifest.

use mainstay_pod::identity::{
    self, CONFIG_MIRROR_ANNOTATION, CONFIG_NODE_LABEL, CONFIG_PATH_ANNOTATION,
};

use super::{Attributes, Operation};
use crate::object::Object;
use crate::status::Result;

pub(super) fn admit(attributes: &Attributes<'_>, new: &Object, old: Option<&Object>) -> Result<()> {
    let Some(old) = old.filter(|_| attributes.operation == Operation::Update) else {
        return Ok(());
    };
    if attributes.is("", "pods") {
        return pod(attributes, new, old);
    }
    if !is_of_file(attributes, old) || shows(new).eq(shows(old)) {
        return Ok(());
    }
    let path = old.annotation(CONFIG_PATH_ANNOTATION).unwrap_or_default();
    let node = old.label(CONFIG_NODE_LABEL).unwrap_or_default();
    Err(attributes.forbidden(format!(
        "it shows what lies in a file, and a change here would change nothing that runs; edit {path} on node {node}"
    )))
}

fn pod(attributes: &Attributes<'_>, new: &Object, old: &Object) -> Result<()> {
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

/// Whether an object shows a ConfigMap or a Secret beside a manifest.
pub(super) fn is_of_file(attributes: &Attributes<'_>, object: &Object) -> bool {
    let (node, path) = (object.label(CONFIG_NODE_LABEL), object.annotation(CONFIG_PATH_ANNOTATION));
    (attributes.is("", "configmaps") || attributes.is("", "secrets"))
        && identity::is_object_mirror(object.name(), node, path)
}

/// What people see of such an object. Who owns it is for those who collect what is left over.
fn shows(object: &Object) -> impl Iterator<Item = (&str, &serde_json::Value)> {
    let metadata = ["labels", "annotations"].into_iter();
    let metadata = metadata.filter_map(|key| Some((key, object.meta()?.get(key)?)));
    let fields = object.0.iter().filter(|(key, _)| *key != "metadata");
    metadata.chain(fields.map(|(key, value)| (key.as_str(), value)))
}
