//! What a container writes, for somebody who is attached and may not read.
//!
//! A server waits for whoever is attached, and the container with it. So everything is taken from the server at
//! once, and kept for a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::{mpsc, watch};

/// How much is read at once, in bytes, and how many of these are kept for one who does not read.
const PIECE: usize = 16 << 10;
const PIECES: usize = 16;

/// What is kept, to be read.
#[derive(Debug)]
pub(super) struct Kept {
    pieces: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

/// An output without anybody waiting for its reader: what is read, and what has to be run for it. `lost` is told
/// when something could not be kept, after which nothing more comes.
pub(super) fn kept(
    from: impl AsyncRead + Send + Unpin + 'static,
    lost: watch::Sender<bool>,
) -> (Kept, impl Future<Output = ()> + Send) {
    let (keep, pieces) = mpsc::channel(PIECES);
    (Kept { pieces, rest: Bytes::new() }, take(from, keep, lost))
}

async fn take(
    mut from: impl AsyncRead + Unpin,
    keep: mpsc::Sender<Bytes>,
    lost: watch::Sender<bool>,
) {
    let mut bytes = vec![0; PIECE];
    loop {
        let read = tokio::select! {
            read = from.read(&mut bytes) => read,
            // Whoever wanted it has gone.
            () = keep.closed() => return,
        };
        // How it ended is told elsewhere.
        let Ok(length @ 1..) = read else { return };
        let piece = Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default());
        if let Err(mpsc::error::TrySendError::Full(_)) = keep.try_send(piece) {
            lost.send_replace(true);
            return;
        }
    }
}

impl AsyncRead for Kept {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(piece) => self.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(self.rest.get(..length).unwrap_or_default());
        self.rest.advance(length);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn all_of_it_is_read_unless_there_is_too_much() {
        let (mut write, from) = tokio::io::duplex(100);
        let (lost, mut told) = watch::channel(false);
        let (mut kept, taking) = kept(from, lost);
        let mut tasks = JoinSet::new();
        tasks.spawn(taking);
        write.write_all(b"something").await.unwrap();
        let mut read = [0; 9];
        kept.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"something");
        assert!(!*told.borrow_and_update());
        // Nobody reads now; and whoever writes is not kept waiting.
        while write.write_all(&[b'x'; 100]).await.is_ok() {}
        assert!(told.wait_for(|lost| *lost).await.is_ok());
        let mut rest = Vec::new();
        kept.read_to_end(&mut rest).await.unwrap();
        assert!(rest.len() >= PIECES && rest.iter().all(|byte| *byte == b'x'));
    }

    #[tokio::test]
    async fn with_its_reader_it_ends() {
        let (_write, from) = tokio::io::duplex(100);
        let (kept, taking) = kept(from, watch::channel(false).0);
        drop(kept);
        taking.await;
    }
}
