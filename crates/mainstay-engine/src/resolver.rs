//! The resolver: names of sandboxes for each other, over DNS.
//!
//! It is a process of its own, since sandboxes ask also when no agent runs; of the shim's program, since it
//! has a shim's life. What it does is told in `crates/mainstay-shim/src/resolver.rs`.
//!
//! # Flow
//!
//! [`see_to`] compares what there should be with what there is, and makes it so: whenever a sandbox has come
//! or gone, somebody asks where to ask for names, the process has ended ([`follow`]), or the network is looked
//! after. A process that an earlier agent has started is found by its socket.
//!
//! # Guarantees
//!
//! - It runs while there are sandboxes that were told of it, also when no new ones are; and without them not for
//!   long. So long what is asked at the bridge's addresses comes to it.
//! - One of another version is replaced; meanwhile nobody is answered, and who asks asks again.
//! - That it cannot be had keeps no sandbox from being made: who asks is told why.

mod process;

use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mainstay_cri::{DNS_NAMES, Error, ErrorKind, NamespaceMode, Result};
use mainstay_linux::process::reap;
use mainstay_linux::socket;
use mainstay_shim_protocol::{Zone, ZoneHost};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;

use crate::launch::SOCKET;
use crate::network::{Counter, Sockets};
use crate::record::{Maker, SandboxRecord, ShimProcess};
use crate::sandbox::Sandbox;
use crate::{Instance, io_failed, network_failed};
use process::{PATIENCE, Running, Untold, directory, find, kill, place, start};

/// One that ends sooner than that is not started again at once.
const SHORT_LIFE: Duration = Duration::from_secs(10);
/// How long it is left alone then, twice as long each time up to the second one.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(30)];

/// What names are given by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamesConfig {
    /// Whether new sandboxes are told of the resolver.
    pub offered: bool,
    /// What all names end in, such as `cluster.local`: a name of DNS.
    pub domain: String,
    /// The file that names the servers for all other names, as resolv.conf(5) has it.
    pub resolv_conf: PathBuf,
    /// The machine's own addresses, which sandboxes on its network are found at.
    pub machine: Vec<IpAddr>,
}

/// The instance's resolver.
#[derive(Debug, Default)]
pub(crate) struct Resolver {
    state: Mutex<State>,
    /// The machine's own addresses, if they are others than those that it had at first. Apart from the state, which
    /// is held while the process is waited for.
    machine: Mutex<Option<Vec<IpAddr>>>,
    /// Whether somebody is about to see to it.
    awaited: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Whether it has been looked for.
    looked: bool,
    running: Option<Running>,
    /// Why it cannot be had.
    failure: Option<String>,
    /// How many have ended too soon, one after the other.
    short_lives: u32,
}

/// Why it is seen to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// Somebody is about to tell a new sandbox of it, so it has to be there.
    Asked,
    /// A sandbox or an address has come or gone.
    Changed,
    /// The network is looked after, as it is now and then. Only then it is ended: the next sandbox may be about to
    /// come, and would wait for it.
    Looked,
}

/// How often it has been tried just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    Second,
}

impl Resolver {
    /// Takes in which addresses the machine has; tells whether they are others.
    pub(crate) fn machine_has(&self, addresses: Vec<IpAddr>) -> bool {
        let mut machine = lock(&self.machine);
        let changed = machine.as_ref() != Some(&addresses);
        *machine = Some(addresses);
        changed
    }

    /// Ends it and removes what it has, for an instance that is given up.
    pub(crate) fn end(&self, engine: &Instance) -> Result<()> {
        let mut state = self.lock();
        if state.running.is_none() {
            state.running = find(engine)?;
        }
        state.running.take().map_or(Ok(()), Running::end)?;
        // One that could not be talked to.
        kill(engine)?;
        let directory = directory(engine);
        mainstay_linux::path::remove_all(&directory)
            .map_err(io_failed(format!("cannot remove {}", directory.display())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of what they guard is one assignment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has it seen to in the background, if there are names to be given.
pub(crate) fn look_after(engine: &Arc<Instance>) {
    let is_due = engine.config.names.is_some();
    if !is_due || engine.resolver.awaited.swap(true, Ordering::SeqCst) {
        return;
    }
    let instance = engine.clone();
    engine.spawn(async move {
        // What is wrong is told by it.
        drop(crate::blocking(move || see_to(&instance, Occasion::Changed)).await);
    });
}

/// Makes the resolver be as it should, and returns the addresses at which new sandboxes ask: none if they are not
/// told of it.
///
/// # Errors
///
/// Why it cannot be had.
pub(crate) fn see_to(engine: &Arc<Instance>, occasion: Occasion) -> Result<Vec<IpAddr>> {
    let Some(config) = &engine.config.names else { return Ok(Vec::new()) };
    if occasion == Occasion::Asked && !config.offered {
        return Ok(Vec::new());
    }
    let mut state = engine.resolver.lock();
    // Whatever changes from here on is seen by the next one.
    engine.resolver.awaited.store(false, Ordering::SeqCst);
    let settled = state.settle(engine, config, occasion, Attempt::First);
    let failure = settled.as_ref().err().map(Error::chain);
    if let Some(failure) = failure.as_ref().filter(|_| failure != state.failure) {
        tracing::warn!("pods do not find each other by their names: {failure}");
    }
    state.failure = failure;
    settled
}

impl State {
    fn settle(
        &mut self,
        engine: &Arc<Instance>,
        config: &NamesConfig,
        occasion: Occasion,
        attempt: Attempt,
    ) -> Result<Vec<IpAddr>> {
        if !self.looked {
            self.running = find(engine)?;
            self.looked = true;
            self.follow(engine);
            // The agent that has started it may have ended before it did.
            if let Some(running) = &self.running {
                place(engine, running.process.pid);
            }
        }
        let machine = lock(&engine.resolver.machine).clone();
        let hosts = hosts(engine, machine.as_ref().unwrap_or(&config.machine));
        match occasion {
            Occasion::Looked if hosts.is_empty() => {
                // Whoever else listens there is asked again.
                let unheard = network_failed("questions at the bridge cannot go elsewhere again");
                engine.network()?.lead_questions(false).map_err(unheard)?;
                let ended = self.running.take().map_or(Ok(()), Running::end);
                return ended.map(|()| Vec::new());
            }
            Occasion::Changed if hosts.is_empty() && self.running.is_none() => {
                return Ok(Vec::new());
            }
            Occasion::Asked | Occasion::Changed | Occasion::Looked => {}
        }
        let network = engine.network()?;
        let counter = network.counter(occasion == Occasion::Asked);
        let counter = counter.map_err(network_failed("there is no network to be asked on"))?;
        let Some(Counter { primary, all, askers }) = counter else { return Ok(Vec::new()) };
        let shut = network.shut();
        let mut shut = shut.map(|it| Error::new(ErrorKind::FailedPrecondition, it.to_string()));
        // 1. Where it listens.
        let listens = |running: &Option<Running>, address: &IpAddr| {
            running.as_ref().is_some_and(|running| running.addresses.contains(address))
        };
        let mut bound: Vec<(IpAddr, Sockets)> = Vec::new();
        let mut refused = None;
        for address in all.iter().filter(|address| !listens(&self.running, address)) {
            match network.listen(*address) {
                Ok(sockets) => bound.push((*address, sockets)),
                Err(error) => refused = Some(error),
            }
        }
        let unasked = || network_failed("nobody can be asked on the pods' network");
        let mut refused = refused.map(unasked());
        // Sandboxes that have been told of it have nobody else to ask, whatever filters there are.
        if let Some(shut) = shut.take_if(|_| self.running.is_none() && hosts.is_empty()) {
            return Err(shut);
        }
        if self.running.is_none() {
            if let Some(refused) = refused.take() {
                return Err(refused);
            }
            self.running = Some(start(engine)?);
            self.follow(engine);
        }
        // 2. What it knows.
        let Some(running) = &mut self.running else { return Ok(Vec::new()) };
        let zone = Zone {
            domain: config.domain.clone(),
            addresses: all,
            askers,
            resolv_conf: config.resolv_conf.clone(),
            hosts,
        };
        let error = match running.tell(bound, zone) {
            Ok(()) => {
                network.lead_questions(true).map_err(unasked())?;
                return refused.or(shut).map_or(Ok(vec![primary]), Err);
            }
            // Another process could not be told it either.
            Err(Untold::Unsayable(error)) => return Err(error),
            Err(Untold::Broken(error)) => error,
        };
        // It has just ended, or does not do its work.
        let pause = self.pause();
        self.running.take().map_or(Ok(()), Running::end)?;
        match attempt {
            Attempt::First => self.settle(engine, config, occasion, Attempt::Second),
            Attempt::Second => {
                engine.spawn(wait(engine.clone(), pause));
                Err(error)
            }
        }
    }

    /// How long the next one is not started if this one ends now.
    fn pause(&mut self) -> Duration {
        let lived = self.running.as_ref().map(|running| running.since.elapsed());
        if lived.is_none_or(|lived| lived >= SHORT_LIFE) {
            self.short_lives = 0;
            return Duration::ZERO;
        }
        let [shortest, longest] = PAUSES;
        let pause = shortest.saturating_mul(1 << self.short_lives.min(16)).min(longest);
        self.short_lives = self.short_lives.saturating_add(1);
        pause
    }

    /// Listens for the end of the process, on a connection of its own.
    fn follow(&self, engine: &Arc<Instance>) {
        if let Some(running) = &self.running {
            let stream = socket::connect(&directory(engine).join(SOCKET));
            engine.spawn(follow(engine.clone(), running.process, stream));
        }
    }
}

/// Waits for the end of a process, and has another one started unless it was ended on purpose.
async fn follow(engine: Arc<Instance>, process: ShimProcess, stream: io::Result<UnixStream>) {
    if let Err(error) = closed(stream).await {
        // It has ended before it could be listened to, or this agent is short of something.
        tracing::debug!(%error, "cannot listen to the resolver");
    }
    let ended = {
        let engine = engine.clone();
        crate::blocking(move || {
            let failed = || io_failed("cannot wait for the end of the resolver");
            // Its connections are closed before its process has ended. One that does not end could not be
            // followed any more.
            if let Some(process) = process.open()
                && !process.wait_until(Instant::now() + PATIENCE).map_err(failed())?
            {
                process.signal(Signal::KILL.as_raw()).map_err(failed())?;
                process.wait().map_err(failed())?;
            }
            Ok(ended(&engine, process))
        })
    };
    let Ok(Some(pause)) = ended.await else { return };
    tracing::warn!(
        pid = process.pid,
        "the resolver has ended before its time and is started again"
    );
    wait(engine, pause).await;
}

/// Waits until the other end is closed.
async fn closed(stream: io::Result<UnixStream>) -> io::Result<()> {
    let stream = stream?;
    stream.set_nonblocking(true)?;
    let mut stream = tokio::net::UnixStream::from_std(stream)?;
    // What it says by itself is its greeting.
    let mut buffer = [0; 512];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Has it seen to after a while.
async fn wait(engine: Arc<Instance>, pause: Duration) {
    tokio::time::sleep(pause).await;
    look_after(&engine);
}

/// Takes leave of a process that has ended. Returns how long to wait before the next one is started; `None`
/// if it was ended on purpose.
fn ended(engine: &Instance, process: ShimProcess) -> Option<Duration> {
    let mut state = engine.resolver.lock();
    // It is no child of this agent if an earlier one has started it.
    drop(reap(process.pid));
    state.running.as_ref().filter(|running| running.process == process)?;
    let pause = state.pause();
    state.running = None;
    Some(pause)
}

/// Whether a sandbox that lives may ask the resolver.
pub(crate) fn may_ask(record: &SandboxRecord) -> bool {
    host(record, &[]).is_some()
}

/// All sandboxes that have names.
fn hosts(engine: &Instance, machine: &[IpAddr]) -> Vec<ZoneHost> {
    let host = |sandbox: Arc<Sandbox>| {
        let state = sandbox.state();
        // Those of plugins' networks are on other networks than this one.
        let elsewhere = || engine.cni.has(&state.record.id.0);
        host(&state.record, machine).filter(|host| state.ready && !(host.reverse && elsewhere()))
    };
    engine.all().into_iter().filter_map(host).collect()
}

/// What a sandbox is called, if it has a name and can be reached.
fn host(record: &SandboxRecord, machine: &[IpAddr]) -> Option<ZoneHost> {
    // The agent knows whose a name is. Anybody else could take the name of any pod.
    let names = record.annotations.get(DNS_NAMES).filter(|_| record.maker == Maker::Agent)?;
    let own = record.namespaces.network == NamespaceMode::Pod;
    if own && record.ips.is_empty() {
        return None;
    }
    Some(ZoneHost {
        names: names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        addresses: if own { record.ips.clone() } else { machine.to_vec() },
        by_address: format!("{}.pod", record.metadata.namespace),
        reverse: own,
    })
}

#[cfg(test)]
mod tests;
