//! A registry that does whatever a test wants, also what no honest registry does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use crate::digest::Digest;
use crate::testing::{TestImage, gzip};

/// A request, as it came.
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
}

/// What is answered.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// After how many bytes of the body the connection breaks.
    pub(super) cut: Option<usize>,
    /// After how many bytes of the body nothing comes any more, until the server is dropped.
    pub(super) hang: Option<usize>,
}

type Handler = dyn Fn(&Asked) -> Answer + Send + Sync;

/// A server on loopback, without TLS.
pub(super) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    /// One line for each request.
    log: Mutex<Vec<String>>,
    stopped: Mutex<bool>,
    stop: Condvar,
    connections: Mutex<Vec<TcpStream>>,
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, cut: None, hang: None }
    }

    pub(super) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

// === impl Fake ===

impl Fake {
    pub(super) fn start(handler: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            log: Mutex::default(),
            stopped: Mutex::default(),
            stop: Condvar::new(),
            connections: Mutex::default(),
        });
        let server = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(connection) = connection else { break };
                if *server.stopped.lock().unwrap() {
                    break;
                }
                server.connections.lock().unwrap().push(connection.try_clone().unwrap());
                let server = Arc::clone(&server);
                std::thread::spawn(move || server.serve(connection));
            }
        });
        Self { address, shared }
    }

    /// Host and port.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    /// What was asked so far, a line each.
    pub(super) fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }

    /// How many requests there were that have `part` in their line.
    pub(super) fn count(&self, part: &str) -> usize {
        self.log().iter().filter(|line| line.contains(part)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap() = true;
        self.shared.stop.notify_all();
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the thread that accepts, so that it sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

// === impl Shared ===

impl Shared {
    /// Answers until the other side, or an answer, ends the connection.
    fn serve(&self, mut connection: TcpStream) {
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        while let Some(asked) = read(&mut reader) {
            let header = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
            let line = format!(
                "{} {} {} {}",
                asked.method,
                asked.path,
                header("range"),
                header("authorization")
            );
            self.log.lock().unwrap().push(line.trim_end().to_owned());
            let answer = (self.handler)(&asked);
            if self.answer(&mut connection, &asked, &answer).is_err() {
                break;
            }
        }
        let _ = connection.shutdown(Shutdown::Both);
    }

    fn answer(
        &self,
        connection: &mut TcpStream,
        asked: &Asked,
        answer: &Answer,
    ) -> std::io::Result<()> {
        let Answer { status, headers, body, cut, hang } = answer;
        let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        connection.write_all((head + "\r\n").as_bytes())?;
        if asked.method == "HEAD" {
            return Ok(());
        }
        let end = cut.or(*hang).unwrap_or(body.len()).min(body.len());
        connection.write_all(&body[..end])?;
        if hang.is_some() {
            let stopped = self.stopped.lock().unwrap();
            drop(self.stop.wait_while(stopped, |stopped| !*stopped));
        }
        match cut.or(*hang) {
            Some(_) => Err(std::io::ErrorKind::ConnectionAborted.into()),
            None => Ok(()),
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |value| value.parse().unwrap());
    let mut body = vec![0; length];
    std::io::Read::read_exact(reader, &mut body).ok()?;
    Some(Asked { method, path, headers, body: String::from_utf8(body).ok()? })
}

/// What a registry has, by path below `/v2/`.
pub(super) type Content = HashMap<String, Vec<u8>>;

/// The documents and layers of an image, as repository `repository` has them.
pub(super) fn content(repository: &str, tag: &str, image: &TestImage) -> Content {
    let (manifest, blobs) = image.manifest(gzip);
    let blobs = blobs.into_iter();
    let mut content: Content =
        blobs.map(|(digest, blob)| (format!("{repository}/blobs/{digest}"), blob)).collect();
    for name in [tag.to_owned(), Digest::of(&manifest).to_string()] {
        content.insert(format!("{repository}/manifests/{name}"), manifest.clone());
    }
    content
}

/// Answers as an honest registry does that knows of ranges.
pub(super) fn honest(content: &Content, asked: &Asked) -> Answer {
    let path = asked.path.split('?').next().unwrap_or_default();
    let path = path.strip_prefix("/v2/").unwrap_or(path);
    let Some(body) = content.get(path) else {
        return Answer::new(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
        );
    };
    let range = asked.headers.get("range");
    let from =
        range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None | Some(0) => Answer::new(200, body.clone())
            .header("docker-content-digest", Digest::of(body).to_string()),
        Some(from) if from < body.len() => {
            let range = format!("bytes {from}-{}/{}", body.len() - 1, body.len());
            Answer::new(206, &body[from..]).header("content-range", range)
        }
        Some(_) => Answer::new(416, ""),
    }
}
