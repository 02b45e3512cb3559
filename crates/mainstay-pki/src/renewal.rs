//! When a certificate has to be made again.

use std::fmt;

use jiff::{SignedDuration, Timestamp};

use crate::certificate::{CertificateFacts, Leaf, Usage};
use crate::names::SubjectName;

/// A clock before this is not set. The year that this version of the program was made in: no machine
/// that runs it can be earlier. Moving it forward with releases is good, moving it back is not.
pub const EARLIEST_PLAUSIBLE: Timestamp = Timestamp::constant(1_767_225_600, 0); // 2026-01-01T00:00:00Z

const DAY: SignedDuration = SignedDuration::from_hours(24);
/// How long an authority's certificate is good for.
pub(crate) const AUTHORITY_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3653);
/// How long any other is good for.
pub(crate) const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(24 * 365);
/// How much earlier than now it is good from, for clocks that are behind and for one that ran ahead when
/// it was made. With [`LEAF_LIFE`] it stays below the 398 days that some clients accept at most.
const LEAF_HEAD_START: SignedDuration = SignedDuration::from_hours(24 * 30);

/// What to do about a certificate.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// Keep it, and look again at this time.
    Keep {
        /// When a third of its life will be left.
        until: Timestamp,
    },
    /// Make it again.
    Issue(Reason),
}

/// Why a certificate has to be made again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    /// Another authority has signed it.
    OtherAuthority,
    /// The key beside it is another one's.
    OtherKey,
    /// It is somebody else's.
    OtherSubject,
    /// It cannot be used for what it is for.
    OtherUsage,
    /// It does not have these names.
    Names(Vec<SubjectName>),
    /// It was made while the clock was not set.
    UnsetClock,
    /// It is not good yet: the clock was ahead when it was made, or is behind now.
    NotYetValid,
    /// Less than a third of its life is left, or nothing.
    Ending(Timestamp),
}

/// Whether a certificate is still what is wanted at `now`.
pub fn renewal(facts: &CertificateFacts, wanted: &Leaf, now: Timestamp) -> Renewal {
    match unfit(facts, wanted, now) {
        Some(reason) => Renewal::Issue(reason),
        None => by_time(facts, LEAF_LIFE, now),
    }
}

/// The same of one that another cluster's authority signs, at a kubelet's time: after 70 to 90 percent of its
/// life. Which, a number that is the certificate's own says, so that nodes that were made at the same time
/// do not come at the same time, and a node keeps to its time through restarts. Source:
/// `nextRotationDeadline` in `staging/src/k8s.io/client-go/util/certificate/certificate_manager.go`.
pub(crate) fn rotation(
    facts: &CertificateFacts,
    wanted: &Leaf,
    own: u8,
    now: Timestamp,
) -> Renewal {
    if let Some(reason) = unfit(facts, wanted, now) {
        return Renewal::Issue(reason);
    }
    let life = facts.not_after.duration_since(facts.not_before);
    let whole = i32::from(u8::MAX) * 10;
    let part = i32::from(u8::MAX) * 7 + i32::from(own) * 2;
    let until = facts.not_before.saturating_add(life / whole * part).unwrap_or(Timestamp::MAX);
    match now < facts.not_before {
        true => Renewal::Issue(Reason::NotYetValid),
        false if now >= until => Renewal::Issue(Reason::Ending(facts.not_after)),
        false => Renewal::Keep { until },
    }
}

/// Why a certificate is not what is wanted, whatever the time is.
fn unfit(facts: &CertificateFacts, wanted: &Leaf, now: Timestamp) -> Option<Reason> {
    if !facts.by_authority {
        return Some(Reason::OtherAuthority);
    }
    if !facts.key_matches {
        return Some(Reason::OtherKey);
    }
    if facts.common_name != wanted.common_name
        || !facts.organizations.iter().eq(&wanted.organization)
    {
        return Some(Reason::OtherSubject);
    }
    let usable = match wanted.usage {
        Usage::Server => facts.server_auth,
        Usage::Client => facts.client_auth,
    };
    if !usable || facts.is_authority {
        return Some(Reason::OtherUsage);
    }
    let missing: Vec<_> = wanted.names.difference(&facts.names).cloned().collect();
    if !missing.is_empty() {
        return Some(Reason::Names(missing));
    }
    if facts.not_before == Timestamp::UNIX_EPOCH && now >= EARLIEST_PLAUSIBLE {
        return Some(Reason::UnsetClock);
    }
    None
}

/// The part of [`renewal`] that is about time only. `life` is what a new one gets.
pub(crate) fn by_time(facts: &CertificateFacts, life: SignedDuration, now: Timestamp) -> Renewal {
    if now < facts.not_before {
        return Renewal::Issue(Reason::NotYetValid);
    }
    // One that was made elsewhere, or while the clock was not set, may be meant for another time.
    let life = facts.not_after.duration_since(facts.not_before).min(life);
    let until = facts.not_after.saturating_sub(life / 3).unwrap_or(Timestamp::MIN);
    if now >= until {
        return Renewal::Issue(Reason::Ending(facts.not_after));
    }
    Renewal::Keep { until }
}

/// From when to when a certificate that is made now is good.
pub(crate) fn leaf_validity(now: Timestamp) -> (Timestamp, Timestamp) {
    if now < EARLIEST_PLAUSIBLE {
        return authority_validity(now);
    }
    let from = now.saturating_sub(LEAF_HEAD_START).unwrap_or(Timestamp::UNIX_EPOCH);
    (from, now.saturating_add(LEAF_LIFE).unwrap_or(Timestamp::MAX))
}

/// The same for one that is made for somebody else, for so long.
pub(crate) fn signed_validity(life: SignedDuration, now: Timestamp) -> (Timestamp, Timestamp) {
    if now < EARLIEST_PLAUSIBLE {
        return authority_validity(now);
    }
    // In proportion, so that a short one is not taken for one that ends.
    let head_start = LEAF_HEAD_START.min(life / 12);
    let from = now.saturating_sub(head_start).unwrap_or(Timestamp::UNIX_EPOCH);
    (from, now.saturating_add(life).unwrap_or(Timestamp::MAX))
}

/// The same for an authority's.
pub(crate) fn authority_validity(now: Timestamp) -> (Timestamp, Timestamp) {
    let start = now.max(EARLIEST_PLAUSIBLE);
    (Timestamp::UNIX_EPOCH, start.saturating_add(AUTHORITY_LIFE).unwrap_or(Timestamp::MAX))
}

/// How long to wait at most before looking again: the clock may be set meanwhile, which no timer tells.
pub(crate) fn longest_wait(now: Timestamp) -> SignedDuration {
    if now < EARLIEST_PLAUSIBLE { SignedDuration::from_mins(1) } else { DAY / 2 }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherAuthority => f.write_str("another authority has signed it"),
            Self::OtherKey => f.write_str("the key beside it belongs to another certificate"),
            Self::OtherSubject => f.write_str("it is for another name"),
            Self::OtherUsage => f.write_str("it is for another purpose"),
            Self::Names(names) => {
                f.write_str("it does not cover ")?;
                for (at, name) in names.iter().enumerate() {
                    write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::UnsetClock => f.write_str("it was made while the clock was not set"),
            Self::NotYetValid => f.write_str("it is not valid yet"),
            Self::Ending(when) => write!(f, "it ends at {when}"),
        }
    }
}

#[cfg(test)]
mod tests;
