//! The addresses of an instance's sandboxes: which ranges, and how they are remembered.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::str::FromStr;

use mainstay_linux::durable::replace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where ranges of IPv4 are chosen from, in this order: parts of the private blocks that other
/// software does not choose by itself (RFC 1918), and at last the block for benchmarks (RFC 2544),
/// which nobody routes, for machines in networks that route all private addresses.
const BLOCKS: [Range; 4] = [
    Range { network: IpAddr::V4(Ipv4Addr::new(10, 201, 0, 0)), prefix: 16 },
    Range { network: IpAddr::V4(Ipv4Addr::new(172, 30, 0, 0)), prefix: 16 },
    Range { network: IpAddr::V4(Ipv4Addr::new(192, 168, 128, 0)), prefix: 17 },
    Range { network: IpAddr::V4(Ipv4Addr::new(198, 18, 0, 0)), prefix: 16 },
];
/// Where those of IPv6 are: what everybody may take a part of by chance (RFC 4193).
const BLOCKS6: [Range; 1] =
    [Range { network: IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)), prefix: 8 }];
/// Room for 253 sandboxes.
const CHOSEN_PREFIX: u8 = 24;
/// As everywhere: half of an address is the network's.
const CHOSEN_PREFIX6: u8 = 64;
/// How many ranges of a block are looked at.
const LOOKS: u64 = 1 << 16;

/// A version of the internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A range of addresses: the first one names the network, the second one is the gateway's, and the
/// last one nobody's, as it is the broadcast address of IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    network: IpAddr,
    prefix: u8,
}

/// A text that is not a range.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a range of addresses: write its first address and a prefix length from 8 to \
     29, such as 10.88.0.0/24, or of IPv6 from 8 to 120, such as fd00:88::/64"
)]
pub struct InvalidRange {
    text: String,
}

/// A text that is not a list of ranges.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRanges {
    /// A part of it is none.
    #[error(transparent)]
    Range(#[from] InvalidRange),
    /// There are two of a kind.
    #[error("`{text}` has two ranges of one kind: write one, or one of IPv4 and one of IPv6")]
    TwoOfAKind {
        /// All of it.
        text: String,
    },
}

/// What the remembered range could not be read or written for.
#[derive(Debug, thiserror::Error)]
pub enum RangeFileError {
    /// The file system refused.
    #[error("cannot {step} {}", .path.display())]
    Io {
        /// `read`, `write`, `sync` or `rename`.
        step: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else, or is of a later version.
    #[error("{} does not hold a range of addresses", .path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
}

// === impl IpFamily ===

impl IpFamily {
    /// Of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address that stands for all of them.
    pub(super) fn unspecified(self) -> IpAddr {
        self.address(0)
    }

    /// Bits of an address.
    fn width(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// Bits that are set for the network's part, of as many as an address has.
    fn mask(self, prefix: u8) -> u128 {
        let all = u128::MAX >> (128 - self.width());
        all & !all.checked_shr(prefix.into()).unwrap_or(0)
    }

    fn address(self, bits: u128) -> IpAddr {
        match self {
            // A range has no bits beyond those of its kind.
            Self::V4 => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from_bits(bits).into(),
        }
    }
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The bytes of an address, as they are sent.
pub(super) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

// === impl Range ===

impl Range {
    /// A range of the given network; bits of `network` behind the prefix do not count.
    ///
    /// `None` unless `prefix` is 8 to 29, or 8 to 120 for IPv6.
    pub fn new(network: IpAddr, prefix: u8) -> Option<Self> {
        let family = IpFamily::of(network);
        let longest = match family {
            IpFamily::V4 => 29,
            IpFamily::V6 => 120,
        };
        let network = family.address(bits(network) & family.mask(prefix));
        (8..=longest).contains(&prefix).then_some(Self { network, prefix })
    }

    /// Which kind of addresses it has.
    pub fn family(self) -> IpFamily {
        IpFamily::of(self.network)
    }

    /// The leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address, which names the network.
    pub fn network(self) -> IpAddr {
        self.network
    }

    /// An address whose bits are set for the network's part.
    pub fn mask(self) -> IpAddr {
        self.family().address(self.family().mask(self.prefix))
    }

    /// The address of the bridge.
    pub fn gateway(self) -> IpAddr {
        self.at(1)
    }

    /// How many sandboxes have room, as far as one can count.
    pub fn capacity(self) -> u32 {
        // Neither the network, nor the gateway, nor the broadcast address.
        let all = bits(self.family().address(u128::MAX >> (128 - self.family().width())));
        let held = (all & !self.family().mask(self.prefix)).saturating_sub(2);
        u32::try_from(held).unwrap_or(u32::MAX)
    }

    /// The sandbox address with the given number, counted from 0; wraps around.
    pub fn address(self, number: u32) -> IpAddr {
        self.at(2 + u128::from(number % self.capacity()))
    }

    /// Whether a sandbox may have this address.
    pub fn holds(self, address: IpAddr) -> bool {
        let offset = bits(address).wrapping_sub(bits(self.gateway()));
        IpFamily::of(address) == self.family() && (1..=self.capacity().into()).contains(&offset)
    }

    /// Whether one of these networks has addresses in common with this range. The default route
    /// leads everywhere and does not count.
    pub(super) fn overlaps_any(self, networks: &[(IpAddr, u8)]) -> bool {
        networks.iter().any(|(address, prefix)| *prefix > 0 && self.overlaps(*address, *prefix))
    }

    /// Whether two ranges have addresses in common.
    pub(super) fn overlaps_range(self, other: Self) -> bool {
        self.overlaps(other.network, other.prefix)
    }

    /// Whether the network `address`/`prefix` has addresses in common with this range.
    fn overlaps(self, address: IpAddr, prefix: u8) -> bool {
        let common =
            (bits(address) ^ bits(self.network)) & self.family().mask(prefix.min(self.prefix));
        IpFamily::of(address) == self.family() && common == 0
    }

    fn at(self, offset: u128) -> IpAddr {
        self.family().address(bits(self.network) + offset)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Range {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (network, prefix) = text.split_once('/')?;
            let network = network.parse().ok()?;
            let range = Self::new(network, prefix.parse().ok()?)?;
            (range.network == network).then_some(range)
        };
        parse().ok_or_else(|| InvalidRange { text: text.into() })
    }
}

/// Reads ranges with commas between, at most one of each kind, the primary one first: as in the
/// `podCIDR` of a KubeletConfiguration.
pub fn parse_ranges(text: &str) -> Result<Vec<Range>, InvalidRanges> {
    let mut ranges: Vec<Range> = Vec::new();
    for part in text.split(',') {
        let range: Range = part.trim().parse()?;
        if ranges.iter().any(|other| other.family() == range.family()) {
            return Err(InvalidRanges::TwoOfAKind { text: text.into() });
        }
        ranges.push(range);
    }
    Ok(ranges)
}

/// Writes ranges as [`parse_ranges`] reads them.
pub fn show_ranges(ranges: &[Range]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Chooses a range that has nothing in common with the networks `taken`; `None` if every one has.
///
/// Where the search begins and its stride depend on the machine and on the instance, so that machines
/// that are joined later rarely meet, and instances that met do not meet again.
pub(super) fn choose(
    family: IpFamily,
    machine_id: &str,
    root_dir: &Path,
    taken: &[(IpAddr, u8)],
) -> Option<Range> {
    let root_dir = root_dir.as_os_str().as_encoded_bytes();
    let digest = Sha256::digest([machine_id.as_bytes(), b"\0", root_dir].concat());
    let (blocks, chosen, length): (&[Range], u8, usize) = match family {
        IpFamily::V4 => (&BLOCKS, CHOSEN_PREFIX, 4),
        IpFamily::V6 => (&BLOCKS6, CHOSEN_PREFIX6, 8),
    };
    let number = |at: usize| {
        digest.iter().skip(at).take(length).fold(0_u64, |all, byte| all << 8 | u64::from(*byte))
    };
    // An odd stride comes by every one of a power of two.
    let (seed, stride) = (number(0), number(length) | 1);
    blocks.iter().find_map(|block| {
        let count = 1_u64 << (chosen - block.prefix);
        (0..count.min(LOOKS)).find_map(|step| {
            let number = seed.wrapping_add(step.wrapping_mul(stride)) % count;
            let network = block.at(u128::from(number) << (family.width() - chosen));
            let range = Range::new(network, chosen)?;
            (!range.overlaps_any(taken)).then_some(range)
        })
    })
}

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RangeFile {
    version: u32,
    /// As in `podCIDR`: one, or one of each kind.
    range: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older: Vec<String>,
}

/// The ranges of an instance's sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// New ones get an address of each of these, at most one of a kind; the first is the primary
    /// one.
    pub(super) current: Vec<Range>,
    /// Some have addresses of these still.
    pub(super) older: Vec<Range>,
}

impl Ranges {
    /// These ranges for all.
    pub(super) fn of(current: Vec<Range>) -> Self {
        Self { current, older: Vec::new() }
    }

    /// All of them, the current ones first.
    pub(super) fn all(&self) -> impl Iterator<Item = Range> {
        self.current.iter().chain(&self.older).copied()
    }

    /// The current one of a kind.
    pub(super) fn current_of(&self, family: IpFamily) -> Option<Range> {
        self.current.iter().copied().find(|range| range.family() == family)
    }

    /// Whether there are addresses of that kind.
    pub(super) fn has(&self, family: IpFamily) -> bool {
        self.all().any(|range| range.family() == family)
    }

    /// The kinds of addresses that there are.
    pub(super) fn families(&self) -> impl Iterator<Item = IpFamily> {
        [IpFamily::V4, IpFamily::V6].into_iter().filter(|family| self.has(*family))
    }

    /// The one that a sandbox has its address of.
    pub(super) fn of_address(&self, address: IpAddr) -> Option<Range> {
        self.all().find(|range| range.holds(address))
    }
}

/// Reads the ranges that [`remember`] wrote; `None` if it never did.
pub(super) fn remembered(path: &Path) -> Result<Option<Ranges>, RangeFileError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(RangeFileError::Io { step: "read", path: path.into(), source }),
    };
    let malformed = |source| RangeFileError::Malformed { path: path.into(), source };
    let file: RangeFile = serde_json::from_slice(&bytes).map_err(malformed)?;
    if file.version != VERSION {
        let text = format!("version {} instead of {VERSION}", file.version);
        return Err(malformed(serde::de::Error::custom(text)));
    }
    let parse = || -> Result<Ranges, InvalidRanges> {
        let older = file.older.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        Ok(Ranges { current: parse_ranges(&file.range)?, older: older? })
    };
    parse().map(Some).map_err(|error| malformed(serde::de::Error::custom(error)))
}

/// Writes the ranges so that after a power cut the old or the new one is there.
pub(super) fn remember(path: &Path, ranges: &Ranges) -> Result<(), RangeFileError> {
    let failed = |step| move |source| RangeFileError::Io { step, path: path.into(), source };
    let older = ranges.older.iter().map(ToString::to_string).collect();
    let file = RangeFile { version: VERSION, range: show_ranges(&ranges.current), older };
    let bytes = serde_json::to_vec(&file)
        .map_err(|source| RangeFileError::Malformed { path: path.into(), source })?;
    replace(path, &path.with_extension("tmp"), &bytes).map_err(failed("write"))
}

#[cfg(test)]
mod tests;
