//! Which pods are where: the ranges of addresses that nodes have, as an API knows them.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// What the API says of a node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The ranges of its pods, `spec.podCIDRs`.
    pub ranges: Vec<String>,
    /// Its own addresses, those of type `InternalIP`.
    pub addresses: Vec<IpAddr>,
}

/// What a node has to know of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCluster {
    /// The ranges that were given to it, such as `10.201.7.0/24`.
    pub ranges: Vec<String>,
    /// The others, once for each of their ranges that there is a way to.
    pub peers: Vec<PeerNode>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerNode {
    /// Its name.
    pub name: String,
    /// A range of its pods.
    pub range: String,
    /// Where it is reached, with an address of the same kind.
    pub address: IpAddr,
}

/// What the node `own` has to know, given all nodes by their names. Of a node without an address of a
/// kind nobody can reach pods by addresses of that kind.
pub fn cluster(own: &str, nodes: &BTreeMap<String, NodeNetwork>) -> PodCluster {
    let peers = nodes.iter().filter(|(name, _)| *name != own).flat_map(|(name, node)| {
        node.ranges.iter().filter_map(move |range| {
            let is_ipv6 = range.contains(':');
            let address = node.addresses.iter().find(|address| address.is_ipv6() == is_ipv6)?;
            Some(PeerNode { name: name.clone(), range: range.clone(), address: *address })
        })
    });
    let ranges = nodes.get(own).map(|node| node.ranges.clone()).unwrap_or_default();
    PodCluster { ranges, peers: peers.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(ranges: &[&str], addresses: &[&str]) -> NodeNetwork {
        NodeNetwork {
            ranges: ranges.iter().map(|it| (*it).to_owned()).collect(),
            addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn a_node_knows_those_that_have_a_range_and_an_address() {
        let nodes = [
            ("n1", node(&["10.1.0.0/24"], &["192.0.2.1"])),
            ("n2", node(&["fd00::/64", "10.2.0.0/24"], &["fd01::2", "192.0.2.2"])),
            ("n3", node(&[], &["192.0.2.3"])),
            ("n4", node(&["10.4.0.0/24"], &["fd01::4"])),
        ];
        let nodes: BTreeMap<String, NodeNetwork> =
            nodes.into_iter().map(|(name, node)| (name.to_owned(), node)).collect();
        let peer = |name: &str, range: &str, address: &str| PeerNode {
            name: name.into(),
            range: range.into(),
            address: address.parse().unwrap(),
        };
        let first = peer("n1", "10.1.0.0/24", "192.0.2.1");
        let second = [peer("n2", "fd00::/64", "fd01::2"), peer("n2", "10.2.0.0/24", "192.0.2.2")];
        let of = |own: &str| cluster(own, &nodes);
        let expected =
            PodCluster { ranges: vec!["10.1.0.0/24".into()], peers: second.clone().into() };
        assert_eq!(of("n1"), expected);
        let peers = [&[first][..], &second].concat();
        assert_eq!(of("n3"), PodCluster { ranges: vec![], peers });
        assert_eq!(cluster("n1", &BTreeMap::new()), PodCluster::default());
    }
}
