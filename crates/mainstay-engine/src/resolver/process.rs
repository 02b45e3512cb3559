//! The resolver's process: found or started, told, ended.

use std::fs;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_cri::{Error, ErrorKind, Result};
use mainstay_linux::process::{Pidfd, reap};
use mainstay_linux::socket;
use mainstay_shim_protocol::{
    RESOLVER_PROTOCOL, ResolverCommand, ResolverHello, ResolverReply, Zone, decode, encode,
    frame_length,
};
use rustix::process::Signal;
use serde::de::DeserializeOwned;

use crate::launch::{Purpose, connect};
use crate::network::Sockets;
use crate::record::ShimProcess;
use crate::{Instance, failed, io_failed};

/// Its directory in the run directory, and its control group in the instance's.
const DIRECTORY: &str = "resolver";

/// How long it may take for anything: what it is asked for it does at once.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A process that answers.
#[derive(Debug)]
pub(super) struct Running {
    stream: UnixStream,
    pub(super) process: ShimProcess,
    pub(super) since: Instant,
    pub(super) addresses: Vec<IpAddr>,
    told: Option<Zone>,
}

/// Why a process has not been told something.
#[derive(Debug)]
pub(super) enum Untold {
    /// It cannot be said in the protocol; the process is as it was.
    Unsayable(Error),
    /// The process does not do its work.
    Broken(Error),
}

/// Looks for the process that an earlier agent has started. One of another version is ended.
pub(super) fn find(engine: &Instance) -> Result<Option<Running>> {
    let Some(stream) = connect(&directory(engine))? else { return Ok(None) };
    let (running, hello) = match Running::greet(stream) {
        Ok(greeted) => greeted,
        // It is about to end, or will never.
        Err(error) => {
            tracing::warn!(error = error.chain(), "the resolver is ended by force");
            return kill(engine).map(|()| None);
        }
    };
    if hello.protocol == RESOLVER_PROTOCOL && hello.version == env!("CARGO_PKG_VERSION") {
        return Ok(Some(running));
    }
    tracing::info!(version = hello.version, "the resolver is of another version and is replaced");
    running.end().map(|()| None)
}

/// Starts the process, which knows nothing yet.
pub(super) fn start(engine: &Arc<Instance>) -> Result<Running> {
    let directory = directory(engine);
    let path = directory.display();
    // What one before has left.
    mainstay_linux::path::remove_all(&directory)
        .and_then(|()| fs::create_dir_all(&directory))
        .map_err(io_failed(format!("cannot make {path}")))?;
    let launched = engine.launcher()?.launch(&directory, Purpose::Resolver, None);
    let launched = launched.map_err(failed("cannot start the resolver"))?;
    match Running::greet(launched.stream) {
        Ok((running, _)) => {
            place(engine, launched.pid);
            Ok(running)
        }
        Err(error) => {
            // A child that nobody has waited for: the number is its own.
            if let Ok(process) = Pidfd::open(launched.pid) {
                let killed = process.signal(Signal::KILL.as_raw()).and_then(|()| process.wait());
                killed.map_err(io_failed("cannot end the resolver"))?;
            }
            drop(reap(launched.pid));
            Err(error)
        }
    }
}

/// Ends by force what is in the resolver's control group: a process that does not answer.
pub(super) fn kill(engine: &Instance) -> Result<()> {
    let path = engine.cgroup(DIRECTORY);
    let processes = engine.hierarchies().at(&path).processes();
    let processes = processes.map_err(failed("cannot look into the resolver's control group"))?;
    engine.kill_group(&path)?;
    for pid in processes {
        // Those of an earlier agent are no children of this one.
        drop(reap(pid));
    }
    Ok(())
}

/// Moves the process out of the agent's control group. That waits for a grace period of the kernel, and nobody
/// waits for it.
pub(super) fn place(engine: &Arc<Instance>, pid: i32) {
    let instance = engine.clone();
    engine.spawn(async move {
        let placed = crate::blocking(move || {
            let placed = instance.place(pid, &instance.cgroup(DIRECTORY));
            placed.map_err(failed("cannot move the resolver to its control group"))
        });
        // One that has ended meanwhile needs no place.
        if let Err(error) = placed.await
            && ShimProcess::of(pid).is_ok()
        {
            tracing::warn!(error = error.chain(), "the resolver ends with the agent's service");
        }
    });
}

pub(super) fn directory(engine: &Instance) -> PathBuf {
    engine.config.run_dir.join(DIRECTORY)
}

impl Running {
    /// Greets a process on a fresh connection.
    fn greet(mut stream: UnixStream) -> Result<(Self, ResolverHello)> {
        stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(io_failed("cannot talk to the resolver"))?;
        let hello: ResolverHello = receive(&mut stream)?;
        let process = ShimProcess::of(hello.pid);
        let running = Self {
            stream,
            process: process.map_err(io_failed("cannot look at the resolver"))?,
            since: Instant::now(),
            addresses: hello.addresses.clone(),
            told: None,
        };
        Ok((running, hello))
    }

    /// Hands over sockets, and tells it all that it has to know, unless it knows it.
    pub(super) fn tell(
        &mut self,
        sockets: Vec<(IpAddr, Sockets)>,
        mut zone: Zone,
    ) -> std::result::Result<(), Untold> {
        for (address, sockets) in sockets {
            self.call(&ResolverCommand::Listen { address }, &sockets)?;
            self.addresses.push(address);
        }
        zone.addresses.retain(|address| self.addresses.contains(address));
        if self.told.as_ref() == Some(&zone) {
            return Ok(());
        }
        self.call(&ResolverCommand::Serve(Box::new(zone.clone())), &[])?;
        self.addresses.clone_from(&zone.addresses);
        self.told = Some(zone);
        Ok(())
    }

    fn call(
        &mut self,
        command: &ResolverCommand,
        descriptors: &[OwnedFd],
    ) -> std::result::Result<(), Untold> {
        let frame = encode(command).map_err(failed("cannot tell the resolver"));
        let frame = frame.map_err(Untold::Unsayable)?;
        self.send(&frame, descriptors).map_err(Untold::Broken)
    }

    fn send(&mut self, frame: &[u8], descriptors: &[OwnedFd]) -> Result<()> {
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        socket::send(&self.stream, frame, &borrowed)
            .and_then(|sent| self.stream.write_all(frame.get(sent..).unwrap_or_default()))
            .map_err(io_failed("cannot talk to the resolver"))?;
        match receive::<ResolverReply>(&mut self.stream)?.failure {
            None => Ok(()),
            Some(failure) => {
                Err(Error::new(ErrorKind::Internal, format!("the resolver: {failure}")))
            }
        }
    }

    /// Ends the process.
    pub(super) fn end(mut self) -> Result<()> {
        let Some(process) = self.process.open() else { return Ok(()) };
        let failed = || io_failed("cannot end the resolver");
        // One that does not take it is ended by force.
        let asked = self.call(&ResolverCommand::End, &[]).is_ok();
        let ended = asked && process.wait_until(Instant::now() + PATIENCE).map_err(failed())?;
        if !ended {
            process.signal(Signal::KILL.as_raw()).map_err(failed())?;
            process.wait().map_err(failed())?;
        }
        drop(reap(self.process.pid));
        Ok(())
    }
}

fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> Result<T> {
    let mut header = [0; 4];
    let unheard = || io_failed("the resolver does not answer");
    stream.read_exact(&mut header).map_err(unheard())?;
    let length = frame_length(header).map_err(failed("the resolver breaks the protocol"))?;
    let mut json = vec![0; length];
    stream.read_exact(&mut json).map_err(unheard())?;
    decode(&json).map_err(failed("the resolver breaks the protocol"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn what_cannot_be_said_leaves_it_as_it_was() {
        let (here, mut there) = UnixStream::pair().unwrap();
        let process = ShimProcess::of(std::process::id().cast_signed()).unwrap();
        let (since, addresses) = (Instant::now(), Vec::new());
        let mut running = Running { stream: here, process, since, addresses, told: None };
        let domain = "a".repeat(mainstay_shim_protocol::MAX_FRAME);
        let told = running.tell(Vec::new(), Zone { domain, ..Zone::default() });
        assert!(matches!(told, Err(Untold::Unsayable(_))), "{told:?}");
        assert_eq!(running.told, None);
        there.set_nonblocking(true).unwrap();
        assert_eq!(there.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // Nobody answers any more.
        drop(there);
        let told = running.tell(Vec::new(), Zone::default());
        assert!(matches!(told, Err(Untold::Broken(_))), "{told:?}");
    }

    #[test]
    fn one_that_does_not_understand_is_ended_by_force() {
        #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
        #[expect(clippy::zombie_processes, reason = "it is taken leave of by its number")]
        let child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let (here, mut there) = UnixStream::pair().unwrap();
        // As a later version may say it.
        let hello = format!(
            r#"{{"protocol":9,"version":"9.0.0","pid":{pid},"addresses":["10.1.0.1"],"more":[]}}"#
        );
        there.write_all(&u32::try_from(hello.len()).unwrap().to_le_bytes()).unwrap();
        there.write_all(hello.as_bytes()).unwrap();
        let (running, hello) = Running::greet(here).unwrap();
        assert_eq!((hello.protocol, hello.version.as_str()), (9, "9.0.0"));
        assert_eq!(running.addresses, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        // It hangs up instead of an answer.
        drop(there);
        running.end().unwrap();
        assert_eq!(ShimProcess::of(pid).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
