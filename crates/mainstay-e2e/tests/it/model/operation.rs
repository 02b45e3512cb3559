//! What clients do with one object, and how it is asked for.

use hyper::Method;
use serde_json::{Value, json};

use super::kind::Kind;
use super::object::{self, Path};

/// Something that a client does.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) kind: &'static Kind,
    pub(super) name: String,
    /// Who it is, as far as fields have owners.
    pub(super) manager: &'static str,
    pub(super) dry_run: bool,
    pub(super) action: Action,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Get,
    /// Makes an object of this.
    Create(Value),
    /// Puts this in the place of what is there.
    Update(Part, Value),
    Patch(Part, Patch),
    /// Wants these fields, and takes them from others when it is forced.
    Apply {
        part: Part,
        object: Value,
        force: bool,
    },
    Delete(Delete),
}

/// What of an object a write is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Main,
    Status,
}

#[derive(Clone, Debug)]
pub(super) struct Patch {
    pub(super) language: Language,
    pub(super) edits: Vec<Edit>,
    /// What has to be there.
    pub(super) version: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Json,
    Merge,
    Strategic,
}

#[derive(Clone, Debug)]
pub(super) enum Edit {
    Set(Path, Value),
    Remove(Path),
    /// Removes all that is in a container.
    Clear(Path),
    /// Refuses the patch if something else is there.
    Test(Path, Value),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Delete {
    /// In seconds.
    pub(super) grace: Option<i64>,
    /// What has to be there.
    pub(super) uid: Option<String>,
    pub(super) version: Option<u64>,
    /// Whether what the object owns is said to go later, as it does anyhow. The other propagation
    /// policies are finalizers of the garbage collector, which not every server has.
    pub(super) in_background: bool,
    /// Whether this is asked for in the query and not in the body. A body hides the query.
    pub(super) in_query: bool,
}

/// A request.
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
}

// === impl Part ===

impl Part {
    pub(super) fn subresource(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
        }
    }
}

// === impl Operation ===

impl Operation {
    pub(super) fn request(&self, namespace: &str) -> Request {
        let collection = self.kind.collection(namespace);
        let object = format!("{collection}/{}", self.name);
        let part = |part: &Part| match part {
            Part::Main => object.clone(),
            Part::Status => format!("{object}/status"),
        };
        let (method, path, content_type, body) = match &self.action {
            Action::Get => (Method::GET, object, "", Value::Null),
            Action::Create(object) => {
                (Method::POST, collection, "application/json", object.clone())
            }
            Action::Update(of, object) => {
                (Method::PUT, part(of), "application/json", object.clone())
            }
            Action::Patch(of, patch) => {
                let content_type = match patch.language {
                    Language::Json => "application/json-patch+json",
                    Language::Merge => "application/merge-patch+json",
                    Language::Strategic => "application/strategic-merge-patch+json",
                };
                (Method::PATCH, part(of), content_type, patch.document())
            }
            Action::Apply { part: of, object, .. } => {
                (Method::PATCH, part(of), "application/apply-patch+yaml", object.clone())
            }
            Action::Delete(delete) if delete.in_query => (Method::DELETE, object, "", Value::Null),
            Action::Delete(delete) => {
                let document = delete.document(self.dry_run);
                (Method::DELETE, object, "application/json", document)
            }
        };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
        Request { method, path: format!("{path}?{}", self.query()), content_type, body }
    }

    fn query(&self) -> String {
        let mut query = Vec::new();
        match &self.action {
            Action::Get => {}
            Action::Delete(delete) => query.extend(delete.query(self.dry_run)),
            _ => {
                query.push(format!("fieldManager={}", self.manager));
                query.extend(self.dry_run.then(|| "dryRun=All".to_owned()));
            }
        }
        if matches!(self.action, Action::Apply { force: true, .. }) {
            query.push("force=true".to_owned());
        }
        query.join("&")
    }
}

// === impl Patch ===

impl Patch {
    fn document(&self) -> Value {
        if self.language == Language::Json {
            return self.operations();
        }
        let mut document = json!({});
        for edit in &self.edits {
            match edit {
                Edit::Set(path, value) => object::set(&mut document, path, Some(value)),
                Edit::Remove(path) => match path.last().and_then(|name| name.strip_prefix("v:")) {
                    Some(element) => {
                        let key = "$deleteFromPrimitiveList/finalizers";
                        object::set(
                            &mut document,
                            &from(&["metadata", key]),
                            Some(&json!([element])),
                        );
                    }
                    None => object::set(&mut document, path, Some(&Value::Null)),
                },
                Edit::Clear(path) => object::set(&mut document, path, Some(&Value::Null)),
                Edit::Test(..) => {}
            }
        }
        if let Some(version) = self.version {
            document["metadata"]["resourceVersion"] = version.to_string().into();
        }
        document
    }

    /// The same as a list of operations.
    fn operations(&self) -> Value {
        let operation = |edit: &Edit| match edit {
            Edit::Set(path, value) => json!({ "op": "add", "path": pointer(path), "value": value }),
            Edit::Remove(path) | Edit::Clear(path) => {
                json!({ "op": "remove", "path": pointer(path) })
            }
            Edit::Test(path, value) => {
                json!({ "op": "test", "path": pointer(path), "value": value })
            }
        };
        let version = self.version.map(|version| {
            let value = version.to_string();
            json!({ "op": "add", "path": "/metadata/resourceVersion", "value": value })
        });
        self.edits.iter().map(operation).chain(version).collect()
    }
}

fn from(path: &[&str]) -> Path {
    object::owned(path)
}

/// Source: RFC 6901. Lists have one element here, which is the first.
fn pointer(path: &[String]) -> String {
    let escaped = path.iter().map(|name| match name.starts_with("k:") {
        true => "0".to_owned(),
        false => name.replace('~', "~0").replace('/', "~1"),
    });
    escaped.fold(String::new(), |pointer, name| pointer + "/" + &name)
}

// === impl Delete ===

impl Delete {
    pub(super) fn document(&self, dry_run: bool) -> Value {
        let mut document = json!({ "kind": "DeleteOptions", "apiVersion": "v1" });
        if dry_run {
            document["dryRun"] = json!(["All"]);
        }
        if let Some(grace) = self.grace {
            document["gracePeriodSeconds"] = grace.into();
        }
        if let Some(uid) = &self.uid {
            document["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = self.version {
            document["preconditions"]["resourceVersion"] = version.to_string().into();
        }
        if self.in_background {
            document["propagationPolicy"] = "Background".into();
        }
        document
    }

    fn query(&self, dry_run: bool) -> Vec<String> {
        if !self.in_query {
            // Nobody reads it.
            return vec!["dryRun=All&gracePeriodSeconds=7&propagationPolicy=Orphan".to_owned()];
        }
        let grace = self.grace.map(|seconds| format!("gracePeriodSeconds={seconds}"));
        let propagation = self.in_background.then(|| "propagationPolicy=Background".to_owned());
        let dry_run = dry_run.then(|| "dryRun=All".to_owned());
        grace.into_iter().chain(propagation).chain(dry_run).collect()
    }
}
