//! What rules are made of. Source: `include/uapi/linux/netfilter/nf_tables.h`, and nft(8) for
//! what each of them means.

use crate::netlink::message::{Attributes, Message};

const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = (-3_i32).cast_unsigned();
const NFT_GOTO: u32 = (-4_i32).cast_unsigned();
const NFT_RETURN: u32 = (-5_i32).cast_unsigned();

const NFT_NAT_DNAT: u32 = 1;
const NFPROTO_IPV4: u32 = 2;
const NFPROTO_IPV6: u32 = 10;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
const NFTA_FIB_F_DADDR: u32 = 2;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;

/// One of the sixteen 32-bit registers, 0 to 15; longer values take several in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u8);

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// Loads a property of the packet that is not in it.
    Meta {
        /// Which one.
        key: Meta,
        /// Where it goes.
        to: Register,
    },
    /// Loads a property of the packet's connection.
    Ct {
        /// Which one.
        key: Ct,
        /// Where it goes.
        to: Register,
    },
    /// Loads bytes of the packet.
    Payload {
        /// From where `offset` counts.
        base: PayloadBase,
        /// In bytes.
        offset: u32,
        /// In bytes.
        length: u32,
        /// Where they go.
        to: Register,
    },
    /// Loads the kind of the packet's destination address, as `RTN_*` of rtnetlink(7) in 32 bits:
    /// 2 is one of this machine's own.
    FibDestinationType {
        /// Where it goes.
        to: Register,
    },
    /// `(value & mask) ^ xor`.
    Bitwise {
        /// Where the value is.
        from: Register,
        /// Where the result goes.
        to: Register,
        /// As long as the value.
        mask: Vec<u8>,
        /// As long as the value.
        xor: Vec<u8>,
    },
    /// Ends the rule unless the comparison holds.
    Compare {
        /// Where the left side is.
        from: Register,
        /// How to compare.
        comparison: Comparison,
        /// The right side.
        data: Vec<u8>,
    },
    /// Loads bytes that are the same for every packet.
    Immediate {
        /// Where they go.
        to: Register,
        /// They.
        data: Vec<u8>,
    },
    /// Ends the rule unless the set holds the value; of a map, loads what it maps to.
    Lookup {
        /// The set's or map's name.
        set: String,
        /// Where the value is.
        from: Register,
        /// Where a map's answer goes.
        to: Option<Register>,
        /// End the rule if the set does hold it.
        inverted: bool,
    },
    /// Sends the connection to another address and port, and accepts.
    Dnat {
        /// Whether the address is one of IPv6.
        ipv6: bool,
        /// Where the address is.
        address: Register,
        /// Where the port is.
        port: Register,
    },
    /// Gives the connection the address of the link that it leaves through, with a random port
    /// if its own is taken, and accepts.
    Masquerade,
    /// Counts packets and bytes.
    Counter,
    /// Decides, or goes on elsewhere.
    Verdict(Verdict),
    /// Read only: a match of xtables, by its name.
    XtablesMatch(String),
    /// Read only: a target of xtables, by its name.
    XtablesTarget(String),
    /// Read only: an expression that is not decoded, by its name.
    Other(String),
}

/// See [`Expression::Verdict`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ends the base chain; those behind it see the packet.
    Accept,
    /// Ends the packet.
    Drop,
    /// Runs another chain and comes back.
    Jump(String),
    /// Runs another chain and does not come back.
    Goto(String),
    /// Goes back to the calling chain, or to the policy.
    Return,
}

/// See [`Expression::Meta`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meta {
    /// The number of the link that the packet came in through; 4 bytes.
    InputLink,
    /// The number of the link that it leaves through; 4 bytes.
    OutputLink,
    /// The name of the link that it came in through; 16 bytes, NUL-padded.
    InputName,
    /// The name of the link that it leaves through; 16 bytes, NUL-padded.
    OutputName,
    /// `NFPROTO_IPV4` (2) or `NFPROTO_IPV6` (10); 1 byte.
    NetworkProtocol,
    /// The number of the transport protocol; 1 byte.
    TransportProtocol,
}

/// See [`Expression::Ct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ct {
    /// A bit of `1 << IP_CT_*`, shifted as nft(8) shows it: invalid 1, established 2, related 4,
    /// new 8; 4 bytes.
    State,
    /// Bits of `IPS_*`, such as destination translated 32; 4 bytes.
    Status,
}

/// See [`Expression::Payload`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    /// The frame's header.
    Link,
    /// The IP header.
    Network,
    /// The header of TCP, UDP and their like.
    Transport,
}

/// See [`Expression::Compare`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same bytes.
    Equal,
    /// Other bytes.
    NotEqual,
    /// Less, as numbers in network order.
    Less,
    /// Less or the same.
    LessOrEqual,
    /// Greater.
    Greater,
    /// Greater or the same.
    GreaterOrEqual,
}

// === impl Expression ===

impl Expression {
    /// Writes this as one `NFTA_LIST_ELEM`. What can only be read is left out, since it is never
    /// complete.
    pub(super) fn write(&self, list: &mut Message, element: u16) {
        let name = match self {
            Self::Meta { .. } => "meta",
            Self::Ct { .. } => "ct",
            Self::Payload { .. } => "payload",
            Self::FibDestinationType { .. } => "fib",
            Self::Bitwise { .. } => "bitwise",
            Self::Compare { .. } => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Dnat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Counter => "counter",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::XtablesMatch(_) | Self::XtablesTarget(_) | Self::Other(_) => return,
        };
        list.nested(element, |expression| {
            expression.string(NFTA_EXPR_NAME, name);
            expression.nested(NFTA_EXPR_DATA, |data| self.write_data(data));
        });
    }

    fn write_data(&self, data: &mut Message) {
        match self {
            Self::Meta { key, to } => {
                data.be32(1, to.number());
                data.be32(2, key.number());
            }
            Self::Ct { key, to } => {
                data.be32(1, to.number());
                data.be32(2, key.number());
            }
            Self::Payload { base, offset, length, to } => {
                data.be32(1, to.number());
                data.be32(2, base.number());
                data.be32(3, *offset);
                data.be32(4, *length);
            }
            Self::FibDestinationType { to } => {
                data.be32(1, to.number());
                data.be32(2, NFT_FIB_RESULT_ADDRTYPE);
                data.be32(3, NFTA_FIB_F_DADDR);
            }
            Self::Bitwise { from, to, mask, xor } => {
                data.be32(1, from.number());
                data.be32(2, to.number());
                data.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                write_value(data, 4, mask);
                write_value(data, 5, xor);
            }
            Self::Compare { from, comparison, data: value } => {
                data.be32(1, from.number());
                data.be32(2, comparison.number());
                write_value(data, 3, value);
            }
            Self::Immediate { to, data: value } => {
                data.be32(1, to.number());
                write_value(data, 2, value);
            }
            Self::Lookup { set, from, to, inverted } => {
                data.string(1, set);
                data.be32(2, from.number());
                if let Some(to) = to {
                    data.be32(3, to.number());
                }
                if *inverted {
                    data.be32(5, NFT_LOOKUP_F_INV);
                }
            }
            Self::Dnat { ipv6, address, port } => {
                data.be32(1, NFT_NAT_DNAT);
                data.be32(2, if *ipv6 { NFPROTO_IPV6 } else { NFPROTO_IPV4 });
                data.be32(3, address.number());
                data.be32(5, port.number());
            }
            Self::Masquerade => data.be32(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY),
            Self::Counter => {
                data.be64(1, 0);
                data.be64(2, 0);
            }
            Self::Verdict(verdict) => {
                data.be32(1, 0);
                data.nested(2, |value| verdict.write(value));
            }
            Self::XtablesMatch(_) | Self::XtablesTarget(_) | Self::Other(_) => {}
        }
    }

    /// Reads one `NFTA_LIST_ELEM`.
    pub(super) fn read(element: Attributes<'_>) -> Self {
        let name = element.string(NFTA_EXPR_NAME).unwrap_or_default();
        let data = element.nested(NFTA_EXPR_DATA);
        match name.as_str() {
            "match" => Self::XtablesMatch(data.string(1).unwrap_or_default()),
            "target" => Self::XtablesTarget(data.string(1).unwrap_or_default()),
            _ => Self::read_known(&name, data).unwrap_or(Self::Other(name)),
        }
    }

    fn read_known(name: &str, data: Attributes<'_>) -> Option<Self> {
        let register = |attribute| data.be32(attribute).and_then(Register::from_number);
        Some(match name {
            "meta" => Self::Meta { to: register(1)?, key: Meta::from_number(data.be32(2)?)? },
            "ct" => Self::Ct { to: register(1)?, key: Ct::from_number(data.be32(2)?)? },
            "payload" => Self::Payload {
                to: register(1)?,
                base: PayloadBase::from_number(data.be32(2)?)?,
                offset: data.be32(3)?,
                length: data.be32(4)?,
            },
            "fib"
                if data.be32(2) == Some(NFT_FIB_RESULT_ADDRTYPE)
                    && data.be32(3) == Some(NFTA_FIB_F_DADDR) =>
            {
                Self::FibDestinationType { to: register(1)? }
            }
            // A shift has no mask.
            "bitwise" => Self::Bitwise {
                from: register(1)?,
                to: register(2)?,
                mask: data.nested(4).get(NFTA_DATA_VALUE)?.to_vec(),
                xor: data.nested(5).get(NFTA_DATA_VALUE)?.to_vec(),
            },
            "cmp" => Self::Compare {
                from: register(1)?,
                comparison: Comparison::from_number(data.be32(2)?)?,
                data: data.nested(3).get(NFTA_DATA_VALUE)?.to_vec(),
            },
            "lookup" => Self::Lookup {
                set: data.string(1)?,
                from: register(2)?,
                to: register(3),
                inverted: data.be32(5).is_some_and(|flags| flags & NFT_LOOKUP_F_INV != 0),
            },
            "nat" if data.be32(1) == Some(NFT_NAT_DNAT) => Self::Dnat {
                ipv6: match data.be32(2)? {
                    NFPROTO_IPV4 => false,
                    NFPROTO_IPV6 => true,
                    _ => return None,
                },
                address: register(3)?,
                port: register(5)?,
            },
            "masq" if data.be32(1) == Some(NF_NAT_RANGE_PROTO_RANDOM_FULLY) => Self::Masquerade,
            "counter" => Self::Counter,
            "immediate" => match data.nested(2).get(NFTA_DATA_VALUE) {
                Some(value) => Self::Immediate { to: register(1)?, data: value.to_vec() },
                None => Self::Verdict(Verdict::read(data.nested(2).nested(NFTA_DATA_VERDICT))?),
            },
            _ => return None,
        })
    }
}

fn write_value(message: &mut Message, attribute: u16, value: &[u8]) {
    message.nested(attribute, |data| data.attribute(NFTA_DATA_VALUE, value));
}

// === impl Verdict ===

impl Verdict {
    fn write(&self, data: &mut Message) {
        let (code, chain) = match self {
            Self::Accept => (NF_ACCEPT, None),
            Self::Drop => (NF_DROP, None),
            Self::Jump(chain) => (NFT_JUMP, Some(chain)),
            Self::Goto(chain) => (NFT_GOTO, Some(chain)),
            Self::Return => (NFT_RETURN, None),
        };
        data.nested(NFTA_DATA_VERDICT, |verdict| {
            verdict.be32(NFTA_VERDICT_CODE, code);
            if let Some(chain) = chain {
                verdict.string(NFTA_VERDICT_CHAIN, chain);
            }
        });
    }

    fn read(verdict: Attributes<'_>) -> Option<Self> {
        let chain = verdict.string(NFTA_VERDICT_CHAIN);
        Some(match verdict.be32(NFTA_VERDICT_CODE)? {
            NF_ACCEPT => Self::Accept,
            NF_DROP => Self::Drop,
            NFT_JUMP => Self::Jump(chain?),
            NFT_GOTO => Self::Goto(chain?),
            NFT_RETURN => Self::Return,
            _ => return None,
        })
    }
}

// === impl Register, Meta, Ct, PayloadBase, Comparison ===

impl Register {
    /// `NFT_REG32_00` and up.
    fn number(self) -> u32 {
        8 + u32::from(self.0)
    }

    /// The kernel names a register in its older, 128-bit form (1 to 4) where it can.
    fn from_number(number: u32) -> Option<Self> {
        let first = match number {
            1..=4 => (number - 1) * 4,
            8..=23 => number - 8,
            _ => return None,
        };
        u8::try_from(first).ok().map(Self)
    }
}

/// Numbers of an enum of the kernel's, in both directions.
macro_rules! numbers {
    ($name:ident { $($variant:ident = $number:literal),+ $(,)? }) => {
        impl $name {
            fn number(self) -> u32 {
                match self { $(Self::$variant => $number),+ }
            }

            fn from_number(number: u32) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

numbers!(Meta {
    InputLink = 4,
    OutputLink = 5,
    InputName = 6,
    OutputName = 7,
    NetworkProtocol = 15,
    TransportProtocol = 16,
});
numbers!(Ct { State = 0, Status = 2 });
numbers!(PayloadBase { Link = 0, Network = 1, Transport = 2 });
numbers!(Comparison {
    Equal = 0,
    NotEqual = 1,
    Less = 2,
    LessOrEqual = 3,
    Greater = 4,
    GreaterOrEqual = 5,
});
