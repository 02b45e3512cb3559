use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::*;

const REFUSED: &[u8] = b"\x04\x01s\0\x01\0\0\0E\0";
const LOGIND: &[u8] = b"\x07\x01s\0\x04\0\0\0:1.2\0";
const TEXT: &[u8] = b"\x08\x01g\0\x01s\0";

/// A message of this kind.
fn message(kind: u8, reply_to: u32, fields: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let mut all = b"\x05\x01u\0".to_vec();
    all.extend(reply_to.to_le_bytes());
    for field in fields {
        all.resize(all.len().next_multiple_of(8), 0);
        all.extend(*field);
    }
    let mut bytes = vec![b'l', kind, 0, 1];
    bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(u32::try_from(all.len()).unwrap().to_le_bytes());
    bytes.extend(all);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

/// A bus that lets one client in, answers its first call, and then does something else.
fn bus(then: impl FnOnce(UnixStream) + Send + 'static) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap());
        for (expected, answer) in [
            ("\0AUTH EXTERNAL ", "OK 0123456789abcdef\r\n"),
            ("NEGOTIATE_UNIX_FD", "AGREE_UNIX_FD\r\n"),
            ("BEGIN", ""),
        ] {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            assert!(line.starts_with(expected), "{line}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
        // It goes on where nothing more was read.
        let hello = next_call(&mut lines);
        assert_eq!(hello.member, "Hello");
        stream.write_all(&message(2, 1, &[], b"")).unwrap();
        then(stream);
    });
    (directory, path)
}

fn next_call(stream: &mut impl Read) -> Message {
    let mut fixed = [0; FIXED];
    stream.read_exact(&mut fixed).unwrap();
    let mut bytes = vec![0; Message::length(&fixed).unwrap()];
    bytes[..FIXED].copy_from_slice(&fixed);
    stream.read_exact(&mut bytes[FIXED..]).unwrap();
    Message::decode(&bytes).unwrap()
}

fn inhibit(connection: &mut Connection) -> Result<Message, CallError> {
    connection.call(&Call {
        destination: "org.freedesktop.login1",
        path: "/org/freedesktop/login1",
        interface: "org.freedesktop.login1.Manager",
        member: "Inhibit",
        body: Body::default().string("shutdown"),
    })
}

#[test]
fn an_answer_has_its_descriptors_and_signals_before_it_are_kept() {
    let (_directory, path) = bus(|mut stream| {
        assert_eq!(next_call(&mut stream).text(), "shutdown");
        let signal = message(4, 0, &[b"\x03\x01s\0\x01\0\0\0m\0", LOGIND], b"");
        stream.write_all(&signal).unwrap();
        let (read, mut write) = std::io::pipe().unwrap();
        write.write_all(b"lock").unwrap();
        let answer = message(2, 2, &[LOGIND, b"\x09\x01u\0\x01\0\0\0"], b"\0\0\0\0");
        // The descriptor comes with the first byte, the rest later.
        socket::send(&stream, &answer[..5], &[read.as_fd()]).unwrap();
        stream.write_all(&answer[5..]).unwrap();
        stream.write_all(&message(4, 0, &[LOGIND], b"")).unwrap();
    });
    let mut connection = Connection::open(&path).unwrap();
    let answer = inhibit(&mut connection).unwrap();
    assert_eq!(answer.sender, ":1.2");
    let [lock] = <[OwnedFd; 1]>::try_from(answer.descriptors).unwrap();
    assert_eq!(io::read_to_string(File::from(lock)).unwrap(), "lock");
    assert_eq!(connection.signal().unwrap().member, "m");
    assert_eq!(connection.signal().unwrap().sender, ":1.2");
    let end = connection.signal().unwrap_err();
    assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_refusal_says_why() {
    let (_directory, path) = bus(|mut stream| {
        next_call(&mut stream);
        stream.write_all(&message(3, 2, &[REFUSED, TEXT], b"\x02\0\0\0no\0")).unwrap();
    });
    let mut connection = Connection::open(&path).unwrap();
    assert_eq!(inhibit(&mut connection).unwrap_err().to_string(), "E: no");
}

#[test]
fn what_is_no_message_ends_the_connection() {
    for (sent, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "it is no message"),
        (message(2, 2, &[b"\x09\x01u\0\x02\0\0\0"], b""), "descriptors of a message are missing"),
    ] {
        let (_directory, path) = bus(move |mut stream| {
            next_call(&mut stream);
            stream.write_all(&sent).unwrap();
        });
        let mut connection = Connection::open(&path).unwrap();
        let error = inhibit(&mut connection).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap();
        assert_eq!(cause.to_string(), expected);
    }
}

#[test]
fn a_bus_that_does_not_take_this_user_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        // Until the client is gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = Connection::open(&path).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "the bus does not take this user: REJECTED EXTERNAL");
    assert!(Connection::open(&directory.path().join("none")).is_err());
}

#[test]
fn the_environment_says_where_the_bus_is() {
    for (address, expected) in [
        (None, Some(SYSTEM_BUS)),
        (Some(""), Some(SYSTEM_BUS)),
        (Some("unix:path=/x"), Some("/x")),
        (Some("tcp:host=h;unix:guid=1,path=/y"), Some("/y")),
        (Some("unix:abstract=/x"), None),
        (Some("unix:path=/%20"), None),
    ] {
        assert_eq!(system_bus(address), expected.map(PathBuf::from), "{address:?}");
    }
}

/// Ends what it has started.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What everybody else's bus says of all that, where there is one.
#[test]
#[expect(clippy::disallowed_methods, reason = "it is what everybody else's bus is")]
fn a_real_bus_is_understood() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let started = Command::new("dbus-daemon")
        .args(["--session", "--nofork", "--print-address"])
        .arg(format!("--address=unix:path={}", path.display()))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut daemon) = started else {
        println!("skipped: there is no dbus-daemon");
        return;
    };
    let mut address = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let _daemon = Daemon(daemon);
    let mut connection = Connection::open(&path).unwrap();
    let ask = |member| Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
        body: Body::default().string("org.freedesktop.DBus"),
    };
    let owner = connection.call(&ask("GetNameOwner")).unwrap();
    assert_eq!((owner.text(), &*owner.sender), ("org.freedesktop.DBus", "org.freedesktop.DBus"));
    let refused = connection.call(&ask("Nothing")).unwrap_err();
    assert!(refused.to_string().contains("UnknownMethod"), "{refused}");
    connection.add_match("type='signal',member='NameOwnerChanged'").unwrap();
    let other = Connection::open(&path).unwrap();
    // That this client has a name is told in between.
    let mut signals = std::iter::from_fn(|| connection.signal().ok());
    let signal = signals.find(|it| it.member != "NameAcquired").unwrap();
    assert_eq!((&*signal.member, &*signal.signature), ("NameOwnerChanged", "sss"));
    drop(other);
}
