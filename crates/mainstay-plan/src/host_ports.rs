//! Ports of the host that pods occupy: who has them, and who waits for them.
//!
//! Whatever the network and the runtime, no two pods of an agent have one port at a time: with a network of the
//! pod's own it could lead to one of them only, and on the host's network the second one would find it taken.
//!
//! # Guarantees
//!
//! - Whoever has a sandbox goes on. Of those without, the one that was accepted first is first, and then the
//!   one whose name is: no two wait for each other.
//! - A port is that of a pod until nothing of the pod runs any more.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::Timestamp;
use mainstay_pod::Pod;

use crate::pod::PodKey;

/// A port of the host, of one of its addresses or of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    protocol: String,
    /// 1 to 65535.
    port: i32,
    /// `None` for all addresses; an unspecified one for all of its kind.
    address: Option<IpAddr>,
}

/// What a pod does with ports of the host.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Which pod.
    pub key: &'a PodKey,
    /// The ports.
    pub ports: &'a [HostPort],
    /// Whether it has them.
    pub standing: Standing,
}

/// How far a pod is that needs ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has a sandbox, or one is being made.
    Has,
    /// It is to have one, and was accepted at this moment; `None` if that is not known any more.
    Wants(Option<Timestamp>),
}

/// A port that is not free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// As whoever asks wants it.
    port: HostPort,
    /// Whose it is.
    holder: PodKey,
    /// Whether that one has it already.
    has: bool,
}

// === impl HostPort ===

impl HostPort {
    /// Those that a pod occupies. On the host's network these are all that its containers declare, since
    /// defaulting says so.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let port = |it: mainstay_pod::HostPort| Self {
            protocol: it.protocol,
            port: it.host_port,
            address: it.host_ip.parse().ok(),
        };
        pod.host_ports().into_iter().map(port).collect()
    }

    /// Whether two pods cannot have these at a time. Source: `HostPortInfo.CheckConflict` in
    /// `staging/src/k8s.io/kube-scheduler/framework/types.go`, which knows `0.0.0.0` only; `::` is meant here
    /// as it is by the network of pods.
    fn conflicts(&self, other: &Self) -> bool {
        let overlap = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                let one_of_all = one.is_unspecified() || two.is_unspecified();
                one == two || one.is_ipv4() == two.is_ipv4() && one_of_all
            }
            _ => true,
        };
        overlap && self.port == other.port && self.protocol == other.protocol
    }
}

/// As it is written down with a sandbox: `8080/TCP`, `53/UDP@10.0.0.1`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)?;
        self.address.map_or(Ok(()), |address| write!(f, "@{address}"))
    }
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (port, rest) = text.split_once('/').ok_or(())?;
        let (protocol, address) = match rest.split_once('@') {
            Some((protocol, address)) => (protocol, Some(address.parse().map_err(|_| ())?)),
            None => (rest, None),
        };
        let port = port.parse().map_err(|_| ())?;
        Ok(Self { protocol: protocol.to_owned(), port, address })
    }
}

// === impl Conflict ===

/// As the built-in network says it of other users of a port.
impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HostPort { protocol, port, address } = &self.port;
        write!(f, "host port {port}/{protocol}")?;
        if let Some(address) = address.filter(|address| !address.is_unspecified()) {
            write!(f, " on {address}")?;
        }
        let holder = &self.holder;
        match self.has {
            true => write!(f, " is in use by pod {holder}"),
            false => write!(f, " is for pod {holder}, which was accepted first"),
        }
    }
}

/// When a pod was accepted, if it says; the same for every agent, and over restarts of the machine.
pub fn accepted(pod: &Pod) -> Option<Timestamp> {
    let seen = pod.config_seen().and_then(|text| text.parse().ok());
    seen.or_else(|| pod.metadata().creation_timestamp.as_ref().map(|time| time.0))
}

/// Why a pod that has no sandbox, and was accepted `since` then, may not have these ports now.
///
/// # Errors
///
/// When one of the others has one of them, or goes first.
pub fn admit(
    key: &PodKey,
    since: Option<Timestamp>,
    ports: &[HostPort],
    others: &[Claim<'_>],
) -> Result<(), Conflict> {
    let goes_first = |claim: &Claim<'_>| match claim.standing {
        Standing::Has => true,
        Standing::Wants(other) => (other, claim.key) < (since, key),
    };
    let first = others.iter().filter(|it| it.key != key && goes_first(it));
    let conflicts = first.filter_map(|claim| {
        let taken = |port: &&HostPort| claim.ports.iter().any(|other| port.conflicts(other));
        let port = ports.iter().find(taken)?.clone();
        let (holder, has) = (claim.key.clone(), claim.standing == Standing::Has);
        Some(Conflict { port, holder, has })
    });
    // Whoever has it is what people look for.
    conflicts.min_by_key(|conflict| !conflict.has).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::SourceKind;

    fn ports(text: &str) -> Vec<HostPort> {
        text.split_terminator(',').map(|it| it.parse().unwrap()).collect()
    }

    fn key(name: &str) -> PodKey {
        PodKey { source: SourceKind::File, namespace: "ns".into(), name: name.into() }
    }

    #[test]
    fn ports_conflict_where_one_process_would_take_what_another_has() {
        for (one, other, expected) in [
            ("80/TCP", "80/TCP", true),
            ("80/TCP", "81/TCP", false),
            ("80/TCP", "80/UDP", false),
            ("80/TCP", "80/TCP@10.0.0.1", true),
            ("80/TCP", "80/TCP@fd00::1", true),
            ("80/TCP", "80/TCP@::", true),
            ("80/TCP@0.0.0.0", "80/TCP@10.0.0.1", true),
            ("80/TCP@0.0.0.0", "80/TCP@0.0.0.0", true),
            ("80/TCP@0.0.0.0", "80/TCP@fd00::1", false),
            ("80/TCP@::", "80/TCP@fd00::1", true),
            ("80/TCP@::", "80/TCP@10.0.0.1", false),
            ("80/TCP@10.0.0.1", "80/TCP@10.0.0.1", true),
            ("80/TCP@10.0.0.1", "80/TCP@10.0.0.2", false),
            ("80/SCTP", "80/SCTP@10.0.0.2", true),
        ] {
            let (one, other) = (&ports(one)[0], &ports(other)[0]);
            assert_eq!(one.conflicts(other), expected, "{one} {other}");
            assert_eq!(other.conflicts(one), expected, "{other} {one}");
            assert_eq!(one.to_string().parse().as_ref(), Ok(one));
        }
        for text in ["", "80", "x/TCP", "80/TCP@x"] {
            assert_eq!(text.parse::<HostPort>(), Err(()), "{text}");
        }
    }

    #[test]
    fn who_has_a_sandbox_goes_on_and_then_who_was_accepted_first() {
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let wants = |second| Standing::Wants(at(second));
        let all = "80/TCP";
        // What the other one, `b`, has or wants, and what becomes of one that came at 5.
        let in_use = "host port 80/TCP is in use by pod ns/b";
        let is_for = "host port 80/TCP is for pod ns/b, which was accepted first";
        for (own, name, theirs, standing, expected) in [
            (all, "a", "", Standing::Has, ""),
            (all, "a", "81/TCP,80/UDP", Standing::Has, ""),
            ("81/TCP,80/TCP", "a", all, Standing::Has, in_use),
            (
                "80/TCP@::1",
                "a",
                all,
                Standing::Has,
                "host port 80/TCP on ::1 is in use by pod ns/b",
            ),
            ("80/TCP@0.0.0.0", "a", all, Standing::Has, in_use),
            // Another version of itself is another matter.
            (all, "b", all, Standing::Has, ""),
            (all, "a", all, wants(4), is_for),
            (all, "a", all, wants(6), ""),
            (all, "a", all, wants(5), ""),
            (all, "c", all, wants(5), is_for),
            // As one that an earlier version of the agent accepted.
            (all, "a", all, Standing::Wants(None), is_for),
            (all, "a", "81/TCP", wants(4), ""),
        ] {
            let theirs = ports(theirs);
            let other = Claim { key: &key("b"), ports: &theirs, standing };
            let answer = admit(&key(name), at(5), &ports(own), &[other]);
            let answer = answer.map_or_else(|conflict| conflict.to_string(), |()| String::new());
            assert_eq!(answer, expected, "{own} of {name}, {theirs:?} {standing:?}");
        }
        // Of two without a sandbox exactly one goes on.
        let port = ports(all);
        for (one, two) in [(at(1), at(2)), (at(2), at(1)), (at(1), at(1)), (None, None)] {
            let (a, b) = (key("a"), key("b"));
            let claim = |key, since| Claim { key, ports: &port, standing: Standing::Wants(since) };
            let first = admit(&a, one, &port, &[claim(&b, two)]).is_ok();
            assert_ne!(first, admit(&b, two, &port, &[claim(&a, one)]).is_ok(), "{one:?} {two:?}");
        }
        // Who has it is named before who wants it.
        let (b, c) = (key("b"), key("c"));
        let wanted = Claim { key: &c, ports: &port, standing: wants(1) };
        let had = Claim { key: &b, ports: &port, standing: Standing::Has };
        let conflict = admit(&key("a"), at(5), &port, &[wanted, had]).unwrap_err();
        assert_eq!(conflict.to_string(), in_use);
    }
}
