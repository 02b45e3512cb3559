//! The size of the client's terminal: JSON objects, one after the other.

use serde_json::{Deserializer, Map, Value};
use tokio::sync::watch;

use crate::pipe::{Chunk, PipeReader};

/// The longest object, in bytes.
const OBJECT_MAX: usize = 1024;

/// How large a terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// In characters.
    pub width: u16,
    /// In lines.
    pub height: u16,
}

/// The sizes of the client's terminal, the newest only.
#[derive(Debug)]
pub struct Resizes {
    newest: watch::Receiver<Option<TerminalSize>>,
}

/// The sizes, and what finds them in the stream.
pub(super) fn follow(mut from: PipeReader) -> (Resizes, impl Future<Output = ()> + Send) {
    let (tell, newest) = watch::channel(None);
    let following = async move {
        let mut rest = Vec::new();
        while let Chunk::Data(bytes) = from.chunk(OBJECT_MAX).await {
            rest.extend_from_slice(&bytes);
            let Some(used) = sizes(&rest, |size| {
                tell.send_replace(Some(size));
            }) else {
                // Where the next object begins is not known any more.
                tracing::debug!("the client's terminal sizes are no JSON objects");
                return;
            };
            rest.drain(..used);
            if rest.len() > OBJECT_MAX {
                return;
            }
        }
    };
    (Resizes { newest }, following)
}

/// Hands on the sizes in `bytes` and says how many bytes they took; `None` for what is no JSON.
fn sizes(bytes: &[u8], mut each: impl FnMut(TerminalSize)) -> Option<usize> {
    let mut objects = Deserializer::from_slice(bytes).into_iter::<Value>();
    loop {
        let used = objects.byte_offset();
        match objects.next() {
            Some(Ok(Value::Object(object))) => {
                if let Some(size) = size(&object) {
                    each(size);
                }
            }
            Some(Err(error)) if error.is_eof() => return Some(used),
            Some(Ok(_) | Err(_)) => return None,
            None => return Some(bytes.len()),
        }
    }
}

/// The names are compared as Go does it: without regard to case.
fn size(object: &Map<String, Value>) -> Option<TerminalSize> {
    let field = |wanted: &str| {
        let (_, value) = object.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
        u16::try_from(value.as_u64()?).ok()
    };
    Some(TerminalSize { width: field("width")?, height: field("height")? })
}

// === impl Resizes ===

impl Resizes {
    pub(super) fn none() -> Self {
        let (_, newest) = watch::channel(None);
        Self { newest }
    }

    /// Waits for a size that was not seen yet; `None` when there are no more. Cancel safe.
    pub async fn next(&mut self) -> Option<TerminalSize> {
        self.newest.changed().await.ok()?;
        *self.newest.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_in_pieces() {
        let stream = b"{\"Width\":80,\"Height\":24}\n{\"height\":1,\"WIDTH\":2}{\"Width\":70000,\
            \"Height\":1}{}\n{\"Width\":132,\"Height\":50}\n";
        let expected = [(80, 24), (2, 1), (132, 50)];
        for cut in 0..stream.len() {
            let mut found = Vec::new();
            let mut each = |size: TerminalSize| found.push((size.width, size.height));
            let used = sizes(&stream[..cut], &mut each).unwrap();
            assert_eq!(sizes(&stream[used..], &mut each), Some(stream.len() - used));
            assert_eq!(found, expected, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_no_object_ends_it() {
        for stream in [&b"[1]"[..], b"7 ", b"{\"Width\":}", b"\xff"] {
            assert_eq!(sizes(stream, |size| panic!("{size:?}")), None, "{stream:?}");
        }
    }
}
