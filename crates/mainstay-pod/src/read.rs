//! From the bytes of a file to the pods in it, and to the ConfigMaps and Secrets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod as KubernetesPod, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{self, StrDeserializer};

use crate::credentials::{self, CREDENTIALS_ANNOTATION};
use crate::diagnostic::{Cause, Diagnostic, Finding, Severity};
use crate::documents::{self, Candidate};
use crate::identity::{self, CONFIG_REFERENCES_ANNOTATION, Facts, FullName, NodeName, SourceKind};
use crate::object::{Object, ObjectKind, ObjectName};
use crate::path::Path;
use crate::pod::Pod;
use crate::source::Source;
use crate::tree::{MAX_FILE_BYTES, Node};
use crate::yaml::MAX_DOCUMENTS;
use crate::{bandwidth, clean, defaults, json, priority, schema, unsupported, validate, yaml};

/// What to do about unknown and duplicate fields: the words of `kubectl --validate`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Validation {
    /// They refuse the manifest.
    #[default]
    Strict,
    /// They have no effect, with a warning.
    Warn,
    /// They have no effect.
    Ignore,
}

/// What a manifest itself does not say.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// What to do about unknown and duplicate fields.
    pub validation: Validation,
    /// The node that the pods are for.
    pub node_name: NodeName,
    /// Where the manifest comes from.
    pub source: SourceKind,
    /// Now, RFC 3339: when the pods are first seen.
    pub seen: String,
}

/// What is in a file.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Everything that is, or should have been, a pod, in the order of the file.
    pub entries: Vec<Entry>,
    /// Trouble with the file as a whole: nothing is known about what is in it. If it is not empty, there
    /// are no entries.
    pub diagnostics: Vec<Diagnostic>,
}

/// One pod of a file, or what was to be one; or what pods refer to.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A pod to run.
    Pod {
        /// The pod.
        pod: Arc<Pod>,
        /// What was read otherwise than written.
        warnings: Vec<Diagnostic>,
    },
    /// Not to be run as it is; what ran before runs on.
    Refused {
        /// What it would have been called, if that could be read. It may equal the name of a pod before
        /// it in the same file, which then is the one that counts.
        identity: Option<FullName>,
        /// Why; never empty.
        errors: Vec<Diagnostic>,
        /// What else there is to say.
        warnings: Vec<Diagnostic>,
    },
    /// A ConfigMap or a Secret that pods may refer to.
    Object {
        /// Which.
        name: ObjectName,
        /// What is in it.
        object: Arc<Object>,
        /// What was read otherwise than written.
        warnings: Vec<Diagnostic>,
    },
    /// One that is not to be used as it is; what was there before counts.
    RefusedObject {
        /// Which, if that could be read. It may equal the name of one before it in the same file, which
        /// then is the one that counts.
        name: Option<ObjectName>,
        /// Why; never empty.
        errors: Vec<Diagnostic>,
        /// What else there is to say.
        warnings: Vec<Diagnostic>,
    },
}

/// Errors, and warnings, of one entry that are handed out.
const MAX_DIAGNOSTICS: usize = 100;

/// Reads a manifest.
///
/// `file` is the name that diagnostics and the annotation `mainstay.dev/config.path` carry. One bad document
/// does not harm the others. Time and memory are bounded whatever the bytes are.
pub fn read(file: &str, bytes: &[u8], options: &ReadOptions) -> Outcome {
    let text = match text(file, bytes) {
        Ok(text) => text,
        Err(diagnostic) => return Outcome { entries: Vec::new(), diagnostics: vec![*diagnostic] },
    };
    let documents = if json::is_json(text) { json::read(text) } else { yaml::read(text) };
    if documents.is_empty() {
        let message = "the file holds no manifest";
        let hint = "remove the file to stop its pods".to_owned();
        let diagnostic = Diagnostic::error(file, message, Some(hint));
        return Outcome { entries: Vec::new(), diagnostics: vec![diagnostic] };
    }
    let documents: Vec<_> = documents
        .into_iter()
        .enumerate()
        .map(|(index, it)| {
            let candidates = it.root.map(|root| documents::candidates(root, index + 1));
            (index + 1, candidates.unwrap_or_default(), it.error)
        })
        .collect();
    let count: usize = documents.iter().map(|(_, candidates, _)| candidates.len().max(1)).sum();
    if count > MAX_DOCUMENTS {
        // To read only some of them would look as if the others had been taken away.
        let message = format!("the file holds more than {MAX_DOCUMENTS} manifests");
        let hint = "split it into several files".to_owned();
        let diagnostic = Diagnostic::error(file, message, Some(hint));
        return Outcome { entries: Vec::new(), diagnostics: vec![diagnostic] };
    }
    let source = Source::new(file, text);
    let mut reading = Reading {
        source,
        file,
        options,
        entries: Vec::new(),
        names: HashMap::new(),
        objects: HashMap::new(),
    };
    for (number, candidates, error) in documents {
        reading.document(candidates, error, number);
    }
    Outcome { entries: reading.entries, diagnostics: Vec::new() }
}

/// Reads one document of another kind, such as a configuration file, as Kubernetes reads it.
///
/// # Errors
/// When the file is not one document of YAML or JSON, or has a field twice.
pub fn read_value(file: &str, bytes: &[u8]) -> Result<serde_json::Value, Vec<Diagnostic>> {
    let text = text(file, bytes).map_err(|diagnostic| vec![*diagnostic])?;
    let documents = if json::is_json(text) { json::read(text) } else { yaml::read(text) };
    let mut documents: Vec<yaml::Document> =
        documents.into_iter().filter(|it| it.root.is_some() || it.error.is_some()).collect();
    let (Some(document), true) = (documents.pop(), documents.is_empty()) else {
        let message = "the file has to hold one document";
        return Err(vec![Diagnostic::error(file, message, None)]);
    };
    let source = Source::new(file, text);
    let mut findings: Vec<Finding> = document.error.into_iter().collect();
    let json = document.root.map_or(serde_json::Value::Null, |root| {
        find_duplicates(&root, &mut findings);
        root.to_json()
    });
    if findings.is_empty() {
        return Ok(json);
    }
    Err(shown(findings, &source, 1))
}

/// Keys that a map has twice. A tree is as deep as `MAX_DEPTH` at the most.
fn find_duplicates(node: &Node, findings: &mut Vec<Finding>) {
    let mut seen = HashMap::new();
    for entry in node.entries() {
        if let Some(first) = seen.insert(&entry.key, entry.key_span) {
            findings.push(Finding::duplicate(entry.key_span, &entry.key, first));
        }
        find_duplicates(&entry.node, findings);
    }
    for item in node.items() {
        find_duplicates(item, findings);
    }
}

/// Containers of a pod as it was written, and volumes of images, that say nothing about pulling.
fn unwritten_pull_policies(pod: &KubernetesPod) -> BTreeSet<String> {
    let spec = pod.spec.iter();
    let containers =
        spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    let containers = containers.map(|it| (it.name.clone(), it.image_pull_policy.as_ref()));
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let images = volumes.filter_map(|it| {
        let image = it.image.as_ref()?;
        Some((crate::pod::of_volume(&it.name), image.pull_policy.as_ref()))
    });
    let unwritten =
        containers.chain(images).filter(|(_, policy)| policy.is_none_or(String::is_empty));
    unwritten.map(|(name, _)| name).collect()
}

/// The text of a file that is small enough and UTF-8.
fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Diagnostic>> {
    if bytes.len() >= MAX_FILE_BYTES {
        let message = format!(
            "the file has {} bytes; a manifest must have less than {MAX_FILE_BYTES}",
            bytes.len()
        );
        return Err(Box::new(Diagnostic::error(file, message, None)));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        let utf16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let encoding = if utf16 { "; it seems to be UTF-16" } else { "" };
        let message =
            format!("the file is not UTF-8: byte {} in line {line}{encoding}", error.valid_up_to());
        Box::new(Diagnostic::error(file, message, Some("save it as UTF-8".to_owned())))
    })
}

/// A file that is being read.
struct Reading<'a> {
    source: Source<'a>,
    file: &'a str,
    options: &'a ReadOptions,
    entries: Vec<Entry>,
    /// The accepted pods so far, and their documents.
    names: HashMap<FullName, usize>,
    /// The same of ConfigMaps and Secrets.
    objects: HashMap<ObjectName, usize>,
}

// === impl Reading ===

impl Reading<'_> {
    fn document(&mut self, candidates: Vec<Candidate>, error: Option<Finding>, number: usize) {
        let Some(error) = error else {
            for candidate in candidates {
                let entry = match candidate {
                    Candidate::Pod(node) => self.pod(node, number),
                    Candidate::Object { kind, node, errors } if errors.is_empty() => {
                        self.object(kind, node, number)
                    }
                    Candidate::Object { kind, node, errors } => {
                        self.refused_object(object_name(kind, &node), errors, number)
                    }
                    Candidate::Other { node, errors } => self.refused(&node, errors, number),
                };
                self.entries.push(entry);
            }
            return;
        };
        // Whatever the document was to hold is refused, by name where it could be read.
        let mut named = false;
        for candidate in candidates {
            let errors = vec![error.clone()];
            let entry = match &candidate {
                Candidate::Object { kind, node, .. } => {
                    self.refused_object(object_name(*kind, node), errors, number)
                }
                Candidate::Pod(node) | Candidate::Other { node, .. } => {
                    if documents::identity(node).is_none() {
                        continue;
                    }
                    self.refused(node, errors, number)
                }
            };
            named = true;
            self.entries.push(entry);
        }
        if !named {
            let errors = vec![error.into_diagnostic(&self.source, number)];
            self.entries.push(Entry::Refused { identity: None, errors, warnings: Vec::new() });
        }
    }

    /// A ConfigMap or a Secret, from cleaning to what is in it.
    fn object(&mut self, kind: ObjectKind, mut node: Node, number: usize) -> Entry {
        let mut findings: Vec<Finding> = clean::clean_object(&mut node).into_iter().collect();
        let name = object_name(kind, &node);
        let validation = self.options.validation;
        let shape = schema::object(kind);
        let fits = schema::check(&mut node, shape, &self.source, validation, &mut findings);
        let object = (fits && is_base64(&node, kind, &mut findings))
            .then(|| decode_object(kind, &node, &mut findings))
            .flatten();
        let object = object.map(|object| with_credentials(kind, object, &node, &mut findings));
        let accepted = findings.iter().all(|it| it.severity == Severity::Warning);
        let (Some(object), Some(name)) = (object.filter(|_| accepted), name.clone()) else {
            return self.refused_object(name, findings, number);
        };
        if let Some(first) = self.objects.get(&name) {
            let message = format!(
                "Duplicate value: document {first} of this file is the same {}",
                kind.as_str()
            );
            findings.push(Finding::error(node.locate("metadata.name"), "metadata.name", message));
            return self.refused_object(Some(name), findings, number);
        }
        self.objects.insert(name.clone(), number);
        let (_, warnings) = self.diagnostics(findings, number);
        Entry::Object { name, object: Arc::new(object), warnings }
    }

    fn refused_object(
        &self,
        name: Option<ObjectName>,
        findings: Vec<Finding>,
        number: usize,
    ) -> Entry {
        let (errors, warnings) = self.diagnostics(findings, number);
        Entry::RefusedObject { name, errors, warnings }
    }

    /// A Pod, from cleaning to identity.
    fn pod(&mut self, mut node: Node, number: usize) -> Entry {
        let given = documents::identity(&node);
        let mut findings: Vec<Finding> = of_mirror(&node).into_iter().collect();
        findings.extend(clean::clean(&mut node));
        let validation = self.options.validation;
        let fits = schema::check(&mut node, schema::pod(), &self.source, validation, &mut findings);
        let mut pod = None;
        if fits {
            let content_hash = identity::content_hash(&node);
            match serde_json::from_value::<KubernetesPod>(node.to_json()) {
                Ok(decoded) => {
                    let unwritten = unwritten_pull_policies(&decoded);
                    let judged = self.judge(&node, decoded, &content_hash, &mut findings);
                    pod = Some((judged, content_hash, unwritten));
                }
                Err(error) => findings.push(
                    Finding::error(
                        node.locate(""),
                        "",
                        format!("cannot be decoded as a Pod: {error}"),
                    )
                    .cause(Cause::WrongType),
                ),
            }
        }
        let accepted = pod.filter(|_| findings.iter().all(|it| it.severity == Severity::Warning));
        let Some((pod, content_hash, unwritten)) = accepted else {
            return self.refusal(given, findings, number);
        };
        let pod = Pod::new(pod, self.options.source, content_hash, unwritten);
        if let Some(first) = self.names.get(&pod.full_name()) {
            let message = format!("Duplicate value: document {first} of this file is the same pod");
            findings.push(Finding::error(node.locate("metadata.name"), "metadata.name", message));
            return self.refusal(given, findings, number);
        }
        self.names.insert(pod.full_name(), number);
        let (_, warnings) = self.diagnostics(findings, number);
        Entry::Pod { pod: Arc::new(pod), warnings }
    }

    /// Defaults, rules and identity; what is wrong is added to the findings.
    fn judge(
        &self,
        node: &Node,
        mut pod: KubernetesPod,
        content_hash: &str,
        findings: &mut Vec<Finding>,
    ) -> KubernetesPod {
        let node_name = &self.options.node_name;
        defaults::apply(&mut pod);
        let given_name = pod.metadata.name.clone();
        let facts = Facts {
            source: self.options.source,
            node: node_name,
            path: self.file,
            seen: &self.options.seen,
            content_hash,
        };
        identity::apply(&mut pod, &facts);
        // Rules about the name are about the one that the user gave.
        let static_name = std::mem::replace(&mut pod.metadata.name, given_name);
        for error in validate::create(&pod) {
            let span = node.locate(error.place.as_ref().unwrap_or(&error.field));
            findings.push(Finding::error(span, &error.field, error.message));
        }
        for (field, message) in bandwidth::errors(&pod) {
            findings.push(Finding::error(node.locate(&field), &field, message));
        }
        let name = pod.metadata.name.as_deref().unwrap_or("");
        if identity::is_too_long(name, node_name) {
            let message = format!(
                "Invalid value: {name:?}: together with \"-{node_name}\" must be no more than 253 characters"
            );
            findings.push(Finding::error(node.locate("metadata.name"), "metadata.name", message));
        }
        pod.metadata.name = static_name;
        let mut references = validate::api_references(&pod);
        references.retain(|it| !it.is_local());
        for reference in &references {
            let finding = Finding::error(
                node.locate(&reference.field),
                &reference.field,
                reference.to_string(),
            );
            let hint = reference.hint().map(str::to_owned);
            findings.push(finding.hint(hint).cause(Cause::Prohibited));
        }
        findings.extend(unknown_class(&pod, node));
        // "Not yet" would be wrong of what a static pod can never have.
        let never = |field: &str| {
            references.iter().any(|it| is_within(&it.field, field) || is_within(field, &it.field))
        };
        findings.extend(unsupported::check(node).into_iter().filter(|it| !never(&it.field)));
        pod
    }

    fn refused(&self, node: &Node, findings: Vec<Finding>, number: usize) -> Entry {
        self.refusal(documents::identity(node), findings, number)
    }

    fn refusal(
        &self,
        given: Option<(String, String)>,
        findings: Vec<Finding>,
        number: usize,
    ) -> Entry {
        let identity = given.map(|(namespace, name)| FullName {
            name: identity::static_name(&name, &self.options.node_name),
            namespace,
        });
        let (errors, warnings) = self.diagnostics(findings, number);
        Entry::Refused { identity, errors, warnings }
    }

    /// Errors and warnings, each in the order of the file.
    fn diagnostics(
        &self,
        mut findings: Vec<Finding>,
        number: usize,
    ) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        findings.sort_by_key(|finding| finding.span.start);
        let (errors, warnings) =
            findings.into_iter().partition(|finding| finding.severity == Severity::Error);
        (shown(errors, &self.source, number), shown(warnings, &self.source, number))
    }
}

/// A mirror does not show what its pod takes from ConfigMaps and Secrets, so it is not the pod.
fn of_mirror(node: &Node) -> Option<Finding> {
    let annotations = node.get("metadata")?.get("annotations")?;
    let names = annotations.get_str(CONFIG_REFERENCES_ANNOTATION)?;
    let path = Path::new("metadata");
    let path = path.field("annotations");
    let message = format!(
        "it is of a mirror pod, which leaves out what the pod takes from ConfigMaps and Secrets \
         ({names})"
    );
    let span = annotations.span;
    let hint = "copy the manifest that the mirror is of, not the mirror".to_owned();
    Some(Finding::error(span, path.key(CONFIG_REFERENCES_ANNOTATION), message).hint(hint))
}

fn object_name(kind: ObjectKind, node: &Node) -> Option<ObjectName> {
    let (namespace, name) = documents::identity(node)?;
    Some(ObjectName { kind, namespace, name })
}

/// Whether what is to be base64 is. The value is not shown: it may be a secret.
fn is_base64(node: &Node, kind: ObjectKind, findings: &mut Vec<Finding>) -> bool {
    let map = match kind {
        ObjectKind::ConfigMap => "binaryData",
        ObjectKind::Secret => "data",
    };
    let before = findings.len();
    for entry in node.get(map).map(Node::entries).unwrap_or_default() {
        let text = entry.node.as_str().unwrap_or_default();
        let text: StrDeserializer<'_, value::Error> = text.into_deserializer();
        if ByteString::deserialize(text).is_err() {
            let path = Path::new(map);
            let finding = Finding::error(entry.node.span, path.key(&entry.key), "it is not base64");
            let hint = match kind {
                ObjectKind::ConfigMap => "text goes into data",
                ObjectKind::Secret => "text goes into stringData",
            };
            findings.push(finding.hint(hint.to_owned()).cause(Cause::WrongType));
        }
    }
    findings.len() == before
}

fn decode_object(kind: ObjectKind, node: &Node, findings: &mut Vec<Finding>) -> Option<Object> {
    let json = node.to_json();
    let namespace = |metadata: &mut ObjectMeta| {
        let namespace = metadata.namespace.get_or_insert_default();
        if namespace.is_empty() {
            "default".clone_into(namespace);
        }
    };
    let decoded = match kind {
        ObjectKind::ConfigMap => serde_json::from_value(json).map(|mut object: ConfigMap| {
            namespace(&mut object.metadata);
            (validate::config_map(&object), Object::from(object))
        }),
        ObjectKind::Secret => serde_json::from_value(json).map(|mut object: Secret| {
            namespace(&mut object.metadata);
            (validate::secret(&object), Object::from(object))
        }),
    };
    match decoded {
        Ok((errors, object)) => {
            findings.extend(errors.into_iter().map(|error| {
                let span = node.locate(error.place.as_ref().unwrap_or(&error.field));
                Finding::error(span, &error.field, error.message)
            }));
            Some(object)
        }
        Err(error) => {
            let message = format!("cannot be decoded as a {}: {error}", kind.as_str());
            findings.push(Finding::error(node.locate(""), "", message).cause(Cause::WrongType));
            None
        }
    }
}

/// Notes which values of a Secret are the service manager's to give.
fn with_credentials(
    kind: ObjectKind,
    mut object: Object,
    node: &Node,
    findings: &mut Vec<Finding>,
) -> Object {
    let Some(written) = &mut object.written else { return object };
    let Some(text) = written.annotations.get(CREDENTIALS_ANNOTATION) else { return object };
    let keys = object.values.keys().map(String::as_str).collect();
    let read = match kind {
        ObjectKind::Secret => credentials::parse(text, &keys),
        ObjectKind::ConfigMap => Err("only a Secret takes credentials".to_owned()),
    };
    match read {
        Ok(credentials) => written.credentials = credentials,
        Err(why) => {
            let path = Path::new("metadata");
            let path = path.field("annotations");
            let path = path.key(CREDENTIALS_ANNOTATION);
            let hint = "such as password=db-password,user=db-user".to_owned();
            let span = node.locate("metadata.annotations");
            findings.push(Finding::error(span, path, why).hint(hint));
        }
    }
    object
}

/// No more diagnostics than anybody would read; the last one says how many are left out.
fn shown(findings: Vec<Finding>, source: &Source<'_>, number: usize) -> Vec<Diagnostic> {
    let left = findings.len().saturating_sub(MAX_DIAGNOSTICS);
    let mut shown: Vec<Diagnostic> = findings
        .into_iter()
        .take(MAX_DIAGNOSTICS)
        .map(|finding| finding.into_diagnostic(source, number))
        .collect();
    if left > 0
        && let Some(last) = shown.last_mut()
    {
        last.message.push_str(&format!("; and {left} more after this one"));
    }
    shown
}

/// A class of priority whose number is not known here. Only an API could have it, and a static pod does not
/// wait for one.
fn unknown_class(pod: &KubernetesPod, node: &Node) -> Option<Finding> {
    let spec = pod.spec.as_ref()?;
    let name = spec.priority_class_name.as_deref().filter(|name| !name.is_empty())?;
    if spec.priority.is_some() || priority::of_class(name).is_some() {
        return None;
    }
    let field = "spec.priorityClassName";
    let message = format!("a static pod of the class {name:?} has the priority 0");
    let hint = "write its number in spec.priority, too";
    Some(Finding::warning(node.locate(field), field, message).hint(hint.to_owned()))
}

/// Whether a field path is the other one or something below it.
fn is_within(field: &str, above: &str) -> bool {
    field.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests;
