//! Candidates and an API, at times that are made up.

use super::*;

/// The API's part: a Lease with versions.
#[derive(Default)]
struct Api {
    lease: Option<Lease>,
    version: u32,
}

impl Api {
    fn write(&mut self, lease: Lease) -> Option<Lease> {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if self.lease.as_ref().map(version) != lease.metadata.resource_version.clone().map(Some) {
            return None;
        }
        self.version += 1;
        let mut lease = lease;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        Some(lease)
    }

    /// One turn of a candidate; whether it leads after it.
    fn turn(&mut self, candidate: &mut Candidate, now: Instant) -> bool {
        let clock = Timestamp::UNIX_EPOCH;
        if let Some(lease) = candidate.renewal(now, clock)
            && let Some(written) = self.write(lease)
        {
            candidate.wrote(written, now);
            return true;
        }
        let claim = candidate.found(self.lease.clone(), now, clock);
        match claim {
            Claim::Create(lease) | Claim::Replace(lease) => {
                if let Some(written) = self.write(lease) {
                    candidate.wrote(written, now);
                }
            }
            Claim::None => return false,
        }
        candidate.leads()
    }

    fn spec(&self) -> &LeaseSpec {
        self.lease.as_ref().unwrap().spec.as_ref().unwrap()
    }
}

#[test]
fn one_leads_until_it_is_silent_for_as_long_as_the_lease_holds() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut api = Api::default();
    assert!(api.turn(&mut a, at(0)));
    assert_eq!(api.spec().lease_transitions, Some(0));
    for seconds in [1, 3, 5] {
        assert!(api.turn(&mut a, at(seconds)), "{seconds}");
        assert!(!api.turn(&mut b, at(seconds)), "{seconds}");
    }
    // It says nothing more; what it said last was seen at 5.
    for (seconds, leads) in [(10, false), (19, false), (20, true), (22, true)] {
        assert_eq!(api.turn(&mut b, at(seconds)), leads, "{seconds}");
    }
    assert_eq!(api.spec().lease_transitions, Some(1));
    // It is back, and finds that it was too late.
    assert!(!api.turn(&mut a, at(23)));
    assert_eq!((a.holder(), a.leads(), b.leads()), ("b", false, true));
    // Its renewals keep its beginning.
    assert_eq!(api.spec().holder_identity.as_deref(), Some("b"));
}

#[test]
fn a_lease_that_changes_holds_from_when_that_was_seen() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut api = Api::default();
    assert!(api.turn(&mut a, at(0)));
    // Whoever comes later does not know how old it is, whatever its times say.
    assert!(!api.turn(&mut b, at(1000)));
    assert!(!api.turn(&mut b, at(1014)));
    assert!(api.turn(&mut b, at(1015)));
}

#[test]
fn a_lease_that_was_given_up_or_is_gone_is_taken_at_once() {
    let now = Instant::now();
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut api = Api::default();
    assert!(api.turn(&mut a, now));
    let mut given_up = api.lease.clone().unwrap();
    given_up.spec.as_mut().unwrap().holder_identity = Some(String::new());
    api.write(given_up).unwrap();
    assert!(api.turn(&mut b, now));
    assert_eq!(api.spec().lease_transitions, Some(1));
    api.lease = None;
    assert!(api.turn(&mut a, now));
    assert_eq!(api.spec().lease_transitions, Some(0));
    assert!(api.spec().acquire_time.is_some());
}

#[test]
fn of_two_that_write_at_once_one_leads() {
    let (now, clock) = (Instant::now(), Timestamp::UNIX_EPOCH);
    let (mut a, mut b) = (Candidate::new("a"), Candidate::new("b"));
    let mut api = Api::default();
    let claims = [&mut a, &mut b].map(|it| match it.found(None, now, clock) {
        Claim::Create(lease) => lease,
        other => panic!("{other:?}"),
    });
    let [first, second] = claims;
    a.wrote(api.write(first).unwrap(), now);
    assert_eq!(api.write(second), None);
    assert!(!api.turn(&mut b, now));
    assert!(a.leads() && !b.leads());
}

#[test]
fn a_leader_that_slept_does_not_renew_without_looking() {
    let start = Instant::now();
    let mut a = Candidate::new("a");
    let mut api = Api::default();
    assert!(api.turn(&mut a, start));
    let clock = Timestamp::UNIX_EPOCH;
    assert!(a.renewal(start + LEASE_DURATION / 2, clock).is_some());
    assert_eq!(a.renewal(start + LEASE_DURATION, clock), None);
}
