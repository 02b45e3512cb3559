//! Hearing of shutdowns from systemd-logind, and delaying them.
//!
//! # Guarantees
//!
//! - Only what logind itself says counts, whoever else sends signals of its name.
//! - A new lock is taken before an old one is let go.
//!
//! Source: `pkg/kubelet/nodeshutdown/systemd/inhibit_linux.go`, org.freedesktop.login1(5), and "Inhibitor Locks" of
//! systemd's documentation.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::Duration;

use mainstay_linux::dbus::{Body, Call, CallError, Connection, Message, Reader};
use tokio::sync::mpsc;

const SERVICE: &str = "org.freedesktop.login1";
const OBJECT: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const BUS: &str = "org.freedesktop.DBus";

/// How long is waited after the bus, or logind, was gone. Source: `dbusReconnectPeriod`.
const RECONNECT: Duration = Duration::from_secs(1);

/// The first wait for logind to take over a setting, doubled for each further one, and how many there are.
const RELOAD: (Duration, u32) = (Duration::from_millis(100), 5);

/// The lock that keeps the machine from going down.
#[derive(Clone, Debug, Default)]
pub(super) struct Lock(Arc<Mutex<Option<OwnedFd>>>);

/// What is watched.
pub(super) struct Watch {
    pub(super) bus: PathBuf,
    /// A file in a directory of logind's settings.
    pub(super) settings: PathBuf,
    /// How long a shutdown is to be delayed, at the most.
    pub(super) wanted: Duration,
    pub(super) lock: Lock,
    /// That the machine is to go down, or not any more.
    pub(super) heard: mpsc::UnboundedSender<bool>,
}

/// Why nothing is heard.
#[derive(Debug, thiserror::Error)]
enum LogindError {
    #[error("cannot ask logind for {what}")]
    Asked {
        what: &'static str,
        #[source]
        cause: CallError,
    },
    #[error("logind's answer to {0} says something else than it should")]
    Answer(&'static str),
    #[error("cannot hear of logind any more")]
    Lost(#[source] io::Error),
    #[error("logind was started again")]
    Restarted,
    #[error("the agent ends")]
    Ends,
}

// === impl Lock ===

impl Lock {
    fn hold(&self, lock: OwnedFd) {
        // The one before goes when this one is held.
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(lock);
        drop(before);
    }

    /// Lets the machine go down.
    pub(super) fn release(&self) {
        let lock = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(lock);
    }
}

// === impl Watch ===

impl Watch {
    /// Watches until nobody wants to hear of it.
    pub(super) fn run(self) {
        let mut said = None;
        while !self.heard.is_closed() {
            let error = match self.follow(&mut said) {
                Ok(never) => match never {},
                Err(LogindError::Restarted) => {
                    tracing::info!("logind was started again; the lock is taken anew");
                    continue;
                }
                Err(LogindError::Ends) => return,
                Err(error) => mainstay_cri::chain(&error),
            };
            if said.as_ref() != Some(&error) {
                tracing::warn!(
                    error,
                    "pods are not ended in their order at a shutdown, which needs systemd-logind; it is asked again"
                );
                said = Some(error);
            }
            sleep(RECONNECT);
        }
    }

    /// Watches over one connection. `said` is taken back when that holds.
    fn follow(&self, said: &mut Option<String>) -> Result<Infallible, LogindError> {
        let mut bus = Connection::open(&self.bus).map_err(asked("anything"))?;
        let rule = format!(
            "type='signal',sender='{SERVICE}',path='{OBJECT}',interface='{MANAGER}',member='PrepareForShutdown'"
        );
        bus.add_match(&rule).map_err(asked("news of shutdowns"))?;
        let rule = format!(
            "type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{SERVICE}'"
        );
        bus.add_match(&rule).map_err(asked("news of itself"))?;
        let (delay, owner) = delay(&mut bus)?;
        let delay = self.lengthen(&mut bus, delay)?;
        // One that is under way cannot be delayed any more, but by who does so already.
        if property(&mut bus, "PreparingForShutdown", "b", |mut it| it.boolean())?.0 {
            self.tell(true)?;
        } else {
            self.take_lock(&mut bus)?;
        }
        tracing::info!(most = ?delay, "logind delays shutdowns for pods to end");
        *said = None;
        loop {
            let signal = bus.signal().map_err(LogindError::Lost)?;
            if let Some(shutting_down) = shutdown(&signal, &owner) {
                if !shutting_down {
                    self.take_lock(&mut bus)?;
                }
                self.tell(shutting_down)?;
            } else if signal.sender == BUS && signal.member == "NameOwnerChanged" {
                return Err(LogindError::Restarted);
            }
        }
    }

    fn tell(&self, shutting_down: bool) -> Result<(), LogindError> {
        self.heard.send(shutting_down).map_err(|_| LogindError::Ends)
    }

    fn take_lock(&self, bus: &mut Connection) -> Result<(), LogindError> {
        let call = Call {
            destination: SERVICE,
            path: OBJECT,
            interface: MANAGER,
            member: "Inhibit",
            body: Body::default()
                .string("shutdown")
                .string("mainstay")
                .string("Pods need time to end")
                .string("delay"),
        };
        let mut answer = bus.call(&call).map_err(asked("a lock"))?;
        match answer.descriptors.pop().filter(|_| answer.signature == "h") {
            Some(lock) => {
                self.lock.hold(lock);
                Ok(())
            }
            None => Err(LogindError::Answer("Inhibit")),
        }
    }

    /// Has logind delay shutdowns for as long as pods may need. Answers how long it does; less than that is told.
    fn lengthen(&self, bus: &mut Connection, delay: Duration) -> Result<Duration, LogindError> {
        if delay >= self.wanted {
            return Ok(delay);
        }
        let file = self.settings.display();
        let wanted = self.wanted.as_secs();
        let reload = Call {
            destination: "org.freedesktop.systemd1",
            path: "/org/freedesktop/systemd1",
            interface: "org.freedesktop.systemd1.Manager",
            member: "KillUnit",
            // SIGHUP
            body: Body::default().string("systemd-logind.service").string("all").int32(1),
        };
        let written = write(&self.settings, self.wanted).map_err(CallError::Io);
        if let Err(error) = written.and_then(|()| bus.call(&reload)) {
            let error = mainstay_cri::chain(&error);
            tracing::warn!(
                error,
                "cannot have logind read {file}; pods have {delay:?} of {wanted}s at a shutdown, unless \
                 InhibitDelayMaxSec is set in logind.conf"
            );
            return Ok(delay);
        }
        let (mut wait, steps) = RELOAD;
        let mut now = delay;
        for _ in 0..steps {
            (now, _) = self::delay(bus)?;
            if now >= self.wanted {
                return Ok(now);
            }
            sleep(wait);
            wait *= 2;
        }
        tracing::warn!(
            "logind delays shutdowns for {now:?}, and pods may need {wanted}s; another file than {file} sets \
             InhibitDelayMaxSec"
        );
        Ok(now)
    }
}

/// How long logind delays shutdowns at the most, and who it is.
fn delay(bus: &mut Connection) -> Result<(Duration, String), LogindError> {
    let (micros, owner) = property(bus, "InhibitDelayMaxUSec", "t", |mut it| it.uint64())?;
    Ok((Duration::from_micros(micros), owner))
}

/// A property of logind, and who answered.
fn property<T>(
    bus: &mut Connection,
    name: &'static str,
    kind: &str,
    read: impl FnOnce(Reader<'_>) -> io::Result<T>,
) -> Result<(T, String), LogindError> {
    let call = Call {
        destination: SERVICE,
        path: OBJECT,
        interface: "org.freedesktop.DBus.Properties",
        member: "Get",
        body: Body::default().string(MANAGER).string(name),
    };
    let answer = bus.call(&call).map_err(asked(name))?;
    let mut body = answer.body();
    let is_kind = answer.signature == "v" && body.signature().is_ok_and(|it| it == kind);
    let value = is_kind.then(|| read(body).ok()).flatten();
    Ok((value.ok_or(LogindError::Answer(name))?, answer.sender.clone()))
}

/// Whether a signal says that the machine is to go down, or not any more.
fn shutdown(signal: &Message, owner: &str) -> Option<bool> {
    let is_it = signal.sender == owner
        && signal.path == OBJECT
        && signal.interface == MANAGER
        && signal.member == "PrepareForShutdown"
        && signal.signature.starts_with('b');
    is_it.then(|| signal.body().boolean().ok()).flatten()
}

fn asked(what: &'static str) -> impl FnOnce(CallError) -> LogindError {
    move |cause| LogindError::Asked { what, cause }
}

/// Writes the setting: a file that is whole, or not there.
fn write(path: &Path, delay: Duration) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let text = format!(
        "# Written by mainstay, so that pods can end in their order at a shutdown.\n[Login]\nInhibitDelayMaxSec={}\n",
        delay.as_secs()
    );
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests;
