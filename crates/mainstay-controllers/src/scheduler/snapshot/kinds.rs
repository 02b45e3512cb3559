//! How many pods of each kind there are on each node.
//!
//! Rules of pods about other pods look at namespaces and labels only, which replicas have in common: a rule
//! is held against each kind once, whatever the number of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::pod::Kind;
use super::Slot;

/// Pods of a kind on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Count {
    pub(in super::super) all: i64,
    /// Those of them that are being deleted.
    pub(in super::super) ending: i64,
}

/// All kinds, by namespace. Only such as there are pods of.
#[derive(Debug, Default)]
pub(in super::super) struct Kinds {
    plain: BTreeMap<String, BTreeMap<Arc<Kind>, BTreeMap<Slot, Count>>>,
    /// Those that have rules themselves; they are few and are looked at for each pod.
    ruling: BTreeMap<String, BTreeMap<Arc<Kind>, BTreeMap<Slot, Count>>>,
}

type Of<'a> = (&'a Kind, &'a BTreeMap<Slot, Count>);

impl Kinds {
    /// Counts a pod; answers its kind as it is known already.
    pub(super) fn add(&mut self, kind: Arc<Kind>, slot: Slot, ending: bool) -> Arc<Kind> {
        let kinds = self.of(&kind).entry(kind.namespace.clone()).or_default();
        let known = kinds.get_key_value(&kind).map_or(kind, |(known, _)| known.clone());
        let count = kinds.entry(known.clone()).or_default().entry(slot).or_default();
        count.all += 1;
        count.ending += i64::from(ending);
        known
    }

    pub(super) fn remove(&mut self, kind: &Arc<Kind>, slot: Slot, ending: bool) {
        let of = self.of(kind);
        let Some(kinds) = of.get_mut(&kind.namespace) else { return };
        let Some(slots) = kinds.get_mut(kind) else { return };
        let Some(count) = slots.get_mut(&slot) else { return };
        count.all -= 1;
        count.ending -= i64::from(ending);
        if count.all == 0 {
            slots.remove(&slot);
        }
        if slots.is_empty() {
            kinds.remove(kind);
        }
        if kinds.is_empty() {
            of.remove(&kind.namespace);
        }
    }

    /// All kinds and where their pods are.
    pub(in super::super) fn all(&self) -> impl Iterator<Item = Of<'_>> {
        self.plain.values().chain(self.ruling.values()).flatten().map(|(kind, on)| (&**kind, on))
    }

    /// Those of a namespace.
    pub(in super::super) fn of_namespace(&self, namespace: &str) -> impl Iterator<Item = Of<'_>> {
        let kinds = self.plain.get(namespace).into_iter().chain(self.ruling.get(namespace));
        kinds.flatten().map(|(kind, on)| (&**kind, on))
    }

    /// Those that have rules about other pods.
    pub(in super::super) fn ruling(&self) -> impl Iterator<Item = Of<'_>> {
        self.ruling.values().flatten().map(|(kind, on)| (&**kind, on))
    }

    fn of(
        &mut self,
        kind: &Kind,
    ) -> &mut BTreeMap<String, BTreeMap<Arc<Kind>, BTreeMap<Slot, Count>>> {
        if kind.terms.is_empty() { &mut self.plain } else { &mut self.ruling }
    }
}
