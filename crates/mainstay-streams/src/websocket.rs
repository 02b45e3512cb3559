//! WebSocket connections: channels in messages, and a tunnel for another protocol.
//!
//! Source: RFC 6455. No extensions are negotiated.

pub(crate) mod channels;
mod demux;
pub(crate) mod frame;
pub(crate) mod reader;
pub(crate) mod tunnel;

pub(crate) use demux::Codec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::link::{Gone, Outgoing, Queue, ReadError};
use frame::{Header, Opcode};

/// Why a connection is closed, as the peer is told. Source: RFC 6455, section 7.4.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum CloseCode {
    Normal = 1000,
    ProtocolError = 1002,
}

/// One unfragmented frame of a server. `prefix` goes before `payload` in it.
pub(crate) fn server_frame(opcode: Opcode, prefix: &[u8], payload: Bytes) -> Outgoing {
    let length = (prefix.len() + payload.len()) as u64;
    let mut head = BytesMut::with_capacity(frame::HEADER_MAX + prefix.len());
    Header { fin: true, opcode, mask: None, length }.encode(&mut head);
    head.put_slice(prefix);
    Outgoing::new(head, payload)
}

/// A ping, whose answer nobody waits for.
fn ping() -> Outgoing {
    server_frame(Opcode::Ping, &[], Bytes::new())
}

/// The frame that ends a connection.
pub(crate) fn close_frame(code: CloseCode) -> Outgoing {
    let code = (code as u16).to_be_bytes();
    server_frame(Opcode::Close, &code, Bytes::new()).then_nothing()
}

/// Answers what is wrong, or over, and says how the connection has ended.
async fn farewell(queue: &Queue, end: Result<Gone, ReadError>) -> Gone {
    let gone = end.unwrap_or_else(Gone::from);
    let code = match gone {
        Gone::Closed => CloseCode::Normal,
        Gone::Violation(_) => CloseCode::ProtocolError,
        Gone::Broken(_) | Gone::Idle(_) => return gone,
    };
    queue.send_urgent(close_frame(code)).await;
    gone
}

#[cfg(test)]
mod tests;
