//! What comes on a watch: an event a line.

use std::error::Error;
use std::io;
use std::pin::Pin;

use futures_util::{AsyncBufRead, AsyncBufReadExt as _};
use kube::core::{Status, WatchEvent};
use serde::de::DeserializeOwned;

use crate::CallError;

/// An answer that goes on. There are many of them, and most have nothing to say for long: between two lines
/// nothing is kept.
pub(crate) struct Lines(Pin<Box<dyn AsyncBufRead + Send>>);

/// How many causes of an error are looked at, which may be a ring.
const CAUSES: usize = 16;

// === impl Lines ===

impl Lines {
    pub(crate) fn new(answer: impl AsyncBufRead + Send + 'static) -> Self {
        Self(Box::pin(answer))
    }

    /// The next line; none at the end, also if that comes in the middle of something. Not cancel-safe.
    pub(crate) async fn next(&mut self, asked: &str) -> Result<Option<Vec<u8>>, CallError> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line).await {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) if is_end(&error) => {
                tracing::debug!(asked, %error, "a watch is cut off");
                Ok(None)
            }
            Err(error) => Err(CallError::of(asked, &kube::Error::ReadEvents(error))),
        }
    }
}

/// What a line says; nothing if it is empty, or cut off.
pub(crate) fn event<T: DeserializeOwned>(
    asked: &str,
    line: &[u8],
) -> Result<Option<WatchEvent<T>>, CallError> {
    match serde_json::from_slice(line) {
        Ok(event) => Ok(Some(event)),
        Err(error) if error.is_eof() => Ok(None),
        Err(error) => Err(match serde_json::from_slice::<Status>(line) {
            Ok(status) => CallError::of_status(asked, &status),
            Err(_) => CallError::of(asked, &kube::Error::SerdeError(error)),
        }),
    }
}

/// Whether a connection has ended where it should not have, as servers and what is before them end watches.
fn is_end(error: &io::Error) -> bool {
    let is_eof = |error: &(dyn Error + 'static)| {
        let error = error.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof)
    };
    let first = error.get_ref().map(|cause| -> &(dyn Error + 'static) { cause });
    let mut causes =
        std::iter::successors(first, |cause: &&(dyn Error + 'static)| Error::source(*cause))
            .take(CAUSES);
    error.kind() == io::ErrorKind::UnexpectedEof
        || causes.any(is_eof)
        || error.to_string().contains("unexpected EOF during chunk")
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use futures_util::TryStreamExt as _;
    use futures_util::stream;

    use super::*;
    use crate::{CallErrorKind, Partial};

    /// Lines that come in such pieces.
    fn lines(pieces: Vec<io::Result<&'static str>>) -> Lines {
        Lines::new(stream::iter(pieces).map(|piece| piece.map(str::as_bytes)).into_async_read())
    }

    async fn all(mut lines: Lines) -> Result<Vec<String>, CallError> {
        let mut all = Vec::new();
        while let Some(line) = lines.next("it").await? {
            all.push(String::from_utf8(line).unwrap());
        }
        Ok(all)
    }

    #[tokio::test]
    async fn lines_come_whole_whatever_the_pieces_are() {
        let pieces = vec![Ok("a"), Ok("b\nc\n"), Ok("\nd"), Ok("e")];
        assert_eq!(all(lines(pieces)).await.unwrap(), ["ab\n", "c\n", "\n", "de"]);
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_off_is_an_end_and_one_that_fails_is_not() {
        let eof = || io::Error::from(io::ErrorKind::UnexpectedEof);
        let ends =
            [eof(), io::Error::other(eof()), io::Error::other("unexpected EOF during chunk")];
        for end in ends {
            assert_eq!(all(lines(vec![Ok("a\n"), Err(end)])).await.unwrap(), ["a\n"]);
        }
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let error = all(lines(vec![Ok("a\n"), Err(io::Error::other(reset))])).await.unwrap_err();
        assert_eq!(error.kind, CallErrorKind::Away);
    }

    #[test]
    fn what_a_line_says() {
        let said = |line: &str| event::<Partial>("it", line.as_bytes());
        let added = said("{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\"}}}\r\n");
        assert!(matches!(added, Ok(Some(WatchEvent::Added(_)))), "{added:?}");
        for nothing in ["", "\n", "{\"type\":\"ADDED\",\"obj"] {
            assert!(matches!(said(nothing), Ok(None)), "{nothing}");
        }
        let refusal = r#"{"kind":"Status","status":"Failure","code":410,"reason":"Expired"}"#;
        assert_eq!(said(refusal).unwrap_err().kind, CallErrorKind::Gone);
        assert_eq!(said("<html>").unwrap_err().kind, CallErrorKind::Away);
    }
}
