//! Asking servers in pods.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::sync::Mutex;

/// What a server answers to a request for `/`, head and body.
pub(crate) fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Where a port is looked for: below what the kernel gives to whoever asks for any, and below NodePorts, so that
/// nobody takes one by chance before it is used, or while who has it begins anew.
///
/// Source: <https://docs.kernel.org/networking/ip-sysctl.html>, `ip_local_port_range`.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A TCP port that nobody listens on, at any address of this machine, and that no other test gets before this one's
/// end.
pub(crate) fn free_port() -> u16 {
    // Whoever has the name has the port.
    static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let mut taken = TAKEN.lock().unwrap();
    let first = usize::try_from(std::process::id()).unwrap() % PORTS.len();
    for port in PORTS.cycle().skip(first).take(PORTS.len()) {
        let name = unix::SocketAddr::from_abstract_name(format!("mainstay-test-port-{port}"));
        let Ok(name) = UnixListener::bind_addr(&name.unwrap()) else { continue };
        if TcpListener::bind(("0.0.0.0", port)).is_ok() {
            taken.push(name);
            return port;
        }
    }
    panic!("of the ports {PORTS:?} none is free");
}
