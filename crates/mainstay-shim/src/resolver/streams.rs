//! Questions that come over TCP: those whose answers are long.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mainstay_shim::dns::{
    Decision, LONGEST_QUESTION, Names, Question, Transport, answer, belongs, code, failure,
    is_failure, with_id,
};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::servers::Servers;
use super::{Source, Watch, chance};

/// How many connections there may be.
const MOST: usize = 64;
/// How many of them one sandbox may have.
const MOST_OF_ONE: usize = 8;
/// How long a connection may be without anything happening on it.
const IDLE: Duration = Duration::from_secs(10);
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections of sandboxes.
#[derive(Debug, Default)]
pub(super) struct Clients {
    clients: BTreeMap<u64, Client>,
    next: u64,
}

/// A connection of a sandbox. Its questions are answered one after the other.
#[derive(Debug)]
struct Client {
    stream: TcpStream,
    address: IpAddr,
    /// What it has sent and has not been looked at.
    received: Vec<u8>,
    turn: Turn,
    deadline: Instant,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    /// The client's, to ask.
    Asking,
    /// A server's, to answer.
    Waiting(Box<Waiting>),
    /// The client's, to take the answer: what is left of it.
    Answering(Vec<u8>),
}

/// A question that a server has been asked.
#[derive(Debug)]
struct Waiting {
    /// As the client sent it.
    packet: Vec<u8>,
    server: TcpStream,
    /// Those that can be asked after this one.
    others: Vec<SocketAddr>,
    number: u16,
    /// What is left to be sent.
    unsent: Vec<u8>,
    received: Vec<u8>,
}

/// It is closed.
struct Over;

impl Clients {
    pub(super) fn watch<'a>(&'a self, watch: &mut Watch<'a>) {
        for (id, client) in &self.clients {
            let (descriptor, flags) = match &client.turn {
                Turn::Asking => (client.stream.as_fd(), PollFlags::IN),
                Turn::Answering(_) => (client.stream.as_fd(), PollFlags::OUT),
                Turn::Waiting(waiting) if waiting.unsent.is_empty() => {
                    (waiting.server.as_fd(), PollFlags::IN)
                }
                Turn::Waiting(waiting) => (waiting.server.as_fd(), PollFlags::OUT),
            };
            watch.add_for(Source::Client(*id), descriptor, flags);
            watch.until(client.deadline);
        }
    }

    /// Takes a connection in; one too many is closed.
    pub(super) fn add(&mut self, stream: TcpStream, address: IpAddr, now: Instant) {
        let of_one = self.clients.values().filter(|it| it.address == address).count();
        if self.clients.len() >= MOST || of_one >= MOST_OF_ONE {
            return;
        }
        if stream.set_nonblocking(true).is_ok() {
            let (received, turn, deadline) = (Vec::new(), Turn::Asking, now + IDLE);
            self.clients.insert(self.next, Client { stream, address, received, turn, deadline });
            self.next += 1;
        }
    }

    /// Does what can be done on a connection without waiting.
    pub(super) fn advance(
        &mut self,
        id: u64,
        names: &Names,
        servers: &mut Servers,
        buffer: &mut [u8],
        now: Instant,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.advance(names, servers, buffer, now).is_err() {
            self.clients.remove(&id);
        }
    }

    /// Goes on with those that have waited long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        self.clients
            .retain(|_, client| client.deadline > now || client.give_up_server(now).is_ok());
    }
}

impl Client {
    fn advance(
        &mut self,
        names: &Names,
        servers: &mut Servers,
        buffer: &mut [u8],
        now: Instant,
    ) -> Result<(), Over> {
        match &mut self.turn {
            Turn::Asking => {
                match read(&mut self.stream, buffer)? {
                    Some(bytes) => self.received.extend_from_slice(bytes),
                    None => return Ok(()),
                }
                self.deadline = now + IDLE;
                self.take(names, servers, now)
            }
            Turn::Waiting(waiting) => match waiting.advance(buffer) {
                Ok(None) => Ok(()),
                // Another one may know.
                Ok(Some(response)) if is_failure(&response) && !waiting.others.is_empty() => {
                    self.give_up_server(now)
                }
                Ok(Some(response)) => self.respond(&response, now),
                Err(Over) => self.give_up_server(now),
            },
            Turn::Answering(rest) => {
                write(&mut self.stream, rest)?;
                self.deadline = now + IDLE;
                if rest.is_empty() {
                    self.turn = Turn::Asking;
                    return self.take(names, servers, now);
                }
                Ok(())
            }
        }
    }

    /// Looks at the next question, if there is all of it.
    fn take(&mut self, names: &Names, servers: &mut Servers, now: Instant) -> Result<(), Over> {
        let Some((length, rest)) = self.received.split_first_chunk::<2>() else { return Ok(()) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > LONGEST_QUESTION {
            return Err(Over);
        }
        let Some(packet) = rest.get(..length).map(<[u8]>::to_vec) else { return Ok(()) };
        self.received.drain(..2 + length);
        match answer(names, &packet, self.address, Transport::Tcp) {
            Decision::Drop => Err(Over),
            Decision::Answer(response) => self.respond(&response, now),
            Decision::Forward => self.ask(packet, servers.now(), now),
        }
    }

    fn respond(&mut self, response: &[u8], now: Instant) -> Result<(), Over> {
        self.turn = Turn::Answering(framed(response)?);
        self.deadline = now + IDLE;
        Ok(())
    }

    /// Asks the first of these servers that can be asked, or says that there is none.
    fn ask(
        &mut self,
        packet: Vec<u8>,
        mut servers: Vec<SocketAddr>,
        now: Instant,
    ) -> Result<(), Over> {
        while !servers.is_empty() {
            let Ok(server) = begin(servers.remove(0)) else { continue };
            let number = chance();
            let unsent = framed(&with_id(packet.clone(), number))?;
            let received = Vec::new();
            let waiting = Waiting { packet, server, others: servers, number, unsent, received };
            self.turn = Turn::Waiting(Box::new(waiting));
            self.deadline = now + PATIENCE;
            return Ok(());
        }
        let question = Question::read(&packet).map_err(|_| Over)?;
        self.respond(&failure(&question, code::SERVER_FAILURE), now)
    }

    /// Goes on without the server that was waited for.
    fn give_up_server(&mut self, now: Instant) -> Result<(), Over> {
        match std::mem::replace(&mut self.turn, Turn::Asking) {
            Turn::Waiting(waiting) => self.ask(waiting.packet, waiting.others, now),
            // It is the client that is waited for.
            Turn::Asking | Turn::Answering(_) => Err(Over),
        }
    }
}

impl Waiting {
    /// Sends the question, and takes in the response until there is all of it.
    fn advance(&mut self, buffer: &mut [u8]) -> Result<Option<Vec<u8>>, Over> {
        if !self.unsent.is_empty() {
            // Also how it is heard that there is no connection.
            return write(&mut self.server, &mut self.unsent).map(|()| None);
        }
        if let Some(bytes) = read(&mut self.server, buffer)? {
            self.received.extend_from_slice(bytes);
        }
        let Some((length, rest)) = self.received.split_first_chunk::<2>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        let Some(response) = rest.get(..length) else { return Ok(None) };
        let question = Question::read(&self.packet).map_err(|_| Over)?;
        match belongs(response, self.number, question.section) {
            true => Ok(Some(with_id(response.to_vec(), question.id))),
            false => Err(Over),
        }
    }
}

/// Begins to connect.
fn begin(server: SocketAddr) -> io::Result<TcpStream> {
    let family = match server {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

/// A message behind its length.
fn framed(message: &[u8]) -> Result<Vec<u8>, Over> {
    let length = u16::try_from(message.len()).map_err(|_| Over)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend(message);
    Ok(bytes)
}

/// Reads what is there; `None` if that is nothing yet.
fn read<'a>(stream: &mut TcpStream, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Over> {
    match stream.read(buffer) {
        Ok(0) => Err(Over),
        Ok(length) => Ok(buffer.get(..length)),
        Err(error) if is_for_later(&error) => Ok(None),
        Err(_) => Err(Over),
    }
}

/// Writes as much as goes, and takes it away from the bytes.
fn write(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Result<(), Over> {
    match stream.write(bytes) {
        Ok(length) => {
            bytes.drain(..length);
            Ok(())
        }
        Err(error) if is_for_later(&error) => Ok(()),
        Err(_) => Err(Over),
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
