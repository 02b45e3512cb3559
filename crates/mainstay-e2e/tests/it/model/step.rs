//! What the API makes of an operation: the model.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go`,
//! `staging/src/k8s.io/apiserver/pkg/registry/rest/{create,update,delete}.go` and the observation of a
//! real kube-apiserver.

mod delete;
mod judge;
mod own;

use std::collections::BTreeSet;

use super::kind::{Default, Kind};
use super::object::{self, Fields, Owners, State, has_any, owned};
use super::operation::{Action, Edit, Language, Operation, Part, Patch};

/// What comes of an operation on an object.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) answer: Answer,
    /// What was written, in order. `None` when it is gone.
    pub(super) writes: Vec<Option<State>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// The object, and whether it was made by this.
    Object(State, bool),
    /// The object with this uid is gone, and how it was is not told.
    Gone(String),
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) reason: String,
    /// Empty if it says more than the model knows.
    pub(super) message: String,
    /// Reasons, and the fields that they are about.
    pub(super) causes: BTreeSet<(String, String)>,
}

/// What the model does not know before it is told: a version, a uid or a time that is new. All of
/// them differ from what there was before.
pub(super) const NEW_VERSION: u64 = u64::MAX;

/// What comes of an operation on what is there.
pub(super) fn step(before: Option<&State>, operation: &Operation) -> Outcome {
    match try_step(before, operation) {
        Ok(mut outcome) => {
            if operation.dry_run {
                outcome.writes.clear();
            }
            outcome
        }
        Err(refusal) => Outcome { answer: Answer::Refused(refusal), writes: Vec::new() },
    }
}

fn try_step(before: Option<&State>, operation: &Operation) -> Result<Outcome, Refusal> {
    let Operation { kind, action, .. } = operation;
    let present = || before.ok_or_else(|| Refusal::not_found(operation));
    match action {
        Action::Get => {
            let answer = Answer::Object(present()?.clone(), false);
            Ok(Outcome { answer, writes: Vec::new() })
        }
        Action::Create(document) => create(before, operation, &State::read(kind, document)),
        Action::Update(part, document) => {
            let new = State::read(kind, document);
            match before {
                None if *part == Part::Main && kind.creates_on_update => {
                    if !new.uid.is_empty() {
                        return Err(Refusal::conflict(operation));
                    }
                    create(None, operation, &new)
                }
                _ => update(present()?, operation, *part, &new),
            }
        }
        Action::Patch(part, patch) => {
            let before = present()?;
            let mut new = before.clone();
            for edit in &patch.edits {
                apply_edit(before, &mut new.fields, edit, operation, patch)?;
            }
            new.version = patch.version.unwrap_or(before.version);
            update(before, operation, *part, &new)
        }
        Action::Apply { part, object, force } => {
            let wanted = State::read(kind, object);
            match before {
                None if *part == Part::Main => create(None, operation, &wanted),
                _ => {
                    let before = present()?;
                    let mut new = own::with_owners(kind, before.clone());
                    let applied = own::applied(kind, *part, &wanted.fields);
                    let merged = own::merged(&new, operation, *part, &applied);
                    if !force {
                        own::conflicts(&new, operation, *part, &merged)?;
                    }
                    new.fields = merged;
                    update(before, operation, *part, &new)
                }
            }
        }
        Action::Delete(delete) => delete::delete(present()?, operation, delete),
    }
}

fn apply_edit(
    before: &State,
    fields: &mut Fields,
    edit: &Edit,
    operation: &Operation,
    patch: &Patch,
) -> Result<(), Refusal> {
    let kind = operation.kind;
    let json = patch.language == Language::Json;
    match edit {
        Edit::Set(path, value) => {
            let above = &path[..path.len() - 1];
            // What the patch itself has emptied is still there.
            if json && kind.is_container(above) && !has_any(&before.fields, above) {
                return Err(Refusal::unprocessable());
            }
            fields.insert(path.clone(), value.clone());
        }
        Edit::Remove(path) => {
            if fields.remove(path).is_none() && json {
                return Err(Refusal::unprocessable());
            }
        }
        Edit::Clear(path) => {
            if json && !has_any(fields, path) {
                return Err(Refusal::unprocessable());
            }
            fields.retain(|field, _| !field.starts_with(path));
        }
        Edit::Test(path, value) => {
            if json && fields.get(path) != Some(value) {
                return Err(Refusal::unprocessable());
            }
        }
    }
    Ok(())
}

fn create(
    before: Option<&State>,
    operation: &Operation,
    wanted: &State,
) -> Result<Outcome, Refusal> {
    let kind = operation.kind;
    let mut fields = wanted.fields.clone();
    if kind.has_status {
        fields.retain(|path, _| path[0] != "status");
    }
    default(kind, Default::Always, &mut fields);
    let set = fields.clone();
    default(kind, Default::AtFirst, &mut fields);
    judge::new(kind, &fields).map_err(|causes| Refusal::invalid(operation, causes))?;
    if let Some(before) = before {
        return Err(Refusal::already_exists(operation, before));
    }
    let mut state = State {
        version: if operation.dry_run { 0 } else { NEW_VERSION },
        generation: kind.has_generation.then_some(1),
        ..State::default()
    };
    state.owners = own::track(&State::default(), operation, Part::Main, &set);
    state.fields = fields;
    Ok(Outcome { answer: Answer::Object(state.clone(), true), writes: vec![Some(state)] })
}

/// Says what nobody has said.
fn default(kind: &Kind, when: Default, fields: &mut Fields) {
    for field in kind.fields() {
        if let Some((value, _)) = field.default.filter(|(_, it)| *it == when) {
            fields.entry(owned(field.path)).or_insert_with(|| serde_json::from_str(value).unwrap());
        }
    }
}

/// Makes `wanted`, which is whole, of what is there.
fn update(
    before: &State,
    operation: &Operation,
    part: Part,
    wanted: &State,
) -> Result<Outcome, Refusal> {
    let kind = operation.kind;
    if !wanted.uid.is_empty() && wanted.uid != before.uid {
        return Err(Refusal::conflict(operation));
    }
    match wanted.version {
        0 if kind.unconditional_update => {}
        0 => {
            let field = "metadata.resourceVersion".to_owned();
            let cause = ("FieldValueInvalid".to_owned(), field);
            return Err(Refusal::invalid(operation, BTreeSet::from([cause])));
        }
        version if version != before.version => return Err(Refusal::modified(operation)),
        _ => {}
    }
    let mut wanted_fields = wanted.fields.clone();
    default(kind, Default::Always, &mut wanted_fields);
    let mut new = before.clone();
    new.fields = kept(kind, part, &before.fields, &wanted_fields);
    judge::changed(kind, part, before, &State { fields: new.fields.clone(), ..wanted.clone() })
        .map_err(|causes| Refusal::invalid(operation, causes))?;
    new.owners = own::track(before, operation, part, &wanted_fields);
    if part == Part::Main
        && kind.has_generation
        && next_generation(kind, &before.fields, &new.fields)
    {
        new.generation = new.generation.map(|generation| generation + 1);
    }
    if new.ending == Some(0) && !new.has_finalizers() {
        // The answer tells what was asked for, which was never stored.
        return Ok(Outcome { answer: Answer::Object(new, false), writes: vec![None] });
    }
    if new == *before {
        return Ok(Outcome { answer: Answer::Object(new, false), writes: Vec::new() });
    }
    if !operation.dry_run {
        new.version = NEW_VERSION;
    }
    Ok(Outcome { answer: Answer::Object(new.clone(), false), writes: vec![Some(new)] })
}

/// What is written of what is wanted: each part of an object is written in its own way.
fn kept(kind: &Kind, part: Part, before: &Fields, wanted: &Fields) -> Fields {
    let writes = |path: &object::Path| match part {
        Part::Main => !kind.has_status || path[0] != "status",
        Part::Status => match path[0].as_str() {
            "metadata" => !kind.status_keeps.contains(&path[1].as_str()),
            top => top == "status",
        },
    };
    let new = wanted.iter().filter(|(path, _)| writes(path));
    let old = before.iter().filter(|(path, _)| !writes(path));
    new.chain(old).map(|(path, value)| (path.clone(), value.clone())).collect()
}

fn next_generation(kind: &Kind, before: &Fields, after: &Fields) -> bool {
    let counts = |path: &object::Path| {
        let annotations = kind.kind == "Deployment" && path[..2] == ["metadata", "annotations"];
        path[0] == "spec" || annotations
    };
    let of = |fields: &Fields| -> Fields {
        let counted = fields.iter().filter(|(path, _)| counts(path));
        counted.map(|(path, value)| (path.clone(), value.clone())).collect()
    };
    of(before) != of(after)
}

// === impl Refusal ===

impl Refusal {
    /// What is said first of a name that is taken for a while only.
    const ENDS: &str = "object is being deleted: ";

    /// The same, whether what has the name is being deleted or not.
    pub(super) fn of_any(mut self) -> Self {
        if let Some(message) = self.message.strip_prefix(Self::ENDS) {
            self.message = message.to_owned();
        }
        self
    }

    fn new(code: u16, reason: &str, message: String) -> Self {
        Self { code, reason: reason.to_owned(), message, causes: BTreeSet::new() }
    }

    fn not_found(operation: &Operation) -> Self {
        let (resource, name) = (operation.kind.qualified(), &operation.name);
        Self::new(404, "NotFound", format!("{resource} \"{name}\" not found"))
    }

    fn already_exists(operation: &Operation, there: &State) -> Self {
        let (resource, name) = (operation.kind.qualified(), &operation.name);
        let ends = if there.ending.is_some() { Self::ENDS } else { "" };
        Self::new(409, "AlreadyExists", format!("{ends}{resource} \"{name}\" already exists"))
    }

    fn conflict(_operation: &Operation) -> Self {
        Self::new(409, "Conflict", String::new())
    }

    /// A version that is not there any more.
    pub(super) fn modified(operation: &Operation) -> Self {
        let (resource, name) = (operation.kind.qualified(), &operation.name);
        let message = format!(
            "Operation cannot be fulfilled on {resource} \"{name}\": the object has been modified; \
             please apply your changes to the latest version and try again"
        );
        Self::new(409, "Conflict", message)
    }

    fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message.to_owned())
    }

    fn invalid(_operation: &Operation, causes: BTreeSet<(String, String)>) -> Self {
        Self { causes, ..Self::new(422, "Invalid", String::new()) }
    }
}

/// What owns nothing is not there.
fn without_empty(mut owners: Owners) -> Owners {
    owners.retain(|_, set| !set.is_empty());
    owners
}
