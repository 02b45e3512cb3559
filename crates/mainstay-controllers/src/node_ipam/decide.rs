//! Which range a node gets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use mainstay_pod::identity::PROPOSED_POD_CIDR_ANNOTATION;

/// Where other ranges are taken from: the blocks that nodes choose from by themselves.
const BLOCKS: [Range; 4] = [
    Range { network: 0x0ac9_0000, prefix: 16 },
    Range { network: 0xac1e_0000, prefix: 16 },
    Range { network: 0xc0a8_8000, prefix: 17 },
    Range { network: 0xc612_0000, prefix: 16 },
];

/// What a node gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assignment {
    /// It has something, or wants nothing.
    None,
    /// Nothing is left.
    Full,
    Range(String),
}

/// A range of IPv4 addresses, as nodes can use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    network: u32,
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
    if !given.iter().any(|it| it.overlaps(proposed)) {
        return Assignment::Range(proposed.to_string());
    }
    // What somebody else proposes is left to him if possible.
    let wanted: Vec<Range> = others().filter_map(|other| proposal(other)).collect();
    let free = |taken: &[Range]| {
        let mut candidates = BLOCKS.iter().flat_map(|block| block.parts(proposed.prefix));
        candidates.find(|it| !taken.iter().any(|other| other.overlaps(*it)))
    };
    match free(&[&given[..], &wanted[..]].concat()).or_else(|| free(&given)) {
        Some(range) => Assignment::Range(range.to_string()),
        None => Assignment::Full,
    }
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
fn proposal(node: &Node) -> Option<Range> {
    let annotations = node.metadata.annotations.as_ref()?;
    let range: Range = annotations.get(PROPOSED_POD_CIDR_ANNOTATION)?.parse().ok()?;
    (8..=29).contains(&range.prefix).then_some(range)
}

impl Range {
    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - self.prefix).unwrap_or(0)
    }

    fn overlaps(self, other: Self) -> bool {
        let mask = self.mask() & other.mask();
        self.network & mask == other.network & mask
    }

    /// The ranges of a size that are in this one.
    fn parts(self, prefix: u32) -> impl Iterator<Item = Self> {
        let count = match prefix.checked_sub(self.prefix) {
            Some(bits) => 1_u32 << bits,
            None => 0,
        };
        (0..count).map(move |number| Self {
            network: self.network + number.checked_shl(32 - prefix).unwrap_or(0),
            prefix,
        })
    }
}

impl FromStr for Range {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (network, prefix) = text.split_once('/').ok_or(())?;
        let network: Ipv4Addr = network.parse().map_err(drop)?;
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32).ok_or(())?;
        let range = Self { network: network.to_bits(), prefix };
        (range.network & !range.mask() == 0).then_some(range).ok_or(())
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.network), self.prefix)
    }
}
