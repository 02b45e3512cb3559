//! Frames: a length and that many bytes of JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame in bytes, length field not counted: room for any command line and
/// environment that the kernel would accept, and a bound on what a peer can make us allocate.
pub const MAX_FRAME: usize = 8 << 20;

/// A frame that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than the {MAX_FRAME} that the shim protocol allows")]
    TooLong(usize),
    /// The frame is not the JSON that was expected.
    #[error("a frame of the shim protocol does not parse")]
    Json(#[source] serde_json::Error),
}

/// The bytes of one frame, length included.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(FrameError::Json)?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(short) if length <= MAX_FRAME => frame[..4].copy_from_slice(&short.to_le_bytes()),
        _ => return Err(FrameError::TooLong(length)),
    }
    Ok(frame)
}

/// The length of the JSON that follows a frame's first four bytes.
pub fn frame_length(header: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// The message in a frame's JSON.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(json).map_err(FrameError::Json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Command, Request};

    #[test]
    fn a_frame_survives_the_way_there() {
        let request = Request { number: 7, command: Command::Report };
        let frame = encode(&request).unwrap();
        let header: [u8; 4] = frame[..4].try_into().unwrap();
        assert_eq!(frame_length(header).unwrap(), frame.len() - 4);
        assert_eq!(decode::<Request>(&frame[4..]).unwrap(), request);
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_it_is_allocated() {
        assert!(matches!(frame_length([0xff; 4]), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn an_unknown_field_is_ignored_and_an_unknown_command_is_an_error() {
        let known = br#"{"number":1,"command":"report","colour":"red"}"#;
        assert_eq!(decode::<Request>(known).unwrap().command, Command::Report);
        assert!(decode::<Request>(br#"{"number":1,"command":"dance"}"#).is_err());
        // As shims said it before there was more to say.
        let hello: crate::Hello = decode(br#"{"protocol":1,"version":"0.1.0","pid":7}"#).unwrap();
        assert!(!hello.attach);
    }
}
