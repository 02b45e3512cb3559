//! The resolver as a program, driven by its protocol, with servers on the loopback network.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use mainstay_linux::socket;
use mainstay_shim::dns::{code, with_id};
use mainstay_shim_protocol::{
    RESOLVER_PROTOCOL, ResolverCommand, ResolverHello, ResolverReply, Zone, ZoneHost, decode,
    encode, frame_length,
};
use mainstay_testkit::datagrams::Server;
use mainstay_testkit::tools;
use serde::de::DeserializeOwned;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The kind of records that are asked for.
const A: u16 = 1;

/// A resolver that listens at an address of the loopback network, which nobody else uses, and is ended when
/// the test ends, however it ends.
struct Resolver {
    process: Child,
    stream: UnixStream,
    directory: tempfile::TempDir,
    /// What its addresses begin with.
    network: [u8; 3],
}

impl Resolver {
    /// None if this is not root, which is printed: port 53 is root's.
    fn start() -> Option<Self> {
        if !tools::is_root() {
            return None;
        }
        let mut resolver = Self::spawn();
        let address = resolver.at(1);
        let udp = OwnedFd::from(UdpSocket::bind((address, 53)).unwrap());
        let tcp = OwnedFd::from(TcpListener::bind((address, 53)).unwrap());
        resolver.call(&ResolverCommand::Listen { address }, &[udp, tcp]).unwrap();
        resolver.name_servers(&[2]);
        resolver.serve(&resolver.zone());
        Some(resolver)
    }

    fn spawn() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = socket::listen(&directory.path().join("shim.sock")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test plays the engine")]
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_mainstay-shim"))
            .arg("resolver")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        let stream = socket::connect(&directory.path().join("shim.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let [_, _, high, low] = process.id().to_be_bytes();
        let network = [127, high | 0x80, low];
        let mut resolver = Self { process, stream, directory, network };
        let hello: ResolverHello = receive(&mut resolver.stream);
        assert_eq!(hello.pid, resolver.process.id().cast_signed());
        assert_eq!((hello.protocol, hello.addresses), (RESOLVER_PROTOCOL, Vec::new()));
        resolver
    }

    fn at(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.network;
        [a, b, c, last].into()
    }

    fn zone(&self) -> Zone {
        Zone {
            domain: "cluster.local".to_owned(),
            addresses: vec![self.at(1)],
            askers: vec![(self.at(16), 28)],
            resolv_conf: self.directory.path().join("resolv.conf"),
            hosts: vec![ZoneHost {
                names: vec!["web.default.svc".to_owned()],
                addresses: vec![self.at(17)],
                ..ZoneHost::default()
            }],
        }
    }

    /// Has other servers be named, by the last numbers of their addresses.
    fn name_servers(&self, servers: &[u8]) {
        let lines = servers.iter().map(|last| format!("nameserver {}\n", self.at(*last)));
        let (file, staged) = (self.zone().resolv_conf, self.directory.path().join("staged"));
        fs::write(&staged, lines.collect::<String>()).unwrap();
        fs::rename(staged, file).unwrap();
    }

    fn serve(&mut self, zone: &Zone) {
        self.call(&ResolverCommand::Serve(Box::new(zone.clone())), &[]).unwrap();
    }

    fn call(&mut self, command: &ResolverCommand, descriptors: &[OwnedFd]) -> Result<(), String> {
        let frame = encode(command).unwrap();
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        assert_eq!(socket::send(&self.stream, &frame, &borrowed).unwrap(), frame.len());
        match receive::<ResolverReply>(&mut self.stream).failure {
            None => Ok(()),
            Some(failure) => Err(failure),
        }
    }

    /// A sandbox's socket, which is to ask the resolver.
    fn client(&self, last: u8) -> UdpSocket {
        let client = UdpSocket::bind((self.at(last), 0)).unwrap();
        client.connect((self.at(1), 53)).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// The socket of a server of the machine.
    fn server(&self, last: u8) -> UdpSocket {
        UdpSocket::bind((self.at(last), 53)).unwrap()
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((self.at(1), 53)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> T {
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut json = vec![0; frame_length(header).unwrap()];
    stream.read_exact(&mut json).unwrap();
    decode(&json).unwrap()
}

/// A question for the addresses of a name.
fn question(id: u16, name: &str) -> Vec<u8> {
    let mut packet: Vec<u8> =
        [id, 0x0100, 1, 0, 0, 1].iter().flat_map(|field| field.to_be_bytes()).collect();
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend(label.as_bytes());
    }
    packet.push(0);
    packet.extend([A, 1].iter().flat_map(|field| field.to_be_bytes()));
    // By EDNS, with an option that nobody here knows.
    packet.extend([0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 7, 0xff, 0xfe, 0, 3, 1, 2, 3]);
    packet
}

/// What a server would say to it.
fn response(question: &[u8], code: u16) -> Vec<u8> {
    let mut packet = question.to_vec();
    packet[2] |= 0x80;
    packet[3] |= code.to_be_bytes()[1];
    packet.extend(b"and what else there is");
    packet
}

fn id(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[0], packet[1]])
}

fn code_of(packet: &[u8]) -> u16 {
    u16::from(packet[3] & 0xf)
}

/// Asks as programs do: again, when nobody could answer.
#[track_caller]
fn ask(client: &UdpSocket, packet: &[u8]) -> Vec<u8> {
    for _ in 0..10 {
        client.send(packet).unwrap();
        let answer = take(client);
        assert_eq!(id(&answer), id(packet));
        if code_of(&answer) != code::SERVER_FAILURE {
            return answer;
        }
    }
    panic!("nobody answers");
}

#[track_caller]
fn take(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn write(stream: &mut TcpStream, packets: &[&[u8]]) {
    let mut bytes = Vec::new();
    for packet in packets {
        bytes.extend(u16::try_from(packet.len()).unwrap().to_be_bytes());
        bytes.extend(*packet);
    }
    stream.write_all(&bytes).unwrap();
}

#[track_caller]
fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut packet = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut packet).unwrap();
    packet
}

#[test]
fn sandboxes_are_answered_and_others_are_not() {
    let Some(mut resolver) = Resolver::start() else { return };
    let (client, stranger) = (resolver.client(17), resolver.client(99));
    let web = question(7, "web.default.svc.cluster.local");
    stranger.send(&web).unwrap();
    client.send(&web).unwrap();
    let answer = take(&client);
    assert_eq!((id(&answer), code_of(&answer)), (7, code::NO_ERROR));
    let IpAddr::V4(address) = resolver.at(17) else { panic!("it is of IPv4") };
    assert!(answer.windows(4).any(|bytes| bytes == address.octets()));
    // It asked before.
    stranger.set_nonblocking(true).unwrap();
    assert_eq!(stranger.recv(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // Names go when they are told to.
    resolver.serve(&Zone { hosts: Vec::new(), ..resolver.zone() });
    client.send(&web).unwrap();
    assert_eq!(code_of(&take(&client)), code::NO_SUCH_NAME);
    // Without a domain it would be asked for everything, so it goes on as before.
    let nothing = Zone { domain: String::new(), ..resolver.zone() };
    let told = resolver.call(&ResolverCommand::Serve(Box::new(nothing)), &[]);
    assert!(told.unwrap_err().contains("is no domain"));
    client.send(&web).unwrap();
    assert_eq!(code_of(&take(&client)), code::NO_SUCH_NAME);
}

#[test]
fn what_is_not_its_to_answer_is_asked_of_the_machines_servers() {
    let Some(resolver) = Resolver::start() else { return };
    let packet = question(7, "example.org");
    let (heard, questions) = channel();
    let stranger = UdpSocket::bind((resolver.at(3), 53)).unwrap();
    let _server = Server::start(resolver.server(2), move |asked, from| {
        heard.send(asked.to_vec()).unwrap();
        // Whoever guesses has to guess the number, and to repeat the question.
        let good = response(asked, code::NO_ERROR);
        stranger.send_to(&response(asked, code::NO_SUCH_NAME), from).unwrap();
        vec![
            with_id(good.clone(), id(asked).wrapping_add(1)),
            response(&question(id(asked), "example.com"), 0),
            asked.to_vec(),
            good,
        ]
    });
    let answer = ask(&resolver.client(17), &packet);
    // All of it but its number.
    assert_eq!(with_id(questions.recv().unwrap(), 7), packet);
    assert_eq!(answer, response(&packet, code::NO_ERROR));
}

#[test]
fn questions_of_one_number_are_told_apart() {
    let Some(resolver) = Resolver::start() else { return };
    let (client, server) = (resolver.client(17), resolver.server(2));
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let questions = ["example.org", "example.com"].map(|name| question(7, name));
    for packet in &questions {
        client.send(packet).unwrap();
    }
    // Both are on their way before one is answered.
    let mut heard: Vec<(Vec<u8>, SocketAddr)> = Vec::new();
    while !questions.iter().all(|it| heard.iter().any(|(asked, _)| asked[2..] == it[2..])) {
        let mut buffer = [0; 4096];
        let (length, from) = server.recv_from(&mut buffer).unwrap();
        heard.push((buffer[..length].to_vec(), from));
    }
    for (asked, from) in &heard {
        server.send_to(&response(asked, code::NO_ERROR), from).unwrap();
    }
    let mut answers = [take(&client), take(&client)];
    answers.sort();
    let mut expected = questions.map(|packet| response(&packet, code::NO_ERROR));
    expected.sort();
    assert_eq!(answers, expected);
}

#[test]
fn another_server_is_asked_when_one_cannot_answer() {
    let Some(resolver) = Resolver::start() else { return };
    let client = resolver.client(17);
    // Nobody is at the first one.
    resolver.name_servers(&[2, 3]);
    let says = |code| move |asked: &[u8], _| vec![response(asked, code)];
    let second = Server::start(resolver.server(3), says(code::NO_SUCH_NAME));
    assert_eq!(code_of(&ask(&client, &question(1, "example.org"))), code::NO_SUCH_NAME);
    // It says nothing.
    let first = resolver.server(2);
    assert_eq!(code_of(&ask(&client, &question(2, "example.org"))), code::NO_SUCH_NAME);
    // It does not want to; and neither does the other one.
    let _first = Server::start(first, says(code::REFUSED));
    assert_eq!(code_of(&ask(&client, &question(3, "example.org"))), code::NO_SUCH_NAME);
    drop(second);
    let _second = Server::start(resolver.server(3), says(code::REFUSED));
    assert_eq!(code_of(&ask(&client, &question(4, "example.org"))), code::REFUSED);
    // There is none at all.
    resolver.name_servers(&[]);
    client.send(&question(5, "example.org")).unwrap();
    let answer = take(&client);
    assert_eq!((id(&answer), code_of(&answer)), (5, code::SERVER_FAILURE));
}

#[test]
fn long_answers_come_over_tcp() {
    let Some(mut resolver) = Resolver::start() else { return };
    resolver.name_servers(&[2, 3]);
    let server = TcpListener::bind((resolver.at(3), 53)).unwrap();
    // From an address that may not ask: it is closed.
    let mut stranger = resolver.connect();
    assert_eq!(stranger.read(&mut [0]).unwrap_or(0), 0);
    let mut zone = resolver.zone();
    zone.askers.push(([127, 0, 0, 1].into(), 32));
    resolver.serve(&zone);
    let mut client = resolver.connect();
    let (web, other) = (question(5, "web.default.svc.cluster.local"), question(6, "example.org"));
    write(&mut client, &[&other, &web]);
    // Nobody is at the first server.
    let (mut connection, _) = server.accept().unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = read(&mut connection);
    assert_eq!(with_id(asked.clone(), 6), other);
    let mut long = response(&asked, code::NO_ERROR);
    long.extend([7; 60_000]);
    write(&mut connection, &[&long]);
    assert_eq!(read(&mut client), with_id(long, 6));
    // In their order.
    let answer = read(&mut client);
    assert_eq!((id(&answer), code_of(&answer)), (5, code::NO_ERROR));
    // One that does not want to leaves it to the next one.
    let unwilling = TcpListener::bind((resolver.at(2), 53)).unwrap();
    write(&mut client, &[&other]);
    for (server, code) in [(&unwilling, code::REFUSED), (&server, code::NO_SUCH_NAME)] {
        let (mut connection, _) = server.accept().unwrap();
        connection.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = read(&mut connection);
        write(&mut connection, &[&response(&asked, code)]);
    }
    assert_eq!(code_of(&read(&mut client)), code::NO_SUCH_NAME);
    drop(unwilling);
    // A server that leaves is no answer.
    write(&mut client, &[&other]);
    drop(server.accept().unwrap());
    let answer = read(&mut client);
    assert_eq!((id(&answer), code_of(&answer)), (6, code::SERVER_FAILURE));
}

#[test]
fn it_stays_when_it_is_left_and_ends_when_it_is_told_to() {
    let Some(mut resolver) = Resolver::start() else { return };
    let client = resolver.client(17);
    let path = resolver.directory.path().join("shim.sock");
    // The agent ends, and another one comes.
    resolver.stream = socket::connect(&path).unwrap();
    let hello: ResolverHello = receive(&mut resolver.stream);
    assert_eq!(hello.addresses, [resolver.at(1)]);
    client.send(&question(1, "web.default.svc.cluster.local")).unwrap();
    assert_eq!(code_of(&take(&client)), code::NO_ERROR);
    resolver.call(&ResolverCommand::End, &[]).unwrap();
    assert!(resolver.process.wait().unwrap().success());
    assert!(is_refused(&path));
}

#[test]
fn it_ends_when_it_is_left_without_having_been_told_anything() {
    let mut resolver = Resolver::spawn();
    let (stream, _) = UnixStream::pair().unwrap();
    drop(std::mem::replace(&mut resolver.stream, stream));
    assert!(resolver.process.wait().unwrap().success());
}

fn is_refused(path: &Path) -> bool {
    socket::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
