//! Which ranges a node gets.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use mainstay_pod::identity::PROPOSED_POD_CIDR_ANNOTATION;

/// Where other ranges of IPv4 are taken from: the blocks that nodes choose from by themselves.
const BLOCKS: [Range; 4] = [
    Range { ipv6: false, network: 0x0ac9_0000, prefix: 16 },
    Range { ipv6: false, network: 0xac1e_0000, prefix: 16 },
    Range { ipv6: false, network: 0xc0a8_8000, prefix: 17 },
    Range { ipv6: false, network: 0xc612_0000, prefix: 16 },
];
/// Of IPv6, whose ranges are chosen by chance from so many that they do not meet, it is the block
/// that has so many bits less.
const BLOCK6_BITS: u32 = 16;

/// What a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// It has something, or wants nothing.
    None,
    /// Nothing is left.
    Full,
    /// At most one of each kind, the primary one first.
    Ranges(Vec<String>),
}

/// A range of addresses, as nodes can use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    ipv6: bool,
    network: u128,
    prefix: u32,
}

/// What a node gets that has nothing yet; `all` are all nodes.
pub(super) fn decide(node: &Node, all: &[Arc<Node>]) -> Assignment {
    if has_range(node) {
        return Assignment::None;
    }
    let Some(proposed) = proposal(node) else { return Assignment::None };
    let others = || all.iter().filter(|other| other.metadata.name != node.metadata.name);
    let given: Vec<Range> = others().flat_map(|other| ranges(other)).collect();
    // What somebody else proposes is left to him if possible.
    let wanted = || others().filter_map(|other| proposal(other)).flatten();
    let assigned = proposed.iter().map(|proposed| {
        if !given.iter().any(|it| it.overlaps(*proposed)) {
            return Some(proposed.to_string());
        }
        let all: Vec<Range> = given.iter().copied().chain(wanted()).collect();
        free(*proposed, &all).or_else(|| free(*proposed, &given)).map(|range| range.to_string())
    });
    assigned.collect::<Option<Vec<_>>>().map_or(Assignment::Full, Assignment::Ranges)
}

/// A range as large as the proposed one that has nothing in common with those that are taken.
fn free(proposed: Range, taken: &[Range]) -> Option<Range> {
    let block = Range { prefix: proposed.prefix.saturating_sub(BLOCK6_BITS), ..proposed };
    let around = [Range { network: block.network & block.mask(), ..block }];
    let blocks: &[Range] = if proposed.ipv6 { &around } else { &BLOCKS };
    let mut candidates = blocks.iter().flat_map(|block| block.parts(proposed.prefix));
    candidates.find(|it| !taken.iter().any(|other| other.overlaps(*it)))
}

fn has_range(node: &Node) -> bool {
    ranges_of(node).next().is_some()
}

fn ranges(node: &Node) -> impl Iterator<Item = Range> {
    ranges_of(node).filter_map(|text| text.parse().ok())
}

fn ranges_of(node: &Node) -> impl Iterator<Item = &String> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten();
    all.chain(spec.and_then(|spec| spec.pod_cidr.as_ref())).filter(|text| !text.is_empty())
}

/// What a node proposes, if it can be used.
fn proposal(node: &Node) -> Option<Vec<Range>> {
    let annotations = node.metadata.annotations.as_ref()?;
    let mut ranges: Vec<Range> = Vec::new();
    for text in annotations.get(PROPOSED_POD_CIDR_ANNOTATION)?.split(',') {
        let range: Range = text.parse().ok()?;
        let longest = if range.ipv6 { 120 } else { 29 };
        if !(8..=longest).contains(&range.prefix) || ranges.iter().any(|it| it.ipv6 == range.ipv6) {
            return None;
        }
        ranges.push(range);
    }
    Some(ranges)
}

impl Range {
    /// Bits of an address.
    fn width(self) -> u32 {
        if self.ipv6 { 128 } else { 32 }
    }

    fn mask(self) -> u128 {
        u128::MAX.checked_shl(self.width() - self.prefix).unwrap_or(0)
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.ipv6 == other.ipv6 && self.network & mask == other.network & mask
    }

    /// The ranges of a size that are in this one.
    fn parts(self, prefix: u32) -> impl Iterator<Item = Self> {
        let count = match prefix.checked_sub(self.prefix) {
            Some(bits) => 1_u128 << bits,
            None => 0,
        };
        (0..count).map(move |number| Self {
            ipv6: self.ipv6,
            network: self.network + number.checked_shl(self.width() - prefix).unwrap_or(0),
            prefix,
        })
    }
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let (ipv6, network) = match network.parse::<IpAddr>().map_err(drop)? {
            IpAddr::V4(address) => (false, address.to_bits().into()),
            IpAddr::V6(address) => (true, address.to_bits()),
        };
        let range = Self { ipv6, network, prefix: prefix.parse().map_err(drop)? };
        if range.prefix > range.width() {
            return Err(());
        }
        (range.network & !range.mask() == 0).then_some(range).ok_or(())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address: IpAddr = match (self.ipv6, u32::try_from(self.network)) {
            (false, Ok(bits)) => Ipv4Addr::from_bits(bits).into(),
            _ => Ipv6Addr::from_bits(self.network).into(),
        };
        write!(f, "{address}/{}", self.prefix)
    }
}
