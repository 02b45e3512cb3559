//! Who owns which field: `metadata.managedFields`.
//!
//! Source: `sigs.k8s.io/structured-merge-diff/v6/merge/update.go`.

use std::collections::BTreeSet;

use super::super::kind::Kind;
use super::super::object::{self, Fields, Owner, Owners, Path, State};
use super::super::operation::{Action, Operation, Part};
use super::{Refusal, without_empty};

/// What an update changes.
#[derive(Default)]
struct Difference {
    /// Also what has another value.
    set: BTreeSet<Path>,
    removed: BTreeSet<Path>,
}

/// Who owns what after a write of `fields`.
pub(super) fn track(before: &State, operation: &Operation, part: Part, fields: &Fields) -> Owners {
    let kind = operation.kind;
    let applies = matches!(operation.action, Action::Apply { .. });
    let mut owners = match applies {
        true => with_owners(kind, before.clone()).owners,
        false => before.owners.clone(),
    };
    if is_unowned(kind, before) && !applies {
        return owners;
    }
    let mut difference = Difference::between(kind, part, &before.fields, fields);
    let owner = owner(operation, part);
    if applies {
        // What is empty now is still there for whoever set it.
        difference.removed.retain(|path| !kind.is_container(path));
    }
    for set in owners.iter_mut().filter(|(other, _)| **other != owner).map(|(_, set)| set) {
        set.retain(|path| !difference.set.contains(path) && !difference.removed.contains(path));
    }
    let own = owners.entry(owner).or_default();
    if let Action::Apply { object, .. } = &operation.action {
        *own = applied(kind, part, &State::read(kind, object).fields).into_keys().collect();
    } else {
        own.retain(|path| !difference.removed.contains(path));
        own.extend(difference.set);
    }
    without_empty(owners)
}

/// Whether nobody owns anything of what is there. It has never been applied, and who changes it is
/// not followed until it is.
fn is_unowned(kind: &Kind, before: &State) -> bool {
    kind.tracks_all && !before.uid.is_empty() && before.owners.is_empty()
}

/// What is there when it is applied to: all has an owner.
pub(super) fn with_owners(kind: &Kind, mut before: State) -> State {
    if is_unowned(kind, &before) {
        let first = Owner {
            manager: "before-first-apply".to_owned(),
            operation: "Update".to_owned(),
            subresource: String::new(),
        };
        before.owners.insert(first, object::paths(kind, &before.fields));
        before.owners = without_empty(before.owners);
    }
    before
}

/// What an apply of these fields is about.
pub(super) fn applied(kind: &Kind, part: Part, fields: &Fields) -> Fields {
    let mut fields = fields.clone();
    fields.retain(|path, _| is_of(kind, part, path));
    fields
}

/// What an apply makes of an object: what it wants, without what it wanted before and nobody else
/// has set.
pub(super) fn merged(
    before: &State,
    operation: &Operation,
    part: Part,
    applied: &Fields,
) -> Fields {
    let owner = owner(operation, part);
    let others = before.owners.iter().filter(|(other, _)| **other != owner);
    let others: BTreeSet<Path> = others.flat_map(|(_, set)| set).flat_map(prefixes).collect();
    let kept: BTreeSet<Path> = applied.keys().flat_map(prefixes).collect();
    let wanted = before.owners.get(&owner).into_iter().flatten().flat_map(prefixes);
    let mut fields = before.fields.clone();
    for path in wanted.filter(|path| !others.contains(path) && !kept.contains(path)) {
        // With what is in it that nobody has set. The name is always applied.
        if path.len() > 1 || path[0] != "metadata" {
            fields.retain(|field, _| !field.starts_with(&path));
        }
    }
    fields.extend(applied.clone());
    fields
}

/// A path and all that it leads through.
fn prefixes(path: &Path) -> Vec<Path> {
    (1..=path.len()).map(|len| path[..len].to_vec()).collect()
}

/// Whether an apply takes what belongs to others.
pub(super) fn conflicts(
    before: &State,
    operation: &Operation,
    part: Part,
    merged: &Fields,
) -> Result<(), Refusal> {
    let owner = owner(operation, part);
    let difference = Difference::between(operation.kind, part, &before.fields, merged);
    let mut refusal = Refusal::new(409, "Conflict", String::new());
    for (_, set) in before.owners.iter().filter(|(other, _)| **other != owner) {
        let taken = set.iter().filter(|path| difference.set.contains(*path));
        for path in taken {
            refusal.causes.insert(("FieldManagerConflict".to_owned(), written(path)));
        }
    }
    if refusal.causes.is_empty() { Ok(()) } else { Err(refusal) }
}

fn owner(operation: &Operation, part: Part) -> Owner {
    let applies = matches!(operation.action, Action::Apply { .. });
    Owner {
        manager: operation.manager.to_owned(),
        operation: if applies { "Apply" } else { "Update" }.to_owned(),
        subresource: part.subresource().to_owned(),
    }
}

/// Whether a write of a part of an object can own a field.
fn is_of(kind: &Kind, part: Part, path: &[String]) -> bool {
    match part {
        Part::Main => !kind.has_status || path[0] != "status",
        Part::Status => path[0] == "status" || path[0] == "metadata" && !is_kept(kind, path),
    }
}

fn is_kept(kind: &Kind, path: &[String]) -> bool {
    kind.status_keeps.contains(&path[1].as_str())
}

/// A path as it is told in conflicts.
fn written(path: &[String]) -> String {
    path.iter().fold(String::new(), |text, name| match name.strip_prefix("k:") {
        Some(_) => text + "[name=\"c\"]",
        None => text + "." + name,
    })
}

// === impl Difference ===

impl Difference {
    fn between(kind: &Kind, part: Part, before: &Fields, after: &Fields) -> Self {
        let (old, new) = (object::paths(kind, before), object::paths(kind, after));
        let is_set = |path: &&Path| !old.contains(*path) || before.get(*path) != after.get(*path);
        let of = |path: &&Path| is_of(kind, part, path);
        Self {
            set: new.iter().filter(is_set).filter(of).cloned().collect(),
            removed: old.difference(&new).filter(of).cloned().collect(),
        }
    }
}
