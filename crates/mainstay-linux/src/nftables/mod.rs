//! The packet filter nf_tables, over nfnetlink and without the `nft` program.
//!
//! [`Batch`] collects changes and [`NftablesSocket::commit`] makes all of them or none;
//! [`NftablesSocket`] also lists what is there, down to the expressions of rules. Only what is
//! needed is written; everything is at least named when it is read, because other programs'
//! rules are read too.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`; the words are those of nft(8).
//!
//! # Kernels
//!
//! | what | since |
//! | --- | --- |
//! | `fib` | 4.10 |
//! | address translation beside xtables' own | 4.18 |
//! | base chains of type `nat` in tables of family `inet` | 5.2 |
//!
//! Everything else here is older. As modules: `nf_tables`, `nft_chain_nat`, `nft_nat`,
//! `nft_masq`, `nft_fib_inet`, `nft_ct`; the kernel loads them on demand.

mod batch;
mod chain;
mod expression;
mod list;
mod map;
#[cfg(test)]
pub(crate) mod tests;
mod xtables;

pub use batch::Batch;
pub use chain::{BaseChain, Chain, ChainKind, Family, Hook, Policy, Rule, Table, priority};
pub use expression::{Comparison, Ct, Expression, Meta, PayloadBase, Register, Verdict};
pub use list::NftablesSocket;
pub use map::{DataType, Element, Map};
pub use xtables::{LegacyForward, legacy_forward};

/// `NFNL_SUBSYS_NFTABLES`, the upper byte of every message type.
const SUBSYSTEM: u16 = 10 << 8;

const NFT_MSG_NEWTABLE: u16 = SUBSYSTEM;
const NFT_MSG_GETTABLE: u16 = SUBSYSTEM | 1;
const NFT_MSG_DELTABLE: u16 = SUBSYSTEM | 2;
const NFT_MSG_NEWCHAIN: u16 = SUBSYSTEM | 3;
const NFT_MSG_GETCHAIN: u16 = SUBSYSTEM | 4;
const NFT_MSG_NEWRULE: u16 = SUBSYSTEM | 6;
const NFT_MSG_GETRULE: u16 = SUBSYSTEM | 7;
const NFT_MSG_DELRULE: u16 = SUBSYSTEM | 8;
const NFT_MSG_NEWSET: u16 = SUBSYSTEM | 9;
const NFT_MSG_NEWSETELEM: u16 = SUBSYSTEM | 12;
const NFT_MSG_GETSETELEM: u16 = SUBSYSTEM | 13;
const NFT_MSG_DELSETELEM: u16 = SUBSYSTEM | 14;
const NFT_MSG_NEWGEN: u16 = SUBSYSTEM | 15;
const NFT_MSG_GETGEN: u16 = SUBSYSTEM | 16;

/// `struct nfgenmsg`: family, version, and a resource number that only batches use.
const NFGENMSG: usize = 4;

fn nfgenmsg(family: u8) -> [u8; NFGENMSG] {
    [family, 0, 0, 0]
}
