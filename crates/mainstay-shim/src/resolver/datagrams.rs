//! Questions that came over UDP, and those of them that others are asked.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mainstay_shim::dns::{
    Decision, LONGEST_QUESTION, Names, Question, Transport, answer, belongs, code, failure,
    is_failure, with_id,
};

use super::servers::Servers;
use super::{Listening, Source, Watch, chance};

/// How many questions may be on their way, each with a descriptor of its own.
const MOST: usize = 256;
/// How many of them one sandbox may have.
const MOST_OF_ONE: usize = 64;

/// How long a server may take. Whoever asks waits for five seconds, and asks again (resolv.conf(5)).
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a question is asked at least, and at most.
const ATTEMPTS: std::ops::RangeInclusive<usize> = 2..=3;

/// Questions that others have been asked.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flights: BTreeMap<u64, Flight>,
    next: u64,
}

/// A question that others have been asked.
#[derive(Debug)]
struct Flight {
    /// At which of our addresses it came in.
    address: IpAddr,
    client: SocketAddr,
    /// The client's number of it.
    number: u16,
    /// As the client sent it.
    packet: Vec<u8>,
    servers: Vec<SocketAddr>,
    /// How often it has been sent.
    attempts: usize,
    under_way: UnderWay,
}

/// One attempt.
#[derive(Debug)]
struct UnderWay {
    socket: UdpSocket,
    number: u16,
    deadline: Instant,
}

impl Flights {
    pub(super) fn watch<'a>(&'a self, watch: &mut Watch<'a>) {
        for (id, flight) in &self.flights {
            watch.add(Source::Flight(*id), flight.under_way.socket.as_fd());
            watch.until(flight.under_way.deadline);
        }
    }

    /// Answers a question, or has it answered.
    pub(super) fn take(
        &mut self,
        packet: &[u8],
        client: SocketAddr,
        listening: &Listening,
        names: &Names,
        servers: &mut Servers,
        now: Instant,
    ) {
        let response = match answer(names, packet, client.ip(), Transport::Udp) {
            Decision::Drop => return,
            Decision::Answer(response) => response,
            Decision::Forward => {
                let Ok(question) = Question::read(packet) else { return };
                // It comes again while it is on its way.
                let known = self.flights.values();
                if packet.len() > LONGEST_QUESTION
                    || known.clone().any(|it| it.client == client && it.packet == packet)
                {
                    return;
                }
                let of_one = known.filter(|it| it.client.ip() == client.ip()).count();
                let servers = servers.now();
                let has_room = self.flights.len() < MOST && of_one < MOST_OF_ONE;
                let under_way = match has_room {
                    true => begin(packet, &servers, 0, now),
                    false => None,
                };
                match under_way {
                    Some((under_way, attempts)) => {
                        let flight = Flight {
                            address: listening.address,
                            client,
                            number: question.id,
                            packet: packet.to_vec(),
                            servers,
                            attempts,
                            under_way,
                        };
                        self.flights.insert(self.next, flight);
                        self.next += 1;
                        return;
                    }
                    None => failure(&question, code::SERVER_FAILURE),
                }
            }
        };
        send(listening, client, &response);
    }

    /// Takes in what came for a question.
    pub(super) fn hear(
        &mut self,
        id: u64,
        listening: &[Listening],
        buffer: &mut [u8],
        now: Instant,
    ) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let response = match flight.under_way.socket.recv(buffer) {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Nobody is there.
            Err(_) => return self.again(id, listening, now),
        };
        let question = Question::read(&flight.packet).ok();
        let section = question.map_or(&[][..], |question| question.section);
        if !belongs(response, flight.under_way.number, section) {
            return;
        }
        if is_failure(response) && flight.attempts < flight.servers.len() {
            return self.again(id, listening, now);
        }
        let response = with_id(response.to_vec(), flight.number);
        if let Some(listening) = listening.iter().find(|it| it.address == flight.address) {
            send(listening, flight.client, &response);
        }
        self.flights.remove(&id);
    }

    /// Goes on with those that have waited long enough.
    pub(super) fn expire(&mut self, listening: &[Listening], now: Instant) {
        let late = self.flights.iter().filter(|(_, flight)| flight.under_way.deadline <= now);
        for id in late.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.again(id, listening, now);
        }
    }

    /// Asks the next server, or says that there is none.
    fn again(&mut self, id: u64, listening: &[Listening], now: Instant) {
        let Some(flight) = self.flights.get_mut(&id) else { return };
        let begun = begin(&flight.packet, &flight.servers, flight.attempts, now);
        if let Some((under_way, attempts)) = begun {
            (flight.under_way, flight.attempts) = (under_way, attempts);
            return;
        }
        let listening = listening.iter().find(|it| it.address == flight.address);
        if let (Some(listening), Ok(question)) = (listening, Question::read(&flight.packet)) {
            send(listening, flight.client, &failure(&question, code::SERVER_FAILURE));
        }
        self.flights.remove(&id);
    }
}

/// Sends a question to the next server that takes it. Returns how many attempts there have been then;
/// `None` if there have been enough.
fn begin(
    packet: &[u8],
    servers: &[SocketAddr],
    attempts: usize,
    now: Instant,
) -> Option<(UnderWay, usize)> {
    let most = servers.len().clamp(*ATTEMPTS.start(), *ATTEMPTS.end());
    (attempts..most).find_map(|attempt| {
        let server = *servers.get(attempt.checked_rem(servers.len())?)?;
        let number = chance();
        let socket = ask(server, &with_id(packet.to_vec(), number)).ok()?;
        Some((UnderWay { socket, number, deadline: now + PATIENCE }, attempt + 1))
    })
}

fn ask(server: SocketAddr, packet: &[u8]) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // The kernel picks the port by chance, and takes nothing from others than the server.
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    socket.send(packet)?;
    Ok(socket)
}

/// Sends a response. One that is lost, here as on the way, is asked for again.
fn send(listening: &Listening, client: SocketAddr, response: &[u8]) {
    drop(listening.udp.send_to(response, client));
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use mainstay_shim_protocol::Zone;

    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn nobody_has_all_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        // Where nobody answers, which nobody waits for here.
        std::fs::write(&resolv_conf, "nameserver 127.255.255.254\n").unwrap();
        let mut servers = Servers::default();
        servers.are_named_in(resolv_conf, Vec::new());
        let udp = UdpSocket::bind((LOOPBACK, 0)).unwrap();
        let tcp = TcpListener::bind((LOOPBACK, 0)).unwrap();
        let listening = Listening { address: LOOPBACK, udp, tcp };
        let (domain, askers) = ("cluster.local".to_owned(), vec![(LOOPBACK, 8)]);
        let names = Names::of(&Zone { domain, askers, ..Zone::default() }).unwrap();
        let client = |last: u8| {
            let client = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
            client.set_nonblocking(true).unwrap();
            client
        };
        let (mut flights, now) = (Flights::default(), Instant::now());
        let mut ask = |client: &UdpSocket, number: u16| {
            let mut packet = number.to_be_bytes().to_vec();
            packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 0, 0, 1, 0, 1]);
            let address = client.local_addr().unwrap();
            flights.take(&packet, address, &listening, &names, &mut servers, now);
            let mut buffer = [0; 64];
            // The loopback network delivers before the call returns.
            let told = client.recv(&mut buffer).ok();
            (flights.flights.len(), told.map(|_| u16::from(buffer[3] & 0xf)))
        };
        let clients: Vec<_> = (1..=6).map(client).collect();
        for (before, client) in clients.iter().take(4).enumerate() {
            for number in 0..64 {
                let count = before * MOST_OF_ONE + usize::from(number) + 1;
                assert_eq!(ask(client, number), (count, None));
                // The same again is no other question.
                assert_eq!(ask(client, number), (count, None));
            }
            let count = (before + 1) * MOST_OF_ONE;
            assert_eq!(ask(client, 64), (count, Some(code::SERVER_FAILURE)));
        }
        assert_eq!(ask(&clients[4], 0), (MOST, Some(code::SERVER_FAILURE)));
        // They are given up at last, and told so.
        for _ in 0..2 {
            flights.expire(&[], now + PATIENCE);
        }
        flights.expire(&[], now + 2 * PATIENCE);
        assert_eq!(flights.flights.len(), 0);
    }
}
