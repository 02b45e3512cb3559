//! What becomes of a question: the one decision of all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::message::{INTERNET, Record, Response, kind};
use super::{Malformed, Name, Names, Question, code, failure};

/// How a question came, and its answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// In one datagram.
    Udp,
    /// On a connection.
    Tcp,
}

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing.
    Drop,
    /// This is sent back.
    Answer(Vec<u8>),
    /// The machine's own servers are asked.
    Forward,
}

/// What a name that ends in these has before them is an address, backwards. Source: RFC 1035, section 3.5, and
/// RFC 3596, section 2.5.
const REVERSE: [(&str, usize); 2] = [("in-addr.arpa", 4), ("ip6.arpa", 32)];

/// Decides about what `source` has sent.
pub fn answer(names: &Names, packet: &[u8], source: IpAddr, transport: Transport) -> Decision {
    if !names.is_ours(source) {
        return Decision::Drop;
    }
    let question = match Question::read(packet) {
        Ok(question) => question,
        Err(Malformed::Silent) => return Decision::Drop,
        Err(Malformed::Told(response)) => return Decision::Answer(response),
    };
    let Some(found) = look_up(names, &question) else { return Decision::Forward };
    if question.class != INTERNET && question.class != kind::ANY {
        return Decision::Answer(failure(&question, code::REFUSED));
    }
    if question.edns.is_some_and(|edns| edns.version > 0) {
        return Decision::Answer(failure(&question, code::BAD_VERSION));
    }
    let longest = match transport {
        Transport::Udp => question.longest_datagram(),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let response = Response {
        code: if found.exists { code::NO_ERROR } else { code::NO_SUCH_NAME },
        records: &found.records,
        authority: found.records.is_empty().then_some(&found.zone),
    };
    Decision::Answer(question.respond(&response, longest))
}

/// What is known of a name that is ours.
struct Found {
    /// What is in charge of it.
    zone: Name,
    /// Whether there is such a name, with whatever records.
    exists: bool,
    /// Those that were asked for.
    records: Vec<Record>,
}

/// Looks a name up; `None` if it is not ours.
fn look_up(names: &Names, question: &Question<'_>) -> Option<Found> {
    let zone = names.domain().clone();
    if question.name.is_within(&zone) {
        let known = names.addresses(&question.name);
        let mut records: Vec<_> = known
            .unwrap_or_default()
            .iter()
            .filter(|address| match question.kind {
                kind::A => address.is_ipv4(),
                kind::AAAA => address.is_ipv6(),
                kind::ANY => true,
                _ => false,
            })
            .map(|address| Record::Address(*address))
            .collect();
        // Several share a name in turns.
        let turn = usize::from(question.id).checked_rem(records.len()).unwrap_or(0);
        records.rotate_left(turn);
        if question.kind == kind::SOA && question.name == zone {
            records.push(Record::Authority(zone.clone()));
        }
        return Some(Found { zone, exists: known.is_some(), records });
    }
    let (address, zone) = reverse(&question.name)?;
    if !names.is_ours(address) {
        return None;
    }
    let known = names.name(address);
    let asked = matches!(question.kind, kind::PTR | kind::ANY);
    let records = known.filter(|_| asked).map(|name| Record::Pointer(name.clone()));
    Some(Found { zone, exists: known.is_some(), records: records.into_iter().collect() })
}

/// The address that a name stands for, and what all such names end in.
fn reverse(name: &Name) -> Option<(IpAddr, Name)> {
    let found = REVERSE.iter().find_map(|(end, length)| {
        let end = Name::of(end)?;
        name.is_within(&end).then_some((end, *length))
    });
    let (end, length) = found?;
    let labels: Vec<&[u8]> = name.labels().collect();
    let backwards = labels.get(..labels.len().checked_sub(2)?)?;
    if backwards.len() != length {
        return None;
    }
    let texts = backwards.iter().rev().map(|label| std::str::from_utf8(label).ok());
    let texts = texts.collect::<Option<Vec<_>>>()?;
    let address = match length {
        4 => texts.join(".").parse::<Ipv4Addr>().ok()?.into(),
        _ => {
            let mut bits = 0u128;
            for text in texts {
                let digit = text.chars().next().filter(|_| text.len() == 1)?;
                bits = bits << 4 | u128::from(digit.to_digit(16)?);
            }
            Ipv6Addr::from_bits(bits).into()
        }
    };
    Some((address, end))
}

#[cfg(test)]
mod tests;
