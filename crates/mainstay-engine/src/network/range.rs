//! The addresses of an instance's sandboxes: which range, and how it is remembered.

use std::fmt;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use mainstay_linux::durable::replace;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where ranges are chosen from, in this order: parts of the private blocks that other software
/// does not choose by itself (RFC 1918), and at last the block for benchmarks (RFC 2544), which
/// nobody routes, for machines in networks that route all private addresses.
const BLOCKS: [Range; 4] = [
    Range { network: Ipv4Addr::new(10, 201, 0, 0), prefix: 16 },
    Range { network: Ipv4Addr::new(172, 30, 0, 0), prefix: 16 },
    Range { network: Ipv4Addr::new(192, 168, 128, 0), prefix: 17 },
    Range { network: Ipv4Addr::new(198, 18, 0, 0), prefix: 16 },
];
/// Room for 253 sandboxes.
const CHOSEN_PREFIX: u8 = 24;

/// A range of IPv4 addresses: the first one is the gateway's, the last one the broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    network: Ipv4Addr,
    prefix: u8,
}

/// A text that is not a range.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a range of IPv4 addresses: write its first address and a prefix length \
     from 8 to 29, such as 10.88.0.0/24"
)]
pub struct InvalidRange {
    text: String,
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

// === impl Range ===

impl Range {
    /// A range of the given network; bits of `network` behind the prefix do not count.
    ///
    /// `None` unless `prefix` is 8 to 29.
    pub fn new(network: Ipv4Addr, prefix: u8) -> Option<Self> {
        if !(8..=29).contains(&prefix) {
            return None;
        }
        let range = Self { network, prefix };
        Some(Self { network: Ipv4Addr::from_bits(network.to_bits() & range.mask()), prefix })
    }

    /// The leading bits that all its addresses share.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The first address, which names the network.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// Bits that are set for the network's part.
    pub fn mask(self) -> u32 {
        mask(self.prefix)
    }

    /// The address of the bridge.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// How many sandboxes have room.
    pub fn capacity(self) -> u32 {
        // Neither the network, nor the gateway, nor the broadcast address.
        !self.mask() - 2
    }

    /// The sandbox address with the given number, counted from 0; wraps around.
    pub fn address(self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.gateway().to_bits() + 1 + number % self.capacity())
    }

    /// Whether a sandbox may have this address.
    pub fn holds(self, address: Ipv4Addr) -> bool {
        let offset = address.to_bits().wrapping_sub(self.gateway().to_bits());
        (1..=self.capacity()).contains(&offset)
    }

    /// Whether one of these networks has addresses in common with this range. The default route
    /// leads everywhere and does not count.
    pub(super) fn overlaps_any(self, networks: &[(Ipv4Addr, u8)]) -> bool {
        networks.iter().any(|(address, prefix)| *prefix > 0 && self.overlaps(*address, *prefix))
    }

    /// Whether two ranges have addresses in common.
    pub(super) fn overlaps_range(self, other: Self) -> bool {
        self.overlaps(other.network, other.prefix)
    }

    /// Whether the network `address`/`prefix` has addresses in common with this range.
    fn overlaps(self, address: Ipv4Addr, prefix: u8) -> bool {
        (address.to_bits() ^ self.network.to_bits()) & mask(prefix.min(self.prefix)) == 0
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

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

/// Chooses a range that has nothing in common with the networks `taken`; `None` if every one has.
///
/// Where the search begins and its stride depend on the machine and on the instance, so that machines
/// that are joined later rarely meet, and instances that met do not meet again.
pub(super) fn choose(machine_id: &str, root_dir: &Path, taken: &[(Ipv4Addr, u8)]) -> Option<Range> {
    let root_dir = root_dir.as_os_str().as_encoded_bytes();
    let digest = Sha256::digest([machine_id.as_bytes(), b"\0", root_dir].concat());
    let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|byte| digest[at + byte]));
    // An odd stride comes by every one of a power of two.
    let (seed, stride) = (word(0), word(4) | 1);
    BLOCKS.into_iter().find_map(|block| {
        let count = 1_u32 << (CHOSEN_PREFIX - block.prefix);
        (0..count).find_map(|step| {
            let number = seed.wrapping_add(step.wrapping_mul(stride)) % count;
            let network = block.network.to_bits() + (number << (32 - CHOSEN_PREFIX));
            let range = Range::new(Ipv4Addr::from_bits(network), CHOSEN_PREFIX)?;
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
    range: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    older: Vec<String>,
}

/// The ranges of an instance's sandboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges {
    /// New ones get addresses of this one.
    pub(super) current: Range,
    /// Some have addresses of these still.
    pub(super) older: Vec<Range>,
}

impl Ranges {
    /// One range for all.
    pub(super) fn of(current: Range) -> Self {
        Self { current, older: Vec::new() }
    }

    /// All of them, the current one first.
    pub(super) fn all(&self) -> impl Iterator<Item = Range> {
        std::iter::once(self.current).chain(self.older.iter().copied())
    }

    /// The one that a sandbox has its address of.
    pub(super) fn of_address(&self, address: Ipv4Addr) -> Option<Range> {
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
    let parse = || -> Result<Ranges, InvalidRange> {
        let older = file.older.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        Ok(Ranges { current: file.range.parse()?, older: older? })
    };
    parse().map(Some).map_err(|error| malformed(serde::de::Error::custom(error)))
}

/// Writes the ranges so that after a power cut the old or the new one is there.
pub(super) fn remember(path: &Path, ranges: &Ranges) -> Result<(), RangeFileError> {
    let failed = |step| move |source| RangeFileError::Io { step, path: path.into(), source };
    let older = ranges.older.iter().map(ToString::to_string).collect();
    let file = RangeFile { version: VERSION, range: ranges.current.to_string(), older };
    let bytes = serde_json::to_vec(&file)
        .map_err(|source| RangeFileError::Malformed { path: path.into(), source })?;
    replace(path, &path.with_extension("tmp"), &bytes).map_err(failed("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    fn chosen(taken: &[&str]) -> String {
        let taken: Vec<_> = taken
            .iter()
            .map(|text| text.split_once('/').unwrap())
            .map(|(address, prefix)| (address.parse().unwrap(), prefix.parse().unwrap()))
            .collect();
        choose("machine", Path::new("/var/lib/mainstay"), &taken).unwrap().to_string()
    }

    #[test]
    fn a_range_knows_its_addresses() {
        let range = range("10.88.0.0/29");
        let addresses: Vec<_> = (0..6).map(|number| range.address(number).to_string()).collect();
        assert_eq!(range.gateway().to_string(), "10.88.0.1");
        let expected =
            ["10.88.0.2", "10.88.0.3", "10.88.0.4", "10.88.0.5", "10.88.0.6", "10.88.0.2"];
        assert_eq!(addresses, expected);
        let held = (0..=255).filter(|last| range.holds(Ipv4Addr::new(10, 88, 0, *last))).count();
        assert_eq!(held, 5);
        assert!(!range.holds(Ipv4Addr::new(10, 87, 255, 255)));
    }

    #[test]
    fn only_whole_networks_are_ranges() {
        for text in ["10.88.0.1/24", "10.88.0.0", "10.88.0.0/30", "10.0.0.0/7", "::/64", ""] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_choice_avoids_what_is_taken() {
        let first = chosen(&["0.0.0.0/0", "192.168.1.0/24"]);
        assert!(first.starts_with("10.201."), "{first}");
        assert_eq!(chosen(&[]), first);
        let second = chosen(&[&first]);
        assert!(second.starts_with("10.201.") && second != first, "{second}");
        // A route to one address of it, and one to all of its block.
        let inside = first.replace(".0/24", ".77/32");
        assert_eq!(chosen(&[&inside]), second);
        assert!(chosen(&["10.0.0.0/8"]).starts_with("172.30."));
        assert!(chosen(&["10.0.0.0/8", "172.16.0.0/12"]).starts_with("192.168."));
        let all = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
        assert!(chosen(&all).starts_with("198.18."));
        let none = choose("m", Path::new("/"), &[(Ipv4Addr::UNSPECIFIED, 1), ([128; 4].into(), 1)]);
        assert_eq!(none, None);
    }

    #[test]
    fn instances_and_machines_choose_differently() {
        let mut chosen: Vec<_> = (0..20)
            .map(|number| format!("/srv/{number}"))
            .map(|root_dir| choose("machine", Path::new(&root_dir), &[]).unwrap().to_string())
            .collect();
        chosen.sort();
        chosen.dedup();
        assert!(chosen.len() > 10, "{chosen:?}");
    }

    #[test]
    fn a_range_is_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("network.json");
        assert_eq!(remembered(&path).unwrap(), None);
        for text in ["10.88.0.0/24", "10.89.0.0/16"] {
            remember(&path, &Ranges::of(range(text))).unwrap();
            assert_eq!(remembered(&path).unwrap(), Some(Ranges::of(range(text))));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version":1,"range":"10.89.0.0/16"}"#);
        let older = vec![range("10.87.0.0/24"), range("10.86.0.0/24")];
        let ranges = Ranges { current: range("10.89.0.0/16"), older };
        remember(&path, &ranges).unwrap();
        assert_eq!(remembered(&path).unwrap(), Some(ranges));
        for text in ["", "{", r#"{"version":2,"range":"10.89.0.0/16"}"#] {
            fs::write(&path, text).unwrap();
            assert!(remembered(&path).is_err(), "{text}");
        }
    }
}
