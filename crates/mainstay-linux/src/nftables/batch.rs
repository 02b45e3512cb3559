//! Changes that are made together or not at all.

use super::{
    BaseChain, Chain, Element, Expression, Family, Map, NFT_MSG_DELRULE, NFT_MSG_DELSETELEM,
    NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET, NFT_MSG_NEWSETELEM,
    NFT_MSG_NEWTABLE, Policy, nfgenmsg,
};
use crate::netlink::Error;
use crate::netlink::message::{Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, messages};
use crate::netlink::socket::{Socket, refusal};

const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NLMSG_ERROR: u16 = 2;
/// Of a message that begins or ends a batch: no family, and as resource the subsystem (10) in
/// network order.
const BATCH: [u8; 4] = [0, 0, 0, 10];

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
pub(super) const NFTA_RULE_TABLE: u16 = 1;
pub(super) const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_HANDLE: u16 = 3;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_RULE_USERDATA: u16 = 7;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
pub(super) const NFTA_SET_ELEM_LIST_SET: u16 = 2;
pub(super) const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;

/// The type of a comment in a rule's user data. Source: libnftnl's `udata.h`.
pub(super) const UDATA_COMMENT: u8 = 0;
const COMMENT_LENGTH: usize = 128;

/// Elements per message: a list of them must stay below 64 KiB.
const ELEMENTS: usize = 512;

/// Changes to one or several tables, in order.
#[derive(Debug, Default)]
pub struct Batch {
    changes: Vec<(Message, String)>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds all changes of another batch behind these.
    pub fn append(&mut self, other: Self) {
        self.changes.extend(other.changes);
    }

    /// Adds a table, unless it is there already.
    pub fn add_table(&mut self, family: Family, table: &str) {
        let mut message = Message::new(NFT_MSG_NEWTABLE, NLM_F_CREATE, &nfgenmsg(family.number()));
        message.string(NFTA_TABLE_NAME, table);
        self.push(message, format!("add table {family} {table}"));
    }

    /// Deletes a table and everything in it.
    pub fn delete_table(&mut self, family: Family, table: &str) {
        let mut message = Message::new(NFT_MSG_DELTABLE, 0, &nfgenmsg(family.number()));
        message.string(NFTA_TABLE_NAME, table);
        self.push(message, format!("delete table {family} {table}"));
    }

    /// Adds a chain, unless it is there already.
    pub fn add_chain(&mut self, chain: &Chain) {
        let family = chain.family;
        let mut message = Message::new(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &nfgenmsg(family.number()));
        message.string(NFTA_CHAIN_TABLE, &chain.table);
        message.string(NFTA_CHAIN_NAME, &chain.name);
        if let Some(BaseChain { kind, hook, priority, policy }) = chain.base {
            message.nested(NFTA_CHAIN_HOOK, |message| {
                message.be32(NFTA_HOOK_HOOKNUM, hook.number());
                message.be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned());
            });
            let policy = match policy {
                Policy::Drop => 0,
                Policy::Accept => 1,
            };
            message.be32(NFTA_CHAIN_POLICY, policy);
            message.string(NFTA_CHAIN_TYPE, kind.name());
        }
        self.push(message, format!("add chain {family} {} {}", chain.table, chain.name));
    }

    /// Adds a rule at the end of a chain.
    pub fn append_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        let message = rule(NLM_F_APPEND, family, (table, chain), expressions, comment);
        self.push(message, format!("append a rule to {family} {table} {chain}"));
    }

    /// Adds a rule at the beginning of a chain.
    pub fn insert_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        expressions: &[Expression],
        comment: &str,
    ) {
        let message = rule(0, family, (table, chain), expressions, comment);
        self.push(message, format!("insert a rule into {family} {table} {chain}"));
    }

    /// Deletes the rule with that handle.
    pub fn delete_rule(&mut self, family: Family, table: &str, chain: &str, handle: u64) {
        let mut message = Message::new(NFT_MSG_DELRULE, 0, &nfgenmsg(family.number()));
        message.string(NFTA_RULE_TABLE, table);
        message.string(NFTA_RULE_CHAIN, chain);
        message.be64(NFTA_RULE_HANDLE, handle);
        self.push(message, format!("delete rule {handle} of {family} {table} {chain}"));
    }

    /// Adds a map, unless it is there already.
    pub fn add_map(&mut self, family: Family, table: &str, map: Map<'_>) {
        let mut message = Message::new(NFT_MSG_NEWSET, NLM_F_CREATE, &nfgenmsg(family.number()));
        let id = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        map.write(&mut message, table, id);
        self.push(message, format!("add map {family} {table} {}", map.name));
    }

    /// Adds elements to a map; those that are there already do no harm, but one whose key maps to
    /// something else makes the batch fail.
    pub fn add_elements(&mut self, family: Family, table: &str, map: &str, elements: &[Element]) {
        for elements in elements.chunks(ELEMENTS) {
            let message =
                element_list(NFT_MSG_NEWSETELEM, NLM_F_CREATE, family, (table, map), elements);
            self.push(message, format!("add elements to map {family} {table} {map}"));
        }
    }

    /// Deletes elements of a map, by their keys; one that is not there makes the batch fail.
    pub fn delete_elements(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
        elements: &[Element],
    ) {
        for elements in elements.chunks(ELEMENTS) {
            let message = element_list(NFT_MSG_DELSETELEM, 0, family, (table, map), elements);
            self.push(message, format!("delete elements of map {family} {table} {map}"));
        }
    }

    fn push(&mut self, message: Message, operation: String) {
        self.changes.push((message, operation));
    }

    /// Sends everything and reads the kernel's word on it.
    ///
    /// Only the last change asks to be acknowledged: the kernel reports every change that it
    /// refuses, in order, and then that one. A batch that it does not even look at, or whose
    /// commit fails, is answered with an error on its first message. Source:
    /// `net/netfilter/nfnetlink.c`, `nfnetlink_rcv_batch`.
    pub(super) fn commit(self, socket: &mut Socket) -> Result<(), Error> {
        let Some(last) = self.changes.len().checked_sub(1) else {
            return Ok(());
        };
        let begin = socket.next_sequence();
        let batch = "begin a batch of nf_tables";
        let mut bytes = Message::new(NFNL_MSG_BATCH_BEGIN, 0, &BATCH).finish(begin, batch)?;
        let mut operations = vec![(begin, batch.to_owned())];
        for (number, (mut message, operation)) in self.changes.into_iter().enumerate() {
            if number == last {
                message.add_flags(NLM_F_ACK);
            }
            let sequence = socket.next_sequence();
            bytes.extend(message.finish(sequence, &operation)?);
            operations.push((sequence, operation));
        }
        let end = socket.next_sequence();
        bytes.extend(Message::new(NFNL_MSG_BATCH_END, 0, &BATCH).finish(end, batch)?);
        socket.send(&bytes, batch)?;

        let last = operations[last + 1].clone();
        let mut failure = None;
        loop {
            let datagram = match socket.receive(&last.1) {
                Ok(datagram) => datagram,
                // All that there was has been read, and the last change was not among it.
                Err(Error::NoAnswer { .. }) if failure.is_some() => break,
                Err(error) => return Err(error),
            };
            for answer in messages(&datagram).filter(|answer| answer.kind == NLMSG_ERROR) {
                let known = operations.iter().find(|(sequence, _)| *sequence == answer.sequence);
                let Some((sequence, operation)) = known else { continue };
                // The first refusal is the cause; what follows it often only follows from it.
                failure = failure.or_else(|| refusal(answer, operation));
                if *sequence == last.0 {
                    return failure.map_or(Ok(()), Err);
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn rule(
    flags: u16,
    family: Family,
    (table, chain): (&str, &str),
    expressions: &[Expression],
    comment: &str,
) -> Message {
    let flags = flags | NLM_F_CREATE;
    let mut message = Message::new(NFT_MSG_NEWRULE, flags, &nfgenmsg(family.number()));
    message.string(NFTA_RULE_TABLE, table);
    message.string(NFTA_RULE_CHAIN, chain);
    message.nested(NFTA_RULE_EXPRESSIONS, |list| {
        for expression in expressions {
            expression.write(list, NFTA_LIST_ELEM);
        }
    });
    if !comment.is_empty() {
        let text = &comment.as_bytes()[..comment.floor_char_boundary(COMMENT_LENGTH - 1)];
        let length = u8::try_from(text.len() + 1).expect("cut to less than 128 above");
        let mut data = vec![UDATA_COMMENT, length];
        data.extend_from_slice(text);
        data.push(0);
        message.attribute(NFTA_RULE_USERDATA, &data);
    }
    message
}

fn element_list(
    kind: u16,
    flags: u16,
    family: Family,
    (table, map): (&str, &str),
    elements: &[Element],
) -> Message {
    let mut message = Message::new(kind, flags, &nfgenmsg(family.number()));
    message.string(NFTA_SET_ELEM_LIST_TABLE, table);
    message.string(NFTA_SET_ELEM_LIST_SET, map);
    message.nested(NFTA_SET_ELEM_LIST_ELEMENTS, |list| {
        for element in elements {
            element.write(list, NFTA_LIST_ELEM, kind == NFT_MSG_NEWSETELEM);
        }
    });
    message
}
