//! Whether an object may stay, by what its owners are.
//!
//! Source: `attemptToDeleteItem` in `pkg/controller/garbagecollector/garbagecollector.go`.

use super::graph::Dependents;
use super::{FOREGROUND, ORPHAN};

/// An owner, as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It is there, whether or not it is being deleted.
    Solid,
    /// It is there, is being deleted, and waits for what it owns.
    Waits,
    /// There is none of this UID.
    Absent,
    /// Nobody can say: the API does not know its kind, or it cannot be where it would have to be.
    Unknown,
}

/// What is to be done with an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// It loses these owners, by UID, and stays for the sake of others.
    Release(Vec<String>),
    Delete {
        propagation: &'static str,
        /// Whether its owners have to stop waiting for it, since they would for ever.
        unblock: bool,
    },
}

/// `owners` are those of the object by UID, `finalizers` its own.
pub(super) fn decide(
    owners: &[(String, OwnerState)],
    finalizers: &[String],
    dependents: Dependents,
) -> Verdict {
    let of = |states: &[OwnerState]| -> Vec<String> {
        let found = owners.iter().filter(|(_, state)| states.contains(state));
        found.map(|(uid, _)| uid.clone()).collect()
    };
    if owners.is_empty() || !of(&[OwnerState::Unknown]).is_empty() {
        return Verdict::Keep;
    }
    if !of(&[OwnerState::Solid]).is_empty() {
        let others = of(&[OwnerState::Absent, OwnerState::Waits]);
        return if others.is_empty() { Verdict::Keep } else { Verdict::Release(others) };
    }
    if !of(&[OwnerState::Waits]).is_empty() && dependents != Dependents::None {
        let unblock = dependents == Dependents::Waiting;
        return Verdict::Delete { propagation: "Foreground", unblock };
    }
    let has = |finalizer: &str| finalizers.iter().any(|it| it == finalizer);
    let propagation = match () {
        () if has(ORPHAN) => "Orphan",
        () if has(FOREGROUND) => "Foreground",
        () => "Background",
    };
    Verdict::Delete { propagation, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_stays_as_long_as_one_owner_does() {
        use Dependents::{None, Some, Waiting};
        use OwnerState::{Absent, Solid, Unknown, Waits};
        let delete = |propagation| Verdict::Delete { propagation, unblock: false };
        let release =
            |uids: &[&str]| Verdict::Release(uids.iter().map(ToString::to_string).collect());
        let table: &[(&[OwnerState], &[&str], Dependents, Verdict)] = &[
            (&[], &[], None, Verdict::Keep),
            (&[Solid], &[], None, Verdict::Keep),
            (&[Solid, Absent, Waits], &[], Some, release(&["1", "2"])),
            (&[Absent], &[], None, delete("Background")),
            (&[Absent, Absent], &[], Waiting, delete("Background")),
            (&[Absent, Unknown], &[], None, Verdict::Keep),
            (&[Solid, Unknown, Absent], &[], None, Verdict::Keep),
            (&[Absent], &["orphan", "other"], None, delete("Orphan")),
            (&[Absent], &["foregroundDeletion"], Some, delete("Foreground")),
            (&[Waits], &[], None, delete("Background")),
            (&[Waits, Absent], &[], Some, delete("Foreground")),
            (&[Waits], &[], Waiting, Verdict::Delete { propagation: "Foreground", unblock: true }),
        ];
        for (states, finalizers, dependents, expected) in table {
            let owners: Vec<(String, OwnerState)> =
                states.iter().enumerate().map(|(at, state)| (at.to_string(), *state)).collect();
            let finalizers: Vec<String> = finalizers.iter().map(ToString::to_string).collect();
            assert_eq!(decide(&owners, &finalizers, *dependents), *expected, "{states:?}");
        }
    }
}
