//! One commit as a row of the log.
//!
//! A row is a sequence of records: a kind in one byte, then what belongs to it. Lengths are four bytes,
//! numbers eight, the smallest first.

use std::sync::Arc;

use bytes::Bytes;

use crate::view::commit::Commit;
use crate::{KEY_MAX, Revision, VALUE_MAX};

const DELETE: u8 = 0;
const PUT: u8 = 1;
const LOSS: u8 = 2;

/// What a row says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Record {
    Put(Arc<str>, Bytes),
    Delete(Arc<str>),
    /// Revisions after this one, up to the row's, were lost.
    Loss(Revision),
}

pub(super) fn encode(commit: &Commit) -> Vec<u8> {
    let mut row = Vec::with_capacity(commit.size);
    if let Some(Revision(after)) = commit.lost_after {
        row.push(LOSS);
        row.extend(after.to_le_bytes());
    }
    for event in &*commit.events {
        row.push(if event.value.is_some() { PUT } else { DELETE });
        put(&mut row, event.key.as_bytes());
        if let Some(value) = &event.value {
            put(&mut row, value);
        }
    }
    row
}

/// Reads a row; `None` if it is not one.
pub(super) fn decode(mut row: &[u8]) -> Option<Vec<Record>> {
    let mut records = Vec::new();
    while let Some((kind, rest)) = row.split_first() {
        row = rest;
        records.push(match *kind {
            PUT => {
                let key = key(&mut row)?;
                Record::Put(key, Bytes::copy_from_slice(take(&mut row, VALUE_MAX)?))
            }
            DELETE => Record::Delete(key(&mut row)?),
            LOSS => {
                let (after, rest) = row.split_first_chunk()?;
                row = rest;
                Record::Loss(Revision(u64::from_le_bytes(*after)))
            }
            _ => return None,
        });
    }
    Some(records)
}

fn put(row: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("keys and values are short, as decided");
    row.extend(length.to_le_bytes());
    row.extend(bytes);
}

fn take<'a>(row: &mut &'a [u8], most: usize) -> Option<&'a [u8]> {
    let (length, rest) = row.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > most {
        return None;
    }
    let (bytes, rest) = rest.split_at_checked(length)?;
    *row = rest;
    Some(bytes)
}

fn key(row: &mut &[u8]) -> Option<Arc<str>> {
    std::str::from_utf8(take(row, KEY_MAX)?).ok().map(Into::into)
}
