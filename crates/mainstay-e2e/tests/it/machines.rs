//! Several machines on one network: each is a network namespace, which a process keeps, and so is what lies
//! between them. Nothing of it has a name on this machine, or is left when that process is gone.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mainstay_testkit::tools;

use crate::node::wait_for;
use crate::program::{command, run};

/// A network namespace with nothing in it, which ends with this.
pub(crate) struct Space(Child);

/// How a machine is cut off from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its plug is pulled, which it notices.
    Plug,
    /// Whatever is sent is lost on the way, both ways.
    Silence,
    /// Nobody hears it any more; it hears the others.
    Mute,
    /// It hears nobody any more; the others hear it.
    Deaf,
}

/// What loses frames that come from ports, and frames that go to them, if they are in these sets.
const LOSSES: &str = "add table bridge losses
    add set bridge losses from { type ifname; }
    add set bridge losses to { type ifname; }
    add chain bridge losses forward { type filter hook forward priority 0; }
    add rule bridge losses forward iifname @from drop
    add rule bridge losses forward oifname @to drop";

/// Machines that reach each other.
pub(crate) struct Machines {
    /// The one with the bridge.
    switch: Space,
    machines: Vec<Space>,
}

impl Space {
    pub(crate) fn new() -> Self {
        let mut holder = command("setpriv");
        // It ends with the test, however that ends.
        holder.args(["--pdeathsig=KILL", "--", "unshare", "--net", "--", "sleep", "infinity"]);
        let space = Self(holder.stdin(Stdio::null()).spawn().unwrap());
        let own = fs::read_link("/proc/self/ns/net").unwrap();
        let entered = || fs::read_link(space.path()).ok().filter(|it| *it != own);
        assert!(wait_for(entered).is_some(), "there is no network namespace");
        space
    }

    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }

    /// The process that keeps it.
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Has nft(8) do this in it, a command a line.
    #[track_caller]
    fn nft(&self, commands: &str) {
        let mut nft = enter(&self.path(), "nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{commands}");
    }

    /// Runs ip(8) in it.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) {
        run(enter(&self.path(), "ip").args(arguments.split_whitespace())).success();
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // It has no end of its own.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A command in a network namespace.
pub(crate) fn enter(space: &Path, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = command("nsenter");
    command.arg(format!("--net={}", space.display())).arg("--").arg(program);
    command
}

impl Machines {
    /// So many of them. None if this is not root, which is printed.
    pub(crate) fn new(count: usize) -> Option<Self> {
        if !tools::is_root() {
            return None;
        }
        let switch = Space::new();
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let mut machines = Self { switch, machines: Vec::new() };
        for at in 0..count {
            let machine = Space::new();
            let (port, pid) = (format!("port{at}"), machine.0.id());
            machines.switch.ip(&format!("link add {port} type veth peer name eth0 netns {pid}"));
            machines.switch.ip(&format!("link set {port} master br0 up"));
            machine.ip("link set lo up");
            machine.ip(&format!("address add {}/24 dev eth0", Self::address(at)));
            machine.ip(&format!("address add {}/64 dev eth0 nodad", Self::address6(at)));
            machine.ip("link set eth0 up");
            machines.machines.push(machine);
        }
        Some(machines)
    }

    /// The network namespace of a machine.
    pub(crate) fn path(&self, at: usize) -> PathBuf {
        self.machines[at].path()
    }

    /// The address of a machine.
    pub(crate) fn address(at: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, u8::try_from(at).unwrap() + 1)
    }

    /// Its address of IPv6, of which nodes know only if they are told.
    pub(crate) fn address6(at: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd10, 0, 0, 0, 0, 0, 0, u16::try_from(at).unwrap() + 1)
    }

    /// Pulls a machine's plug.
    pub(crate) fn cut(&self, at: usize) {
        self.switch.ip(&format!("link set port{at} down"));
    }

    /// Puts it back.
    pub(crate) fn heal(&self, at: usize) {
        self.switch.ip(&format!("link set port{at} up"));
    }

    /// Makes [`Self::begin`] possible with every [`Cut`].
    pub(crate) fn prepare_losses(&self) {
        self.switch.nft(LOSSES);
    }

    /// Cuts a machine off.
    pub(crate) fn begin(&self, cut: Cut, at: usize) {
        self.lose(cut, at, "add");
        if cut == Cut::Plug {
            self.cut(at);
        }
    }

    /// Ends that.
    pub(crate) fn end(&self, cut: Cut, at: usize) {
        self.lose(cut, at, "delete");
        if cut == Cut::Plug {
            self.heal(at);
        }
    }

    fn lose(&self, cut: Cut, at: usize, verb: &str) {
        let sets: &[&str] = match cut {
            Cut::Plug => return,
            Cut::Silence => &["from", "to"],
            Cut::Mute => &["from"],
            Cut::Deaf => &["to"],
        };
        let line = |set: &&str| format!("{verb} element bridge losses {set} {{ \"port{at}\" }}\n");
        self.switch.nft(&sets.iter().map(line).collect::<String>());
    }
}
