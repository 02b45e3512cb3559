//! All names, for looking them up.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mainstay_shim_protocol::Zone;

use super::Name;

/// The names of all sandboxes.
#[derive(Clone, Debug)]
pub struct Names {
    /// What they end in.
    domain: Name,
    askers: Vec<(IpAddr, u8)>,
    /// Addresses of names, and of those that only others are below of, none.
    addresses: BTreeMap<Name, Vec<IpAddr>>,
    names: BTreeMap<IpAddr, Name>,
}

impl Names {
    /// Of what the engine says; `None` if its domain is no name, or that of all names. A name of a sandbox
    /// that cannot be sent over DNS is none; it may have others.
    pub fn of(zone: &Zone) -> Option<Self> {
        let mut names = Self {
            domain: Name::of(&zone.domain).filter(|domain| *domain != Name::default())?,
            askers: zone.askers.clone(),
            addresses: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        names.insert(names.domain.clone(), &[]);
        for host in &zone.hosts {
            let below = |text: &str| Name::of(text).and_then(|name| name.below(&names.domain));
            let own: Vec<Name> = host.names.iter().filter_map(|name| below(name)).collect();
            let by_address: Vec<(Name, IpAddr)> = host
                .addresses
                .iter()
                .filter_map(|it| {
                    Some((below(&format!("{}.{}", dashed(*it), host.by_address))?, *it))
                })
                .filter(|_| !host.by_address.is_empty())
                .collect();
            for address in host.addresses.iter().filter(|_| host.reverse) {
                if let Some(name) = own.first() {
                    names.names.insert(*address, name.clone());
                }
            }
            for name in own {
                names.insert(name, &host.addresses);
            }
            for (name, address) in by_address {
                names.insert(name, &[address]);
            }
        }
        Some(names)
    }

    fn insert(&mut self, name: Name, addresses: &[IpAddr]) {
        let mut above = name.parent();
        while let Some(name) = above.filter(|name| name.is_within(&self.domain)) {
            above = name.parent();
            self.addresses.entry(name).or_default();
        }
        let known = self.addresses.entry(name).or_default();
        for address in addresses {
            if !known.contains(address) {
                known.push(*address);
            }
        }
    }

    /// What all names end in.
    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// The addresses of a name; `None` if there is no such name. A name may have none, as one does that others
    /// are below of.
    pub fn addresses(&self, name: &Name) -> Option<&[IpAddr]> {
        self.addresses.get(name).map(Vec::as_slice)
    }

    /// The name of an address.
    pub fn name(&self, address: IpAddr) -> Option<&Name> {
        self.names.get(&address)
    }

    /// Whether somebody with this address may ask, and its name is ours to tell.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.askers.iter().any(|(network, prefix)| is_in(address, *network, *prefix))
    }
}

fn is_in(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let (one, other, width) = match (address, network) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    // With all bits behind the prefix there is nothing left to differ.
    let behind = u32::from(u8::saturating_sub(width, prefix));
    (one ^ other).checked_shr(behind).unwrap_or(0) == 0
}

/// An address as a label, as CoreDNS has it for pods.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (address, network, prefix, expected) in [
            ("10.1.2.3", "10.1.2.0", 24, true),
            ("10.1.3.3", "10.1.2.0", 24, false),
            ("10.1.3.3", "10.1.2.0", 0, true),
            ("10.1.2.3", "10.1.2.3", 32, true),
            ("10.1.2.2", "10.1.2.3", 32, false),
            ("fd00::7", "fd00::", 64, true),
            ("fd00:0:0:1::7", "fd00::", 64, false),
            ("fd00::7", "::", 0, true),
            ("::ffff:10.1.2.3", "10.1.2.0", 24, false),
        ] {
            let (address, network) = (address.parse().unwrap(), network.parse().unwrap());
            assert_eq!(is_in(address, network, prefix), expected, "{address} {network}/{prefix}");
        }
    }
}
