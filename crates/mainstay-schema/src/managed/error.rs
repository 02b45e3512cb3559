//! Why an apply fails.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use super::entries::Manager;
use super::set::{Path, Set, display};

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// 400, reason `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// 409, reason `Conflict`, with a cause for each.
    #[error("{0}")]
    Conflicts(Conflicts),
    /// 500 without a reason; Kubernetes answers so to configurations that do not fit their type.
    #[error("{0}")]
    Untyped(String),
}

/// Fields that others hold; at least one.
///
/// It is written as Kubernetes does: `Apply failed with 1 conflict: conflict with "kubectl-edit" using
/// apps/v1: .spec.replicas`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub(super) Vec<Conflict>);

/// A field that somebody else holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    manager: Manager,
    path: Path,
}

// === impl Conflicts ===

impl Conflicts {
    /// Each field that is held by somebody else.
    pub fn iter(&self) -> impl Iterator<Item = &Conflict> {
        self.0.iter()
    }

    /// Those with fields that are not in a set; `None` if there are none. Without a set all are left.
    pub(super) fn except(self, allowed: Option<&Set>) -> Option<Self> {
        let allowed = |conflict: &Conflict| allowed.is_some_and(|set| set.has(&conflict.path));
        let left: Vec<Conflict> =
            self.0.into_iter().filter(|conflict| !allowed(conflict)).collect();
        (!left.is_empty()).then_some(Self(left))
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            let (message, field) = (only.message(), only.field());
            return write!(f, "Apply failed with 1 conflict: {message}: {field}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut by_manager: BTreeMap<String, Vec<&Conflict>> = BTreeMap::new();
        for conflict in &self.0 {
            by_manager.entry(conflict.manager.identifier()).or_default().push(conflict);
        }
        for (at, conflicts) in by_manager.values().enumerate() {
            let newline = if at > 0 { "\n" } else { "" };
            for (at, conflict) in conflicts.iter().enumerate() {
                if at == 0 {
                    write!(f, "{newline}conflicts with {}:", conflict.manager.describe())?;
                }
                write!(f, "\n- {}", conflict.field())?;
            }
        }
        Ok(())
    }
}

// === impl Conflict ===

impl Conflict {
    pub(super) fn new(manager: &Manager, path: Path) -> Self {
        Self { manager: manager.clone(), path }
    }

    /// The message of the cause: `conflict with "kubectl-edit" using apps/v1`. Its reason is
    /// `FieldManagerConflict`.
    #[must_use]
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager.describe())
    }

    /// The field of the cause: `.spec.containers[name="a"].image`.
    #[must_use]
    pub fn field(&self) -> String {
        display(&self.path)
    }
}
