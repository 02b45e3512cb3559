//! The resolver: the process that answers the sandboxes' questions for names.
//!
//! It is this program with another purpose, since it has the same life: started by the agent, and there
//! when no agent is. The engine binds its sockets and hands them over, tells it all names whenever they
//! change, and ends it when nobody needs it; see `mainstay-shim-protocol`.
//!
//! # Flow
//!
//! One `poll` over everything that can speak. What becomes of a question is decided in
//! [`mainstay_shim::dns::answer`]; what is not for it to answer is asked of the servers that the machine
//! itself asks, over UDP in [`datagrams`], over TCP in [`streams`].
//!
//! # Guarantees
//!
//! - Nothing here waits for anything but that `poll`, and whatever it waits for has a deadline.
//! - However much is asked, memory and descriptors stay within bounds, and no sandbox can have all of them.
//! - An answer is taken from whom it was asked of only: each question has a socket and a number of its own,
//!   both by chance.

mod datagrams;
mod servers;
mod streams;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

use mainstay_shim::dns::Names;
use mainstay_shim_protocol::{
    RESOLVER_PROTOCOL, ResolverCommand, ResolverHello, ResolverReply, Zone, encode,
};
use rustix::event::PollFlags;

use crate::connection::{Closed, Connection};
use datagrams::Flights;
use servers::Servers;
use streams::Clients;

/// How much of one thing is done before the others get their turn.
const AT_ONCE: usize = 64;

/// The longest message.
const LONGEST: usize = u16::MAX as usize;

pub(crate) struct Resolver {
    listener: UnixListener,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    listening: Vec<Listening>,
    /// `None` until it has been told.
    names: Option<Names>,
    servers: Servers,
    flights: Flights,
    clients: Clients,
    buffer: Box<[u8]>,
    done: bool,
}

/// Where it listens.
struct Listening {
    address: IpAddr,
    udp: UdpSocket,
    tcp: TcpListener,
}

/// What a descriptor of the `poll` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Listener,
    Connection(u64),
    Udp(IpAddr),
    Tcp(IpAddr),
    Flight(u64),
    Client(u64),
}

type Watch<'a> = crate::watch::Watch<'a, Source>;

impl Resolver {
    pub(crate) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            connections: BTreeMap::new(),
            next_connection: 0,
            listening: Vec::new(),
            names: None,
            servers: Servers::default(),
            flights: Flights::default(),
            clients: Clients::default(),
            buffer: vec![0; LONGEST].into_boxed_slice(),
            done: false,
        }
    }

    /// Serves until told to end, or until whoever started it is gone without having told it anything.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        while !self.done {
            let ready = self.watch().wait(Instant::now())?;
            let now = Instant::now();
            let mut heard = Vec::new();
            for source in ready {
                match source {
                    Source::Listener => self.accept(),
                    Source::Connection(id) => heard.push(id),
                    Source::Udp(address) => self.take_datagrams(address, now),
                    Source::Tcp(address) => self.take_connections(address, now),
                    Source::Flight(id) => {
                        self.flights.hear(id, &self.listening, &mut self.buffer, now);
                    }
                    Source::Client(id) => {
                        if let Some(names) = &self.names {
                            self.clients.advance(
                                id,
                                names,
                                &mut self.servers,
                                &mut self.buffer,
                                now,
                            );
                        }
                    }
                }
            }
            self.flights.expire(&self.listening, now);
            self.clients.expire(now);
            // Last: what has been heard above may concern sockets that are closed by it.
            for id in heard {
                self.hear(id);
            }
        }
        Ok(())
    }

    fn watch(&self) -> Watch<'_> {
        let mut watch = Watch::default();
        watch.add(Source::Listener, self.listener.as_fd());
        for (id, connection) in &self.connections {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, connection.is_waiting());
            watch.add_for(Source::Connection(*id), connection.as_fd(), flags);
        }
        for Listening { address, udp, tcp } in &self.listening {
            watch.add(Source::Udp(*address), udp.as_fd());
            watch.add(Source::Tcp(*address), tcp.as_fd());
        }
        self.flights.watch(&mut watch);
        self.clients.watch(&mut watch);
        watch
    }

    fn take_datagrams(&mut self, address: IpAddr, now: Instant) {
        let listening = self.listening.iter().find(|it| it.address == address);
        let (Some(listening), Some(names)) = (listening, &self.names) else { return };
        for _ in 0..AT_ONCE {
            // What else there is to say of a socket, the next one hears.
            let Ok((length, client)) = listening.udp.recv_from(&mut self.buffer) else { return };
            let Some(packet) = self.buffer.get(..length) else { return };
            self.flights.take(packet, client, listening, names, &mut self.servers, now);
        }
    }

    fn take_connections(&mut self, address: IpAddr, now: Instant) {
        let Some(listening) = self.listening.iter().find(|it| it.address == address) else {
            return;
        };
        for _ in 0..AT_ONCE {
            // A client that is gone again, or no descriptors left: the others are served all the same.
            let Ok((stream, client)) = listening.tcp.accept() else { return };
            let may_ask = self.names.as_ref().is_some_and(|names| names.is_ours(client.ip()));
            if may_ask {
                self.clients.add(stream, client.ip(), now);
            }
        }
    }

    fn accept(&mut self) {
        let hello = ResolverHello {
            protocol: RESOLVER_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id().cast_signed(),
            addresses: self.listening.iter().map(|it| it.address).collect(),
        };
        if let Some(connection) = Connection::accept(&self.listener, &hello) {
            self.connections.insert(self.next_connection, connection);
            self.next_connection += 1;
        }
    }

    /// Takes in and carries out what came on a connection.
    fn hear(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let mut closed = connection.hear(&mut self.buffer).is_err();
        // What was asked for before the end is carried out all the same.
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let command = match connection.next_request() {
                Ok(Some(command)) => command,
                Ok(None) => break,
                Err(Closed) => {
                    closed = true;
                    break;
                }
            };
            let descriptors = connection.take_descriptors();
            let failure = self.carry_out(command, descriptors).err();
            let reply = encode(&ResolverReply { failure: failure.map(|error| error.to_string()) });
            let Some(connection) = self.connections.get_mut(&id) else { return };
            closed |= !reply.is_ok_and(|frame| connection.send_frame(&frame).is_ok());
        }
        if closed {
            self.connections.remove(&id);
            self.done |= self.connections.is_empty() && self.names.is_none();
        }
    }

    fn carry_out(&mut self, command: ResolverCommand, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        match command {
            ResolverCommand::Listen { address } => {
                let sockets: Result<[OwnedFd; 2], _> = descriptors.try_into();
                let [udp, tcp] = sockets.map_err(|_| io::Error::other("there are no sockets"))?;
                let (udp, tcp) = (UdpSocket::from(udp), TcpListener::from(tcp));
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                self.listening.retain(|it| it.address != address);
                self.listening.push(Listening { address, udp, tcp });
            }
            ResolverCommand::Serve(zone) => self.serve(&zone)?,
            ResolverCommand::End => self.done = true,
        }
        Ok(())
    }

    fn serve(&mut self, zone: &Zone) -> io::Result<()> {
        let names = Names::of(zone);
        let invalid = || io::Error::other(format!("{:?} is no domain", zone.domain));
        self.names = Some(names.ok_or_else(invalid)?);
        self.listening.retain(|it| zone.addresses.contains(&it.address));
        self.servers.are_named_in(zone.resolv_conf.clone(), zone.addresses.clone());
        Ok(())
    }
}

/// A number that nobody guesses.
fn chance() -> u16 {
    let mut bytes = [0; 2];
    // Once the machine has started there are always some.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    u16::from_ne_bytes(bytes)
}
