use std::io::ErrorKind;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Polls once; `None` when it is pending.
async fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

fn new(on_drop: End) -> (PipeWriter, PipeReader) {
    pipe(&Share::new(1 << 20), on_drop)
}

#[tokio::test]
async fn a_full_pipe_stops_its_writer() {
    let (mut write, mut read) = new(End::Complete);
    assert_eq!(poll_once(write.write(&vec![1; PIPE_MAX + 1])).await.unwrap().unwrap(), PIPE_MAX);
    assert!(poll_once(write.write(b"2")).await.is_none());
    read.read_exact(&mut [0; 10]).await.unwrap();
    assert_eq!(write.write(&[3; 11]).await.unwrap(), 10);
}

#[tokio::test]
async fn many_pipes_hold_less_each() {
    let share = Share::new(1 << 20);
    let mut pipes = Vec::new();
    let mut held = 0;
    for _ in 0..1000 {
        let (mut write, read) = pipe(&share, End::Complete);
        held += poll_once(write.write(&[0; PIPE_MAX])).await.unwrap().unwrap();
        pipes.push((write, read));
    }
    let (mut write, _read) = pipe(&share, End::Complete);
    assert_eq!(write.write(&[0; PIPE_MAX]).await.unwrap(), PIPE_MIN);
    assert!(held < 8 << 20, "{held}");
    drop(pipes);
    let (mut write, _read) = pipe(&share, End::Complete);
    assert_eq!(write.write(&[0; PIPE_MAX]).await.unwrap(), PIPE_MAX);
}

#[tokio::test]
async fn ends() {
    type Ending = fn(PipeWriter);
    let broken = End::Failed(ErrorKind::ConnectionAborted);
    let cases: [(End, Ending, Option<ErrorKind>, Chunk); 4] = [
        (End::Complete, drop, None, Chunk::End),
        (broken, drop, Some(ErrorKind::ConnectionAborted), Chunk::Failed),
        (broken, |write| write.finish(), None, Chunk::End),
        (
            End::Complete,
            |write| write.fail(ErrorKind::ConnectionReset),
            Some(ErrorKind::ConnectionReset),
            Chunk::Failed,
        ),
    ];
    for (on_drop, end, error, chunk) in cases {
        let (mut write, mut read) = new(on_drop);
        write.write_all(b"last").await.unwrap();
        end(write);
        let mut bytes = Vec::new();
        let result = read.read_to_end(&mut bytes).await;
        assert_eq!(bytes, b"last", "what was written before is not lost");
        assert_eq!(result.err().map(|error| error.kind()), error);
        assert_eq!(read.chunk(1).await, chunk);
    }
}

#[tokio::test]
async fn without_reader_writing_fails() {
    let (mut write, read) = new(End::Complete);
    let handle = write.handle();
    assert!(poll_once(handle.drained()).await.is_none());
    assert!(!handle.is_drained());
    drop(read);
    handle.drained().await;
    assert_eq!(write.write(b"1").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    write.write_now(b"1");

    let (mut write, mut read) = new(End::Complete);
    write.write_all(b"1").await.unwrap();
    write.handle().kill();
    assert_eq!(read.chunk(1).await, Chunk::Killed);
    assert_eq!(write.write(b"1").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

    let (mut write, _read) = new(End::Complete);
    write.handle().finish();
    assert_eq!(write.write(b"1").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20_000), 0..6),
        sizes in prop::collection::vec(1_usize..50_000, 1..5),
        by_chunk: bool,
    ) {
        let expected = pieces.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(async {
            let (mut write, mut read) = new(End::Complete);
            let writing = async {
                for piece in &pieces {
                    write.write_all(piece).await.unwrap();
                }
                drop(write);
            };
            let reading = async {
                let mut found = Vec::new();
                for size in sizes.iter().cycle() {
                    if by_chunk {
                        match read.chunk(*size).await {
                            Chunk::Data(bytes) => found.extend_from_slice(&bytes),
                            Chunk::End => break,
                            other => panic!("{other:?}"),
                        }
                    } else {
                        let mut bytes = vec![0; *size];
                        match read.read(&mut bytes).await.unwrap() {
                            0 => break,
                            length => found.extend_from_slice(&bytes[..length]),
                        }
                    }
                }
                found
            };
            tokio::join!(writing, reading).1
        });
        prop_assert_eq!(found, expected);
    }
}
