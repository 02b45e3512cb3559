//! Messages in their frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use crate::status::{Code, Status};

/// The most bytes of one message. Source: `maxMsgSize` in
/// `staging/src/k8s.io/cri-client/pkg/utils.go`.
pub const MESSAGE_MAX: usize = 16 << 20;

/// What is before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A message as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded(pub(crate) Bytes);

/// The messages of one direction of a call, out of the pieces that come.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    read: BytesMut,
}

impl Encoded {
    /// A message that is not compressed.
    pub fn of(message: &impl Message) -> Self {
        let length = message.encoded_len();
        let mut frame = BytesMut::with_capacity(PREFIX + length);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // There is room for it.
        message.encode_raw(&mut frame);
        Self(frame.freeze())
    }
}

/// Reads a message that a peer sent.
///
/// # Errors
///
/// [`Code::Internal`] for what is no such message.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| {
        Status::new(
            Code::Internal,
            format!("grpc: failed to unmarshal the received message: {error}"),
        )
    })
}

// === impl Messages ===

impl Messages {
    /// Takes what came.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        self.read.extend_from_slice(bytes);
    }

    /// The next message that is whole.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(&[compressed, ref length @ ..]) = self.read.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if compressed != 0 {
            let message = "grpc: the message is compressed, which was not asked for";
            return Err(Status::new(Code::Internal, message));
        }
        if length > MESSAGE_MAX {
            let message =
                format!("grpc: received message larger than max ({length} vs. {MESSAGE_MAX})");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        if self.read.len() - PREFIX < length {
            return Ok(None);
        }
        self.read.advance(PREFIX);
        Ok(Some(self.read.split_to(length).freeze()))
    }

    /// Whether nothing is left of a message that did not come to its end.
    pub(crate) fn is_empty(&self) -> bool {
        self.read.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in_however_they_are_cut() {
        let sent = ["", "v1", "v1alpha2"].map(str::to_owned);
        let bytes: Vec<u8> = sent.iter().flat_map(|it| Encoded::of(it).0.to_vec()).collect();
        for size in [1, 2, 7, bytes.len()] {
            let mut messages = Messages::default();
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                messages.put(piece);
                while let Some(whole) = messages.take().unwrap() {
                    got.push(decode::<String>(whole).unwrap());
                }
            }
            assert_eq!(got, sent);
            assert!(messages.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_not_waited_for() {
        for (prefix, code) in
            [([0, 1, 0, 0, 1], Code::ResourceExhausted), ([1, 0, 0, 0, 1], Code::Internal)]
        {
            let mut messages = Messages::default();
            messages.put(&prefix);
            assert_eq!(messages.take().unwrap_err().code, code);
        }
        let broken = decode::<String>(Bytes::from_static(&[0x0a, 9, b'v']));
        assert_eq!(broken.unwrap_err().code, Code::Internal);
    }
}
