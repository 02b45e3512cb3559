//! The other end of the wire, for tests: as much of a client as they need.

use std::future::poll_fn;
use std::task::Poll;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream, Empty, ReadHalf, WriteHalf, duplex,
    empty, split,
};
use tokio::task::JoinSet;

use crate::spdy::frame::{Control, data_frame};
use crate::spdy::headers::Headers;
use crate::spdy::reader::{self, FrameReader};
use crate::websocket::frame::{Header, Opcode, apply_mask};
use crate::websocket::reader::{Event, MessageReader};

/// A client that speaks SPDY, with compressed headers as Kubernetes' clients send them.
pub(crate) struct SpdyClient<R = ReadHalf<DuplexStream>> {
    pub(crate) frames: FrameReader<R>,
    pub(crate) to: WriteHalf<DuplexStream>,
    compress: Compress,
    next_id: u32,
}

/// A client that speaks WebSocket.
pub(crate) struct WebSocketClient {
    pub(crate) messages: MessageReader<ReadHalf<DuplexStream>>,
    pub(crate) to: WriteHalf<DuplexStream>,
}

/// What a WebSocket client hears.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Vec<u8>),
    Text(String),
    Ping,
    Pong(Vec<u8>),
    Close,
    /// The end of the connection.
    End,
}

// === impl SpdyClient ===

impl SpdyClient {
    pub(crate) fn new(io: DuplexStream) -> Self {
        let (from, to) = split(io);
        Self::with(from, to)
    }
}

impl SpdyClient<Empty> {
    /// One that only sends.
    pub(crate) fn halved(to: WriteHalf<DuplexStream>) -> Self {
        Self::with(empty(), to)
    }
}

impl<R: AsyncRead + Unpin> SpdyClient<R> {
    fn with(from: R, to: WriteHalf<DuplexStream>) -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&crate::spdy::dictionary::dictionary()).unwrap();
        Self { frames: FrameReader::new(from), to, compress, next_id: 1 }
    }

    /// Opens a stream without waiting for the reply.
    pub(crate) async fn syn(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next_id;
        self.next_id += 2;
        let frame = self.syn_frame(id, headers);
        self.to.write_all(&frame).await.unwrap();
        id
    }

    pub(crate) fn syn_frame(&mut self, id: u32, headers: &[(&str, &str)]) -> BytesMut {
        let mut block = BytesMut::new();
        block.put_u32(length(headers.len()));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text.len()));
            block.put_slice(text.as_bytes());
        }
        let mut compressed = Vec::with_capacity(block.len() + 256);
        self.compress.compress_vec(&block, &mut compressed, FlushCompress::Sync).unwrap();
        let mut frame = BytesMut::new();
        frame.put_u32(0x8003_0001);
        frame.put_u32(10 + length(compressed.len()));
        frame.put_u32(id);
        frame.put_slice(&[0; 6]);
        frame.put_slice(&compressed);
        frame
    }

    /// Opens a stream, which the server accepts.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.syn(headers).await;
        let reply = Control::SynReply { stream: id, headers: Headers::default(), fin: false };
        assert_eq!(self.next().await, Some(reader::Event::Control(reply)));
        id
    }

    pub(crate) async fn control(&mut self, frame: &Control) {
        // What has headers goes through `syn`.
        let frame = frame.encode(&mut crate::spdy::headers::Storer::default());
        self.to.write_all(&[frame.head, frame.payload].concat()).await.unwrap();
    }

    pub(crate) async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        let frame = data_frame(stream, Bytes::copy_from_slice(bytes), fin);
        self.to.write_all(&[frame.head, frame.payload].concat()).await.unwrap();
    }

    /// The next event, `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<reader::Event> {
        self.frames.next().await.unwrap()
    }

    /// Whether no frame is there.
    pub(crate) async fn hears_nothing(&mut self) -> bool {
        let mut next = std::pin::pin!(self.frames.next());
        poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await
    }

    /// What is said on any stream until one is reset.
    pub(crate) async fn collect_until_reset(&mut self, last: u32) -> Vec<(u32, String)> {
        let mut collected = Vec::new();
        loop {
            match self.next().await.unwrap() {
                reader::Event::Data { stream, bytes, .. } => {
                    collected.push((stream, String::from_utf8_lossy(&bytes).into_owned()));
                }
                reader::Event::Control(Control::RstStream { stream, .. }) if stream == last => {
                    return collected;
                }
                reader::Event::Control(_) => {}
            }
        }
    }

    /// Collects what comes on the streams, in their order, until the connection ends or GOAWAY
    /// comes: bytes, and whether a `FIN` was at their end.
    pub(crate) async fn collect(&mut self, streams: &[u32]) -> Vec<(String, bool)> {
        let mut collected = vec![(Vec::new(), false); streams.len()];
        while let Some(event) = self.next().await {
            match event {
                reader::Event::Data { stream, bytes, fin } => {
                    let at = streams.iter().position(|id| *id == stream);
                    let Some(at) = at else { continue };
                    assert!(!collected[at].1, "data after FIN on {stream}");
                    collected[at].0.extend_from_slice(&bytes);
                    collected[at].1 |= fin;
                }
                reader::Event::Control(Control::GoAway { .. }) => break,
                reader::Event::Control(_) => {}
            }
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        collected.into_iter().map(|(bytes, fin)| (text(bytes), fin)).collect()
    }
}

// === impl WebSocketClient ===

impl WebSocketClient {
    pub(crate) fn new(io: DuplexStream) -> Self {
        let (from, to) = split(io);
        Self { messages: MessageReader::new(from, false), to }
    }

    pub(crate) async fn frame(&mut self, fin: bool, opcode: Opcode, payload: &[u8]) {
        self.to.write_all(&client_frame(fin, opcode, payload)).await.unwrap();
    }

    /// Sends a binary message.
    pub(crate) async fn message(&mut self, payload: &[u8]) {
        self.frame(true, Opcode::Binary, payload).await;
    }

    pub(crate) async fn next(&mut self) -> Heard {
        let mut message = Vec::new();
        let mut binary = true;
        loop {
            match self.messages.next().await.unwrap() {
                Some(Event::Start { binary: kind }) => binary = kind,
                Some(Event::Data(bytes)) => message.extend_from_slice(&bytes),
                Some(Event::End) if binary => return Heard::Message(message),
                Some(Event::End) => return Heard::Text(String::from_utf8(message).unwrap()),
                Some(Event::Ping(_)) => return Heard::Ping,
                Some(Event::Pong) => return Heard::Pong(Vec::new()),
                Some(Event::Close) => return Heard::Close,
                None => return Heard::End,
            }
        }
    }

    /// The bytes of one channel until the server closes.
    pub(crate) async fn channel(&mut self, channel: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            match self.next().await {
                Heard::Message(message) if message.first() == Some(&channel) => {
                    bytes.extend_from_slice(&message[1..]);
                }
                Heard::Close | Heard::End => return bytes,
                _ => {}
            }
        }
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap()
}

/// A frame with a mask.
pub(crate) fn client_frame(fin: bool, opcode: Opcode, payload: &[u8]) -> BytesMut {
    let mask = [7, 77, 177, 0];
    let mut frame = BytesMut::new();
    Header { fin, opcode, mask: Some(mask), length: payload.len() as u64 }.encode(&mut frame);
    let at = frame.len();
    frame.put_slice(payload);
    apply_mask(mask, 0, &mut frame[at..]);
    frame
}

/// The inside of a tunnel whose outside is `io`; the set keeps it up.
pub(crate) fn tunnel(io: DuplexStream) -> (DuplexStream, JoinSet<()>) {
    let (inside, outside) = duplex(1 << 10);
    let (mut from, mut to) = split(outside);
    let WebSocketClient { mut messages, to: mut socket } = WebSocketClient::new(io);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok(Some(event)) = messages.next().await {
            match event {
                Event::Data(bytes) => to.write_all(&bytes).await.unwrap(),
                Event::Close => break,
                _ => {}
            }
        }
        to.shutdown().await.unwrap();
    });
    tasks.spawn(async move {
        let mut bytes = vec![0; 700];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            let frame = client_frame(true, Opcode::Binary, &bytes[..length]);
            if socket.write_all(&frame).await.is_err() {
                return;
            }
        }
        let close = client_frame(true, Opcode::Close, &1000_u16.to_be_bytes());
        // The server may have closed already.
        let _ = socket.write_all(&close).await;
    });
    (inside, tasks)
}
