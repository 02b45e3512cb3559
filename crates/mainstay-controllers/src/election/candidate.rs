//! Whether one may take a Lease, as far as it is known who holds it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

use super::LEASE_DURATION;

/// Somebody who wants the Lease, or has it.
#[derive(Debug)]
pub(super) struct Candidate {
    identity: String,
    /// The Lease as it was seen or written last.
    known: Option<Known>,
}

#[derive(Debug)]
struct Known {
    lease: Lease,
    /// When it was seen first like that, or asked to be written.
    since: Instant,
}

/// What is to be written.
#[derive(Debug, PartialEq)]
pub(super) enum Claim {
    /// This, which is not there.
    Create(Lease),
    /// This, in the place of what was found.
    Replace(Lease),
    /// Nothing: somebody else holds it.
    None,
}

impl Candidate {
    pub(super) fn new(identity: &str) -> Self {
        Self { identity: identity.to_owned(), known: None }
    }

    /// Whether the Lease was this candidate's when it was seen last.
    pub(super) fn leads(&self) -> bool {
        self.holder() == self.identity
    }

    /// Whose it was.
    pub(super) fn holder(&self) -> &str {
        let spec = self.known.as_ref().and_then(|known| known.lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
    }

    /// The Lease to be written without looking: this candidate's, which still holds.
    pub(super) fn renewal(&self, now: Instant, clock: Timestamp) -> Option<Lease> {
        let known = self.known.as_ref().filter(|known| self.leads() && known.holds(now))?;
        Some(self.claimed(Some(&known.lease), clock))
    }

    /// What to do about the Lease that was found.
    pub(super) fn found(&mut self, found: Option<Lease>, now: Instant, clock: Timestamp) -> Claim {
        let Some(found) = found else {
            self.known = None;
            return Claim::Create(self.claimed(None, clock));
        };
        let is_known = self.known.as_ref().is_some_and(|known| {
            known.lease.metadata.uid == found.metadata.uid
                && known.lease.metadata.resource_version == found.metadata.resource_version
        });
        if !is_known {
            self.known = Some(Known { lease: found, since: now });
        }
        let Some(known) = &self.known else { return Claim::None };
        if !self.holder().is_empty() && !self.leads() && known.holds(now) {
            return Claim::None;
        }
        Claim::Replace(self.claimed(Some(&known.lease), clock))
    }

    /// Notes what was asked for at `asked`, and written.
    pub(super) fn wrote(&mut self, lease: Lease, asked: Instant) {
        self.known = Some(Known { lease, since: asked });
    }

    /// The Lease as this candidate holds it.
    fn claimed(&self, before: Option<&Lease>, clock: Timestamp) -> Lease {
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let (acquired, transitions) = match before {
            None => (Some(MicroTime(clock)), 0),
            Some(_) if self.leads() => {
                (spec.acquire_time.clone(), spec.lease_transitions.unwrap_or(0))
            }
            Some(_) => {
                (Some(MicroTime(clock)), spec.lease_transitions.unwrap_or(0).saturating_add(1))
            }
        };
        let metadata = before.map_or_else(
            || ObjectMeta {
                name: Some("kube-controller-manager".to_owned()),
                namespace: Some("kube-system".to_owned()),
                ..ObjectMeta::default()
            },
            |lease| lease.metadata.clone(),
        );
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: acquired,
            renew_time: Some(MicroTime(clock)),
            lease_transitions: Some(transitions),
            ..spec
        };
        Lease { metadata, spec: Some(spec) }
    }
}

impl Known {
    /// Whether whoever holds it may take it that it is his.
    fn holds(&self, now: Instant) -> bool {
        let spec = self.lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        now < self.since + duration
    }
}

#[cfg(test)]
mod tests;
