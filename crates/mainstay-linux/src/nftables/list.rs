//! Reading what is there.

use super::batch::{
    NFTA_LIST_ELEM, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_RULE_HANDLE, NFTA_RULE_TABLE,
    NFTA_RULE_USERDATA, NFTA_SET_ELEM_LIST_ELEMENTS, NFTA_SET_ELEM_LIST_SET,
    NFTA_SET_ELEM_LIST_TABLE, UDATA_COMMENT,
};
use super::{
    BaseChain, Batch, Chain, ChainKind, Element, Expression, Family, Hook, NFGENMSG,
    NFT_MSG_GETCHAIN, NFT_MSG_GETGEN, NFT_MSG_GETRULE, NFT_MSG_GETSETELEM, NFT_MSG_GETTABLE,
    NFT_MSG_NEWCHAIN, NFT_MSG_NEWGEN, NFT_MSG_NEWRULE, NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE,
    Policy, Rule, Table, nfgenmsg,
};
use crate::netlink::Error;
use crate::netlink::message::{Attributes, Message, Received};
use crate::netlink::socket::{ACKNOWLEDGED, LIST, Socket};

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFT_TABLE_F_DORMANT: u32 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_GEN_ID: u16 = 1;

/// A socket for the tables of one network namespace.
#[derive(Debug)]
pub struct NftablesSocket(Socket);

impl NftablesSocket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open() -> Result<Self, Error> {
        Socket::open_netfilter("nf_tables").map(Self)
    }

    /// Makes all changes of a batch, or none of them.
    ///
    /// # Errors
    ///
    /// The first change that the kernel refused; [`Error::is_not_found`] and [`Error::is_exists`]
    /// tell what usually is the reason.
    pub fn commit(&mut self, batch: Batch) -> Result<(), Error> {
        batch.commit(&mut self.0)
    }

    /// A number that changes with every batch that anybody commits.
    pub fn generation(&mut self) -> Result<u32, Error> {
        let message = Message::new(NFT_MSG_GETGEN, ACKNOWLEDGED, &nfgenmsg(0));
        let operation = "read the generation of nf_tables";
        let mut generation = None;
        self.0.get(message, operation, |answer| {
            if answer.kind == NFT_MSG_NEWGEN {
                generation = Attributes::after(answer.body, NFGENMSG).be32(NFTA_GEN_ID);
            }
        })?;
        generation.ok_or_else(|| Error::NoAnswer { operation: operation.into() })
    }

    /// All tables of all families.
    pub fn tables(&mut self) -> Result<Vec<Table>, Error> {
        let message = Message::new(NFT_MSG_GETTABLE, LIST, &nfgenmsg(0));
        self.0.dump(&message, "list the tables", |entry| {
            let (family, attributes) = object(entry, NFT_MSG_NEWTABLE)?;
            let flags = attributes.be32(NFTA_TABLE_FLAGS).unwrap_or_default();
            let name = attributes.string(NFTA_TABLE_NAME)?;
            Some(Table { family, name, dormant: flags & NFT_TABLE_F_DORMANT != 0 })
        })
    }

    /// All chains of all tables of all families.
    pub fn chains(&mut self) -> Result<Vec<Chain>, Error> {
        let message = Message::new(NFT_MSG_GETCHAIN, LIST, &nfgenmsg(0));
        self.0.dump(&message, "list the chains", |entry| {
            let (family, attributes) = object(entry, NFT_MSG_NEWCHAIN)?;
            Some(Chain {
                family,
                table: attributes.string(NFTA_CHAIN_TABLE)?,
                name: attributes.string(NFTA_CHAIN_NAME)?,
                base: base_chain(attributes),
            })
        })
    }

    /// All rules of a table, chain by chain in their order; none if there is no such table.
    pub fn rules(&mut self, family: Family, table: &str) -> Result<Vec<Rule>, Error> {
        let mut message = Message::new(NFT_MSG_GETRULE, LIST, &nfgenmsg(family.number()));
        message.string(NFTA_RULE_TABLE, table);
        let operation = format!("list the rules of table {family} {table}");
        self.0.dump(&message, &operation, |entry| {
            let (_, attributes) = object(entry, NFT_MSG_NEWRULE)?;
            if attributes.string(NFTA_RULE_TABLE)? != table {
                return None;
            }
            let expressions = attributes.nested(NFTA_RULE_EXPRESSIONS);
            Some(Rule {
                chain: attributes.string(NFTA_RULE_CHAIN)?,
                handle: attributes.be64(NFTA_RULE_HANDLE)?,
                expressions: expressions
                    .filter(|(number, _)| *number == NFTA_LIST_ELEM)
                    .map(|(_, element)| Expression::read(Attributes::new(element)))
                    .collect(),
                comment: comment(attributes.get(NFTA_RULE_USERDATA).unwrap_or_default()),
            })
        })
    }

    /// All elements of a map, in order.
    ///
    /// While the kernel makes a large map larger or smaller, which it does in the background, a list
    /// in several parts may have elements twice, which is mended here, and may lack some.
    /// Source: `nft_rhash_walk` in `net/netfilter/nft_set_hash.c`.
    ///
    /// # Errors
    ///
    /// [`Error::is_not_found`] when there is no such map.
    pub fn elements(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
    ) -> Result<Vec<Element>, Error> {
        let mut message = Message::new(NFT_MSG_GETSETELEM, LIST, &nfgenmsg(family.number()));
        message.string(NFTA_SET_ELEM_LIST_TABLE, table);
        message.string(NFTA_SET_ELEM_LIST_SET, map);
        let operation = format!("list the elements of map {family} {table} {map}");
        let lists = self.0.dump(&message, &operation, |entry| {
            let (_, attributes) = object(entry, NFT_MSG_NEWSETELEM)?;
            let elements = attributes.nested(NFTA_SET_ELEM_LIST_ELEMENTS);
            Some(
                elements
                    .filter_map(|(_, element)| Element::read(Attributes::new(element)))
                    .collect::<Vec<_>>(),
            )
        })?;
        let mut elements: Vec<Element> = lists.into_iter().flatten().collect();
        elements.sort();
        elements.dedup();
        Ok(elements)
    }
}

fn object(entry: Received<'_>, kind: u16) -> Option<(Family, Attributes<'_>)> {
    if entry.kind != kind {
        return None;
    }
    let family = Family::from_number(*entry.body.first()?)?;
    Some((family, Attributes::after(entry.body, NFGENMSG)))
}

fn base_chain(attributes: Attributes<'_>) -> Option<BaseChain> {
    let hook = attributes.nested(NFTA_CHAIN_HOOK);
    Some(BaseChain {
        kind: ChainKind::from_name(&attributes.string(NFTA_CHAIN_TYPE)?)?,
        hook: Hook::from_number(hook.be32(NFTA_HOOK_HOOKNUM)?),
        priority: hook.be32(NFTA_HOOK_PRIORITY)?.cast_signed(),
        policy: match attributes.be32(NFTA_CHAIN_POLICY) {
            Some(0) => Policy::Drop,
            _ => Policy::Accept,
        },
    })
}

/// The comment in a rule's user data, which is a list of type, length and value.
fn comment(mut data: &[u8]) -> String {
    while let [kind, length, rest @ ..] = data {
        let Some((value, next)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == UDATA_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8_lossy(text).into_owned();
        }
        data = next;
    }
    String::new()
}
