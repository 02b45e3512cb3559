//! Debian's etcd: one member or several, with a directory and an address of their own.

#![expect(clippy::unwrap_used, reason = "for tests")]

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::tools;

/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// How far the ports of members are from each other.
const STEP: u16 = 10;

/// An etcd whose members run until this is dropped.
#[derive(Debug)]
pub struct Etcd {
    directory: PathBuf,
    address: Ipv4Addr,
    members: Vec<Option<Child>>,
    extent: Extent,
}

/// How it is run.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// A certificate and its key, shown to clients.
    pub tls: Option<[PathBuf; 2]>,
    /// What has signed the certificates that clients have to show.
    pub client_authority: Option<PathBuf>,
    /// More flags.
    pub flags: Vec<String>,
}

impl Etcd {
    /// Starts so many members in `directory`.
    ///
    /// # Panics
    ///
    /// When they do not start in their time.
    pub fn start(directory: &Path, members: usize, extent: Extent) -> Self {
        Self::start_at(address(), directory, members, extent)
    }

    /// The same at an address of this test's, which [`address`] gave.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn start_at(address: Ipv4Addr, directory: &Path, members: usize, extent: Extent) -> Self {
        fs::create_dir_all(directory).unwrap();
        let directory = directory.to_owned();
        let members = (0..members).map(|_| None).collect();
        let mut it = Self { directory, address, members, extent };
        for member in 0..it.members.len() {
            it.spawn(member);
        }
        for member in 0..it.members.len() {
            it.wait_for(member);
        }
        it
    }

    /// Where members listen.
    pub fn endpoints(&self) -> Vec<(String, u16)> {
        (0..self.members.len()).map(|it| (self.address.to_string(), client_port(it))).collect()
    }

    /// Their addresses as `--store` has them, without what is before them.
    pub fn list(&self) -> String {
        let members = self.endpoints().into_iter().map(|(host, port)| format!("{host}:{port}"));
        members.collect::<Vec<_>>().join(",")
    }

    /// Kills a member.
    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Has a member stand still, or go on.
    pub fn suspend(&self, member: usize, suspended: bool) {
        tools::suspend(self.members[member].as_ref().unwrap(), suspended);
    }

    /// Starts a member that was killed.
    ///
    /// # Panics
    ///
    /// When it does not start in its time.
    pub fn begin(&mut self, member: usize) {
        self.spawn(member);
        self.wait_for(member);
    }

    /// The same, without waiting until it is there.
    pub fn spawn(&mut self, member: usize) {
        let log = self.directory.join(format!("log{member}"));
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let scheme = if self.extent.tls.is_some() { "https" } else { "http" };
        let address = self.address;
        let client = format!("{scheme}://{address}:{}", client_port(member));
        let peer = |member| format!("http://{address}:{}", client_port(member) + 1);
        let cluster = (0..self.members.len()).map(|it| format!("m{it}={}", peer(it)));
        let mut command = command("etcd");
        command.args(["--name", &format!("m{member}"), "--log-level", "warn"]);
        command.arg("--data-dir").arg(self.directory.join(format!("data{member}")));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer(member)]);
        command.args(["--initial-advertise-peer-urls", &peer(member)]);
        command.args(["--initial-cluster", &cluster.collect::<Vec<_>>().join(",")]);
        if let Some([certificate, key]) = &self.extent.tls {
            command.arg("--cert-file").arg(certificate).arg("--key-file").arg(key);
        }
        if let Some(authority) = &self.extent.client_authority {
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
        }
        command.args(&self.extent.flags);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.members[member] = Some(child);
    }

    /// Waits until a member answers. One over TLS, and one that wants to know who asks, is there when it
    /// listens.
    fn wait_for(&self, member: usize) {
        let end = Instant::now() + PATIENCE;
        let endpoint = (self.address, client_port(member));
        let answers = || match &self.extent.tls {
            Some(_) => std::net::TcpStream::connect(endpoint).is_ok(),
            None => {
                let output = self.ctl_of(member, &["get", "nothing"]);
                // One with users asks who this is.
                output.status.success()
                    || String::from_utf8_lossy(&output.stderr).contains("user name is empty")
            }
        };
        while !answers() {
            let log = fs::read_to_string(self.directory.join(format!("log{member}")));
            assert!(Instant::now() < end, "etcd does not start: {}", log.unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs etcd's own client against the first member.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_of(0, arguments)
    }

    /// Runs it, and wants it to succeed; what it prints.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn ctl_ok(&self, arguments: &[&str]) -> String {
        let output = self.ctl(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn ctl_of(&self, member: usize, arguments: &[&str]) -> Output {
        let mut etcdctl = command("etcdctl");
        let endpoint = format!("{}:{}", self.address, client_port(member));
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &endpoint]).args(arguments);
        etcdctl.args(["--dial-timeout=2s", "--command-timeout=5s"]);
        etcdctl.output().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}

/// An address of this machine that no other test has: ports there need not be looked for.
pub fn address() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // No process number has more than 22 bits.
    let number = std::process::id() << 2 | COUNT.fetch_add(1, Ordering::Relaxed) & 3;
    Ipv4Addr::from(0x7f00_0000 | number & 0x00ff_ffff)
}

fn client_port(member: usize) -> u16 {
    2379 + STEP * u16::try_from(member).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "etcd is a program")]
fn command(name: &str) -> Command {
    // With a parent that ends without tidying up, it ends too.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(tools::program(&format!("etcd/usr/bin/{name}")));
    command.stdin(Stdio::null());
    command
}
