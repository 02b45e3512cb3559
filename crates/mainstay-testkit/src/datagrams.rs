//! A server of datagrams, such as one for names.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often is looked whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Says something to each datagram, until it is dropped.
pub struct Server {
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// One at the socket, which sends whoever asks what `says` returns.
    ///
    /// # Panics
    ///
    /// When the socket cannot be used.
    pub fn start(
        socket: UdpSocket,
        mut says: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        socket.set_read_timeout(Some(LOOK)).expect("the socket can wait");
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while !told.load(Ordering::SeqCst) {
                // Nobody asks just now.
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                for packet in says(&buffer[..length], from) {
                    socket.send_to(&packet, from).expect("it can be answered");
                }
            }
        });
        Self { ends, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        // One that is dropped by a panic adds none of its own.
        if !std::thread::panicking()
            && let Some(Err(panic)) = ended
        {
            std::panic::resume_unwind(panic);
        }
    }
}
