//! How much a sandbox receives and sends at most.
//!
//! Both are bounded on the machine's side, where nothing in the sandbox can change it: what it receives is
//! what its link here sends; and what its link here receives is led through a link of its own that only
//! gives it back (ifb), as that is what can be queued. Source: the plugin bandwidth of CNI.

use mainstay_cri::Bandwidth;
use mainstay_linux::netlink::{Link, Qdisc, RouteSocket, TokenBucket};

use super::leases::Stage;
use super::{Base, Finding, Names, Network, NetworkError, Repair};

/// What else a frame has than what is counted as its size. Source: `ETH_HLEN`, and what a VLAN adds.
const HEADER: u32 = 18;
/// How much may wait in any case: as much as a sender gives the kernel in one piece.
const LEAST_QUEUE: u64 = 64 << 10;

/// Bounds the traffic of a sandbox whose link is there. What is so already is left as it is.
pub(super) fn limit(
    names: &Names,
    sandbox: &str,
    bandwidth: Bandwidth,
) -> Result<(), NetworkError> {
    let failed = |step| move |source| NetworkError::Limit { step, sandbox: sandbox.into(), source };
    if bandwidth == Bandwidth::default() {
        return Ok(());
    }
    let mut socket = RouteSocket::open().map_err(failed("reach the links"))?;
    let name = names.link(sandbox);
    let link = socket.link(&name).map_err(failed("find the link"))?;
    let Some(link) = link else {
        return Err(NetworkError::Vanished { sandbox: sandbox.into(), link: name });
    };
    if let Some(bits) = bandwidth.ingress {
        let limited = socket.set_token_bucket(link.index, bucket(bits, link.mtu));
        limited.map_err(failed("bound what is received"))?;
    }
    if let Some(bits) = bandwidth.egress {
        let name = names.detour(sandbox);
        let detour = match socket.create_ifb(&name, names.group, link.mtu) {
            Err(error) if error.is_exists() => {
                let there = socket.link(&name).map_err(failed("find the detour"))?;
                there.ok_or_else(|| NetworkError::Vanished {
                    sandbox: sandbox.into(),
                    link: name.clone(),
                })?
            }
            result => result.map_err(failed("make the detour"))?,
        };
        socket
            .set_token_bucket(detour.index, bucket(bits, link.mtu))
            .map_err(failed("bound what is sent"))?;
        socket
            .redirect_received(link.index, detour.index)
            .map_err(failed("redirect what is sent"))?;
    }
    Ok(())
}

impl Network {
    /// Restores the bounds of sandboxes, given by their links, their ids and what bounds them.
    pub(super) fn mend_bounds(
        &self,
        base: &mut Base,
        socket: &mut RouteSocket,
        bounded: Vec<(String, String, Bandwidth)>,
    ) -> Result<(), NetworkError> {
        if bounded.is_empty() {
            return Ok(());
        }
        // Read now: whose bound is known has all of it by then.
        let mut read = || Ok((socket.links()?, socket.qdiscs()?));
        let (links, qdiscs) = read().map_err(self.failed("find the bounds behind"))?;
        for (name, sandbox, bandwidth) in bounded {
            let detour = self.names.detour(&sandbox);
            // What is gone is made anew with its bounds.
            let is_there = links.iter().any(|link| link.name == name);
            if !is_there || holds(bandwidth, (&name, &detour), &links, &qdiscs) {
                continue;
            }
            match limit(&self.names, &sandbox, bandwidth) {
                Ok(()) => base.untold.push(Finding::Repaired(Repair::Link(sandbox))),
                // It ended meanwhile.
                Err(_) if self.stage(&sandbox) != Some(Stage::Attached) => {}
                Err(NetworkError::Vanished { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the bounds of a sandbox are there, given its link and its detour by their names.
fn holds(
    bandwidth: Bandwidth,
    (link, detour): (&str, &str),
    links: &[Link],
    qdiscs: &[Qdisc],
) -> bool {
    let of = |name: &str| links.iter().find(|link| link.name == name);
    let sends = |name: &str, bits: u64| {
        of(name).is_some_and(|link| {
            let rate = Some(bucket(bits, link.mtu).rate);
            qdiscs.iter().any(|qdisc| qdisc.link == link.index && qdisc.rate == rate)
        })
    };
    let is_redirected = || {
        let index = of(link).map(|link| link.index);
        qdiscs.iter().any(|qdisc| Some(qdisc.link) == index && qdisc.kind == "ingress")
    };
    bandwidth.ingress.is_none_or(|bits| sends(link, bits))
        && bandwidth.egress.is_none_or(|bits| sends(detour, bits) && is_redirected())
}

/// What keeps to a rate of bits per second on a link with frames of `mtu` bytes.
///
/// A tenth of a second's worth goes at once, so that timers need not be fine, and two frames in any case;
/// a quarter of a second's worth may wait. containerd's bursts of half a gigabyte would leave short
/// connections without a bound.
fn bucket(bits: u64, mtu: u32) -> TokenBucket {
    let rate = (bits / 8).max(1);
    let frames = u64::from(mtu.saturating_add(HEADER)).saturating_mul(2);
    let burst = (rate / 10).max(frames);
    let limit = burst.saturating_add((rate / 4).max(LEAST_QUEUE));
    let narrow = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    TokenBucket { rate, burst: narrow(burst), limit: narrow(limit) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_frames_and_is_no_larger_than_numbers_are() {
        let of = |bits| {
            let TokenBucket { rate, burst, limit } = bucket(bits, 1500);
            (rate, burst, limit)
        };
        assert_eq!(of(1_000), (125, 3036, 68_572));
        assert_eq!(of(100_000_000), (12_500_000, 1_250_000, 4_375_000));
        assert_eq!(of(1_000_000_000_000_000), (125_000_000_000_000, u32::MAX, u32::MAX));
    }
}
