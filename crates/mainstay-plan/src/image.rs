//! Whether an image is used as it is, fetched, or missed.

use std::time::Duration;

use mainstay_cri::ErrorKind;

/// How long the registry of an image that is present anyway may take, where `Always` was not
/// asked for but only defaulted.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// What the pod says about its image. Source: `imagePullPolicy` of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry each time, as written in the manifest.
    Always,
    /// Nothing was written, and the tag is `latest` or missing, which defaults to `Always`. For a
    /// static pod an image on this machine is as good if the registry cannot be asked.
    AlwaysByDefault,
    /// Ask the registry only for an image that is missing.
    IfNotPresent,
    /// Never ask a registry.
    Never,
}

/// What is known of the image on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is not here.
    Missing,
    /// It was fetched from a registry, or imported by hand.
    Present,
    /// It came from a file in the instance's image directory, which stands above registries.
    Provided,
}

/// What to do for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Use the one that is here.
    Use,
    /// Fetch it. If there is one here already, only for so long.
    Pull {
        /// When to stop waiting for the registry; `None` is its own limits.
        patience: Option<Duration>,
    },
    /// It is missing and may not be fetched: `ErrImageNeverPull`.
    Refuse,
}

/// What to do before anything was tried.
pub fn decide(policy: PullPolicy, presence: Presence) -> Decision {
    match (policy, presence) {
        (PullPolicy::IfNotPresent | PullPolicy::Never, Presence::Present | Presence::Provided)
        | (PullPolicy::AlwaysByDefault, Presence::Provided) => Decision::Use,
        (PullPolicy::AlwaysByDefault, Presence::Present) => {
            Decision::Pull { patience: Some(PATIENCE) }
        }
        (PullPolicy::Always, _)
        | (PullPolicy::AlwaysByDefault | PullPolicy::IfNotPresent, Presence::Missing) => {
            Decision::Pull { patience: None }
        }
        (PullPolicy::Never, Presence::Missing) => Decision::Refuse,
    }
}

/// Whether the image that is here is used after its registry failed to give another one, with a
/// warning.
///
/// Only when the registry could not be asked, or does not have the image. Registries answer for
/// an image that they do not have, and for one that is not shown to everybody, with the same
/// refusal.
pub fn use_after_failure(policy: PullPolicy, presence: Presence, failure: ErrorKind) -> bool {
    let cannot_be_had = match failure {
        ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::RegistryUnavailable
        | ErrorKind::DeadlineExceeded => true,
        ErrorKind::AlreadyExists
        | ErrorKind::InvalidArgument
        | ErrorKind::FailedPrecondition
        | ErrorKind::ResourceExhausted
        | ErrorKind::Unavailable
        | ErrorKind::Unimplemented
        | ErrorKind::Internal => false,
    };
    policy == PullPolicy::AlwaysByDefault && presence != Presence::Missing && cannot_be_had
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_meets_every_presence() {
        use Decision::{Pull, Refuse, Use};
        use Presence::{Missing, Present, Provided};
        let (wait, hurry) = (Pull { patience: None }, Pull { patience: Some(PATIENCE) });
        for (policy, missing, present, provided) in [
            (PullPolicy::Always, wait, wait, wait),
            (PullPolicy::AlwaysByDefault, wait, hurry, Use),
            (PullPolicy::IfNotPresent, wait, Use, Use),
            (PullPolicy::Never, Refuse, Use, Use),
        ] {
            assert_eq!(decide(policy, Missing), missing, "{policy:?}");
            assert_eq!(decide(policy, Present), present, "{policy:?}");
            assert_eq!(decide(policy, Provided), provided, "{policy:?}");
        }
    }

    #[test]
    fn only_a_defaulted_always_makes_do_with_what_is_here() {
        let after = |policy, presence, kind| use_after_failure(policy, presence, kind);
        let (default, away) = (PullPolicy::AlwaysByDefault, ErrorKind::RegistryUnavailable);
        assert!(after(default, Presence::Present, away));
        assert!(after(default, Presence::Present, ErrorKind::NotFound));
        assert!(!after(default, Presence::Missing, away));
        assert!(!after(default, Presence::Present, ErrorKind::ResourceExhausted));
        assert!(!after(PullPolicy::Always, Presence::Present, away));
    }
}
