//! Messages: what is read of a question, and how an answer is written.

use std::net::IpAddr;

use super::Name;

/// Of a header. Source: RFC 1035, section 4.1.1.
const HEADER: usize = 12;
const RESPONSE: u16 = 1 << 15;
const AUTHORITATIVE: u16 = 1 << 10;
const TRUNCATED: u16 = 1 << 9;
const RECURSION_DESIRED: u16 = 1 << 8;
const RECURSION_AVAILABLE: u16 = 1 << 7;
const CHECKING_DISABLED: u16 = 1 << 4;
const OPCODE: u16 = 0b1111 << 11;
const CODE: u16 = 0b1111;

/// Where the question is in every message, as a pointer to it. Source: section 4.1.4.
const POINTER: u16 = 0xc000 | 12;
/// Whether a byte begins a pointer.
const POINTS: u8 = 0xc0;

/// The longest answer over UDP for who does not say more.
const SHORT: usize = 512;
/// The longest that is sent for who does: it passes every network in one piece. Source: the DNS flag day
/// of 2020.
const LONGEST_DATAGRAM: u16 = 1232;

/// How long an answer is good, in seconds. The same as CoreDNS has it for a cluster's names.
const LIFE: u32 = 5;

/// Kinds of records.
pub(super) mod kind {
    pub(crate) const A: u16 = 1;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const ANY: u16 = 255;
}

/// The class of the internet.
pub(super) const INTERNET: u16 = 1;

/// What a response says of its question.
pub mod code {
    /// It is answered.
    pub const NO_ERROR: u16 = 0;
    /// It is not understood.
    pub const FORMAT: u16 = 1;
    /// Somebody who was asked for the answer does not give it.
    pub const SERVER_FAILURE: u16 = 2;
    /// There is no such name.
    pub const NO_SUCH_NAME: u16 = 3;
    /// Such things are not done here.
    pub const NOT_IMPLEMENTED: u16 = 4;
    /// It is not answered, on principle.
    pub const REFUSED: u16 = 5;
    /// It wants another version of EDNS.
    pub const BAD_VERSION: u16 = 16;
}

/// What a question says by EDNS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The longest answer that is taken, in bytes.
    pub size: u16,
    /// The version, of which there is 0.
    pub version: u8,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// What the answer has to carry, too.
    pub id: u16,
    /// The header's flags.
    flags: u16,
    /// What is asked for.
    pub name: Name,
    /// Which records of it.
    pub kind: u16,
    /// Of which class.
    pub class: u16,
    /// All that as it was sent, for the answer: who asks may compare upper and lower case.
    pub section: &'a [u8],
    /// What it says by EDNS.
    pub edns: Option<Edns>,
}

/// What is no question that could be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not even an error can be sent back: two programs could go on for ever.
    Silent,
    /// This is the answer.
    Told(Vec<u8>),
}

/// A record of an answer, of the name that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Address(IpAddr),
    Pointer(Name),
    /// What says who is in charge of the name.
    Authority(Name),
}

/// An answer that is not shortened yet.
pub(super) struct Response<'a> {
    pub(super) code: u16,
    pub(super) records: &'a [Record],
    /// The name in charge, for answers that say that there is nothing.
    pub(super) authority: Option<&'a Name>,
}

/// What is left of a message.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.at = self.at.checked_add(length).filter(|at| *at <= self.bytes.len())?;
        Some(())
    }

    fn name(&mut self) -> Option<Name> {
        let (name, length) = Name::read(self.bytes.get(self.at..)?)?;
        self.at += length;
        Some(name)
    }

    /// Passes over a record, and tells what it says by EDNS if that is what it is there for.
    fn record(&mut self) -> Option<Option<Edns>> {
        let is_root = self.bytes.get(self.at) == Some(&0);
        loop {
            match self.u8()? {
                0 => break,
                length if length & POINTS == POINTS => {
                    self.skip(1)?;
                    break;
                }
                length if length & POINTS == 0 => self.skip(length.into())?,
                _ => return None,
            }
        }
        let (kind, size) = (self.u16()?, self.u16()?);
        let (_, version) = (self.u8()?, self.u8()?);
        let _flags = self.u16()?;
        let length = self.u16()?;
        self.skip(length.into())?;
        Some((kind == kind::OPT && is_root).then_some(Edns { size, version }))
    }
}

impl<'a> Question<'a> {
    /// Reads one.
    ///
    /// # Errors
    ///
    /// What it gets for being none.
    pub fn read(packet: &'a [u8]) -> Result<Self, Malformed> {
        let mut reader = Reader { bytes: packet, at: 0 };
        let mut header = [0; HEADER / 2];
        for field in &mut header {
            *field = reader.u16().ok_or(Malformed::Silent)?;
        }
        let [id, flags, questions, answers, authorities, additional] = header;
        if flags & RESPONSE != 0 {
            return Err(Malformed::Silent);
        }
        let told = |code| Malformed::Told(header_only(id, flags, code));
        if flags & OPCODE != 0 {
            return Err(told(code::NOT_IMPLEMENTED));
        }
        let malformed = || told(code::FORMAT);
        if questions != 1 {
            return Err(malformed());
        }
        let name = reader.name().ok_or_else(malformed)?;
        let kind = reader.u16().ok_or_else(malformed)?;
        let class = reader.u16().ok_or_else(malformed)?;
        let section = packet.get(HEADER..reader.at).ok_or_else(malformed)?;
        let mut edns = None;
        // Each takes bytes of the packet, so there are not many.
        let others = u32::from(answers) + u32::from(authorities);
        for number in 0..others + u32::from(additional) {
            let found = reader.record().ok_or_else(malformed)?;
            match found {
                Some(_) if number < others || edns.is_some() => return Err(malformed()),
                Some(found) => edns = Some(found),
                None => {}
            }
        }
        Ok(Self { id, flags, name, kind, class, section, edns })
    }

    /// How long an answer over UDP may be.
    pub(super) fn longest_datagram(&self) -> usize {
        let asked = self.edns.map_or(0, |edns| edns.size.min(LONGEST_DATAGRAM));
        usize::from(asked).max(SHORT)
    }

    /// Writes the answer, of at most `longest` bytes: who cannot get all of it that way is told to ask over
    /// TCP.
    pub(super) fn respond(&self, response: &Response<'_>, longest: usize) -> Vec<u8> {
        let mut truncated = false;
        let (mut body, mut answers) = (Vec::new(), 0u16);
        let opt = if self.edns.is_some() { OPT.len() } else { 0 };
        let room = longest.saturating_sub(HEADER + self.section.len() + opt);
        for record in response.records {
            let before = body.len();
            write_record(&mut body, None, record);
            if body.len() > room {
                body.truncate(before);
                truncated = true;
                break;
            }
            answers += 1;
        }
        let (before, mut authorities) = (body.len(), 0);
        if let Some(zone) = response.authority {
            write_record(&mut body, Some(zone), &Record::Authority(zone.clone()));
            authorities = 1;
            // That there is nothing can be said without it.
            if body.len() > room {
                body.truncate(before);
                authorities = 0;
            }
        }
        let mut flags = RESPONSE | RECURSION_AVAILABLE | (response.code & CODE);
        flags |= self.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        if matches!(response.code, code::NO_ERROR | code::NO_SUCH_NAME) {
            flags |= AUTHORITATIVE;
        }
        if truncated {
            flags |= TRUNCATED;
        }
        let additional = u16::from(self.edns.is_some());
        let mut packet = Vec::with_capacity(HEADER + self.section.len() + body.len() + opt);
        for field in [self.id, flags, 1, answers, authorities, additional] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend(self.section);
        packet.extend(body);
        if self.edns.is_some() {
            let mut record = OPT;
            // The code's part that the header has no room for.
            [_, record[5]] = (response.code >> 4).to_be_bytes();
            packet.extend(record);
        }
        packet
    }
}

/// The record by which EDNS is spoken: of the root, how much is taken here, and nothing else.
const OPT: [u8; 11] = {
    let [high, low] = LONGEST_DATAGRAM.to_be_bytes();
    let [kind_high, kind_low] = kind::OPT.to_be_bytes();
    [0, kind_high, kind_low, high, low, 0, 0, 0, 0, 0, 0]
};

fn write_record(body: &mut Vec<u8>, owner: Option<&Name>, record: &Record) {
    match owner {
        Some(name) => body.extend(name.as_bytes()),
        None => body.extend(POINTER.to_be_bytes()),
    }
    let (kind, data) = match record {
        Record::Address(IpAddr::V4(address)) => (kind::A, address.octets().to_vec()),
        Record::Address(IpAddr::V6(address)) => (kind::AAAA, address.octets().to_vec()),
        Record::Pointer(name) => (kind::PTR, name.as_bytes().to_vec()),
        Record::Authority(zone) => (kind::SOA, authority(zone)),
    };
    body.extend(kind.to_be_bytes());
    body.extend(INTERNET.to_be_bytes());
    body.extend(LIFE.to_be_bytes());
    // None of them is longer than a few names.
    body.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
    body.extend(data);
}

/// What a record says that tells who is in charge. Nobody transfers these names, so of its numbers only the
/// last one is for anybody: how long it is good that there is nothing.
fn authority(zone: &Name) -> Vec<u8> {
    let mut data = Vec::new();
    for label in ["ns.dns", "hostmaster"] {
        let name = Name::of(label).and_then(|name| name.below(zone));
        data.extend(name.as_ref().unwrap_or(zone).as_bytes());
    }
    for number in [1, 7200, 1800, 86400, LIFE] {
        data.extend(u32::to_be_bytes(number));
    }
    data
}

/// A response to something of which no more than the header is understood.
fn header_only(id: u16, flags: u16, code: u16) -> Vec<u8> {
    let flags = RESPONSE | (flags & (OPCODE | RECURSION_DESIRED)) | code;
    [id, flags, 0, 0, 0, 0].iter().flat_map(|field| field.to_be_bytes()).collect()
}

/// The response to a question that ends in this way.
pub fn failure(question: &Question<'_>, code: u16) -> Vec<u8> {
    question.respond(&Response { code, records: &[], authority: None }, SHORT)
}

/// Gives a message another number.
pub fn with_id(mut packet: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(place) = packet.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
    packet
}

/// Whether a message is the response to the question with this number: it repeats it, or says that it has
/// not understood it.
pub fn belongs(response: &[u8], id: u16, section: &[u8]) -> bool {
    let mut reader = Reader { bytes: response, at: 0 };
    let (Some(number), Some(flags), Some(questions)) = (reader.u16(), reader.u16(), reader.u16())
    else {
        return false;
    };
    let repeats = match questions {
        0 => flags & CODE != code::NO_ERROR && response.len() >= HEADER,
        1 => {
            let end = HEADER + section.len();
            response.get(HEADER..end).is_some_and(|it| it.eq_ignore_ascii_case(section))
        }
        _ => false,
    };
    number == id && flags & RESPONSE != 0 && repeats
}

/// Whether a response says that this server cannot answer, and perhaps another one can.
pub fn is_failure(response: &[u8]) -> bool {
    let code = response.get(3).map_or(0, |flags| u16::from(*flags) & CODE);
    matches!(code, code::SERVER_FAILURE | code::NOT_IMPLEMENTED | code::REFUSED)
}
