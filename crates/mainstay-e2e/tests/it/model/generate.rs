//! Operations by chance.

use std::collections::BTreeSet;

use serde_json::Value;

use super::kind::{Default, FINALIZERS, Field, Kind};
use super::object::{self, State, owned};
use super::operation::{Action, Delete, Edit, Language, Operation, Part, Patch};
use crate::chance::Chance;

const MANAGERS: [&str; 3] = ["one", "two", "three"];
/// A uid that nothing has.
const OTHER_UID: &str = "00000000-0000-4000-8000-000000000000";

/// What a client knows of a name.
#[derive(Default)]
pub(super) struct Known {
    /// How it was, the newest last.
    documents: Vec<Value>,
    /// Whether it was there when it was asked for last.
    is_there: bool,
}

// === impl Known ===

impl Known {
    pub(super) fn saw(&mut self, document: &Value) {
        self.is_there = true;
        if self.documents.len() == 4 {
            self.documents.remove(0);
        }
        self.documents.push(document.clone());
    }

    pub(super) fn missed(&mut self) {
        self.is_there = false;
    }

    /// One that is mostly as it is now.
    fn document(&self, chance: &mut Chance) -> Option<&Value> {
        match chance.once_in(5) {
            true if !self.documents.is_empty() => {
                Some(&self.documents[chance.index(self.documents.len())])
            }
            _ => self.documents.last(),
        }
    }

    /// Whether it is being deleted, and nobody owns anything of it. Whoever applied to it would have all that is there
    /// be owned by `before-first-apply`: its end, too, until an update leaves that out. The model does not know who
    /// owns an end.
    fn is_unowned_at_its_end(&self) -> bool {
        self.documents.last().is_some_and(|document| {
            let meta = &document["metadata"];
            meta["deletionTimestamp"].is_string() && meta["managedFields"].is_null()
        })
    }
}

/// Something that may be done with a name.
pub(super) fn operation(
    chance: &mut Chance,
    kind: &'static Kind,
    name: &str,
    known: &Known,
) -> Operation {
    let weight = chance.below(100);
    let action = match weight {
        0..4 => Action::Get,
        4..24 if !known.is_there => create(chance, kind, name),
        24..60 if !known.is_there => create(chance, kind, name),
        4..10 => create(chance, kind, name),
        10..36 => update(chance, kind, name, known),
        36..66 => patch(chance, kind, known),
        66..86 if !known.is_unowned_at_its_end() => apply(chance, kind, name),
        66..86 => patch(chance, kind, known),
        _ => Action::Delete(delete(chance, kind, known)),
    };
    let may_be_dry = match &action {
        Action::Get => false,
        // What would be made by this is answered with the version that was asked for, on a real server.
        Action::Update(..) => !kind.creates_on_update,
        _ => true,
    };
    let dry_run = may_be_dry && chance.once_in(12);
    Operation { kind, name: name.to_owned(), manager: chance.pick(&MANAGERS), dry_run, action }
}

/// The end of what is done: every selector picks it.
pub(super) fn last(kind: &'static Kind, name: &str) -> Operation {
    let mut object = kind.template(name);
    for field in kind.fields().filter(|field| !is_finalizer(field)) {
        let is_metadata = field.path[0] == "metadata";
        if is_metadata || field.is_required {
            let value = serde_json::from_str(field.values[0]).unwrap();
            object::set(&mut object, &owned(field.path), Some(&value));
        }
    }
    let action = Action::Create(object);
    Operation { kind, name: name.to_owned(), manager: MANAGERS[0], dry_run: false, action }
}

fn is_finalizer(field: &Field) -> bool {
    field.path.starts_with(&FINALIZERS)
}

fn part(chance: &mut Chance, kind: &Kind) -> Part {
    if kind.has_status && chance.once_in(3) { Part::Status } else { Part::Main }
}

/// A field that a write of this part is about, mostly.
fn field(chance: &mut Chance, kind: &'static Kind, part: Part) -> &'static Field {
    let strays = chance.once_in(8);
    let fits = |field: &&Field| match part {
        _ if strays => true,
        Part::Main => field.path[0] != "status",
        Part::Status => field.path[0] == "status",
    };
    let fields: Vec<&Field> = kind.fields().filter(fits).collect();
    chance.pick(&fields)
}

fn value(chance: &mut Chance, field: &Field) -> Value {
    let refused = !field.refused.is_empty() && chance.once_in(20);
    let values = if refused { field.refused } else { field.values };
    serde_json::from_str(chance.pick(values)).unwrap()
}

fn create(chance: &mut Chance, kind: &'static Kind, name: &str) -> Action {
    let mut object = kind.template(name);
    for field in kind.fields() {
        // What is held is hard to get rid of.
        let rare = is_finalizer(field) && !chance.once_in(3);
        if field.is_required || (!rare && chance.below(5) < 2) {
            let value = value(chance, field);
            object::set(&mut object, &owned(field.path), Some(&value));
        }
    }
    Action::Create(object)
}

fn update(chance: &mut Chance, kind: &'static Kind, name: &str, known: &Known) -> Action {
    let Some(document) = known.document(chance) else { return create(chance, kind, name) };
    let mut document = document.clone();
    let part = part(chance, kind);
    for edit in edits(chance, kind, part, Language::Strategic) {
        match edit {
            Edit::Set(path, value) => object::set(&mut document, &path, Some(&value)),
            Edit::Remove(path) => object::set(&mut document, &path, None),
            Edit::Clear(_) | Edit::Test(..) => {}
        }
    }
    let mut remove = |key: &str| object::set(&mut document, &owned(&["metadata", key]), None);
    // It would be taken as it is.
    remove("managedFields");
    if kind.creates_on_update {
        // An object that is made by this would be one that is being deleted, on a real server.
        remove("deletionTimestamp");
        remove("deletionGracePeriodSeconds");
    }
    if chance.once_in(4) {
        remove("resourceVersion");
    }
    match chance.below(20) {
        0..4 => remove("uid"),
        4 => document["metadata"]["uid"] = OTHER_UID.into(),
        _ => {}
    }
    Action::Update(part, document)
}

fn patch(chance: &mut Chance, kind: &'static Kind, known: &Known) -> Action {
    let language = chance.pick(&[Language::Json, Language::Merge, Language::Strategic]);
    let part = part(chance, kind);
    let edits = edits(chance, kind, part, language);
    let document = known.document(chance).filter(|_| chance.once_in(5));
    let version = document.map(|document| State::read(kind, document).version);
    let version = version.filter(|version| *version != 0);
    Action::Patch(part, Patch { language, edits, version })
}

/// Changes of different fields that a language has words for.
fn edits(chance: &mut Chance, kind: &'static Kind, part: Part, language: Language) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut seen = BTreeSet::new();
    for _ in 0..=chance.below(3) {
        let field = field(chance, kind, part);
        let path = owned(field.path);
        if !seen.insert(path.clone()) {
            continue;
        }
        let in_list = field.path.iter().any(|name| name.starts_with("k:"));
        match language {
            Language::Json if is_finalizer(field) => continue,
            Language::Merge if in_list => continue,
            Language::Merge if is_finalizer(field) => {
                if seen.insert(owned(&FINALIZERS)) {
                    edits.extend(whole_set(chance));
                }
                continue;
            }
            Language::Json | Language::Merge | Language::Strategic => {}
        }
        let stays = field.is_required || matches!(field.default, Some((_, Default::AtFirst)));
        edits.push(match chance.below(8) {
            0 if language == Language::Json => Edit::Test(path, value(chance, field)),
            0..3 if !stays => Edit::Remove(path),
            _ => Edit::Set(path, value(chance, field)),
        });
    }
    edits
}

/// A list that takes the place of the whole set of finalizers.
fn whole_set(chance: &mut Chance) -> Vec<Edit> {
    let path = owned(&[FINALIZERS[0], FINALIZERS[1], "v:example.com/a"]);
    let set = chance.once_in(2).then(|| Edit::Set(path, "example.com/a".into()));
    [Edit::Clear(owned(&FINALIZERS))].into_iter().chain(set).collect()
}

fn apply(chance: &mut Chance, kind: &'static Kind, name: &str) -> Action {
    let part = part(chance, kind);
    let mut object = kind.template(name);
    if part == Part::Status {
        object::set(&mut object, &owned(&["spec"]), None);
    }
    for field in kind.fields() {
        let fits = (field.path[0] == "status") == (part == Part::Status);
        let is_required = field.is_required && part == Part::Main;
        if is_required || (fits && chance.once_in(3)) {
            let value = value(chance, field);
            object::set(&mut object, &owned(field.path), Some(&value));
        }
    }
    Action::Apply { part, object, force: chance.once_in(3) }
}

fn delete(chance: &mut Chance, kind: &Kind, known: &Known) -> Delete {
    let uid = known.document(chance).filter(|_| chance.once_in(8));
    let uid = uid.map(|document| State::read(kind, document).uid);
    let version = known.document(chance).filter(|_| chance.once_in(8));
    let version = version.map(|document| State::read(kind, document).version);
    let in_query = chance.once_in(3);
    let uid = if chance.once_in(30) { Some(OTHER_UID.to_owned()) } else { uid };
    Delete {
        grace: chance.pick(&[None, None, None, Some(0), Some(0), Some(100), Some(1000)]),
        // Which has no words for what has to be there.
        uid: uid.filter(|_| !in_query),
        version: version.filter(|version| *version != 0 && !in_query),
        in_query,
        in_background: chance.once_in(3),
    }
}
