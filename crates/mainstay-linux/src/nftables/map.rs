//! Maps from one concatenation of values to another.

use crate::netlink::message::{Attributes, Message, align};

const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_ID: u16 = 10;
const NFT_SET_MAP: u32 = 0x8;

const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;

/// A map to be made. Both sides are concatenations, of one or more fields.
#[derive(Clone, Copy, Debug)]
pub struct Map<'a> {
    /// Its name.
    pub name: &'a str,
    /// The fields that are looked up.
    pub key: &'a [DataType],
    /// The fields that are found.
    pub data: &'a [DataType],
}

/// The type of a field. Source: nft(8), "Data types".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// `ipv4_addr`: four bytes.
    Ipv4Address,
    /// `ipv6_addr`: sixteen bytes.
    Ipv6Address,
    /// `inet_proto`: one byte.
    TransportProtocol,
    /// `inet_service`: two bytes in network order.
    Port,
}

/// One entry of a [`Map`]. In a concatenation each field is padded to four bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    /// What is looked up.
    pub key: Vec<u8>,
    /// What is found.
    pub data: Vec<u8>,
}

// === impl DataType ===

impl DataType {
    /// The number by which `nft` knows how to show it; the kernel only keeps it.
    /// Source: nftables' `include/datatype.h`.
    fn number(self) -> u32 {
        match self {
            Self::Ipv4Address => 7,
            Self::Ipv6Address => 8,
            Self::TransportProtocol => 12,
            Self::Port => 13,
        }
    }

    /// In a concatenation, where every field is padded to four bytes.
    fn length(self) -> u32 {
        match self {
            Self::Ipv6Address => 16,
            Self::Ipv4Address | Self::TransportProtocol | Self::Port => 4,
        }
    }

    fn concatenation(fields: &[Self]) -> u32 {
        fields.iter().fold(0, |number, field| number << 6 | field.number())
    }
}

// === impl Element ===

impl Element {
    /// An entry of these fields.
    pub fn new(key: &[&[u8]], data: &[&[u8]]) -> Self {
        Self { key: concatenate(key), data: concatenate(data) }
    }

    pub(super) fn write(&self, list: &mut Message, number: u16, with_data: bool) {
        list.nested(number, |element| {
            element.nested(NFTA_SET_ELEM_KEY, |key| key.attribute(NFTA_DATA_VALUE, &self.key));
            if with_data {
                element
                    .nested(NFTA_SET_ELEM_DATA, |data| data.attribute(NFTA_DATA_VALUE, &self.data));
            }
        });
    }

    pub(super) fn read(element: Attributes<'_>) -> Option<Self> {
        let value = |attribute| element.nested(attribute).get(NFTA_DATA_VALUE).map(<[u8]>::to_vec);
        Some(Self { key: value(NFTA_SET_ELEM_KEY)?, data: value(NFTA_SET_ELEM_DATA)? })
    }
}

fn concatenate(fields: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in fields {
        bytes.extend_from_slice(field);
        bytes.resize(align(bytes.len()), 0);
    }
    bytes
}

// === impl Map ===

impl Map<'_> {
    /// `id` names the map among the new ones of a batch.
    pub(super) fn write(&self, message: &mut Message, table: &str, id: u32) {
        let length = |fields: &[DataType]| fields.iter().map(|field| field.length()).sum();
        message.string(NFTA_SET_TABLE, table);
        message.string(NFTA_SET_NAME, self.name);
        message.be32(NFTA_SET_FLAGS, NFT_SET_MAP);
        message.be32(NFTA_SET_KEY_TYPE, DataType::concatenation(self.key));
        message.be32(NFTA_SET_KEY_LEN, length(self.key));
        message.be32(NFTA_SET_DATA_TYPE, DataType::concatenation(self.data));
        message.be32(NFTA_SET_DATA_LEN, length(self.data));
        message.be32(NFTA_SET_ID, id);
    }
}
