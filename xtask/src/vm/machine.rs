//! The machine: qemu, and the channel through which it is told what to do.
//!
//! # Power cuts
//!
//! Killing qemu with SIGKILL is a power cut as a machine with a volatile cache in its disk sees
//! it. What the guest has not written is in its memory and is lost. What it has written and not
//! flushed may be lost or kept, and in any order: the root disk is a qcow2 layer with the default
//! cache mode, `writeback`, so a write of a new cluster is in the host's page cache, but the table
//! that says where it went is in qemu's memory until the guest flushes. What it has flushed is
//! kept, since the host runs on: its page cache is as good as a disk. The mode `unsafe` would drop
//! flushes too, and stand for a disk that lies; `writethrough` for one without a cache.

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail};

use super::disk::Disks;
use crate::process;

/// How long the machine may take to boot, on the slowest host.
const BOOT: Duration = Duration::from_secs(300);
/// How long a script may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How much longer its answer may take.
const SLACK: Duration = Duration::from_secs(30);

/// A running machine.
pub(super) struct Machine {
    qemu: Child,
    scripts: ChildStdin,
    answers: mpsc::Receiver<Answer>,
}

/// What came of a script.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: i32,
    pub(super) output: String,
}

impl Machine {
    /// Switches the machine on. What arrives on TCP port `outside` of this machine's loopback goes
    /// to port `inside` of the guest; nothing of it reaches the network.
    pub(super) fn start(
        disks: &Disks,
        console: &Path,
        (outside, inside): (u16, u16),
    ) -> anyhow::Result<Self> {
        // However xtask ends, the machine does not stay.
        let mut command = process::command("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        // In software: the same on all hosts. One processor too few would hide races.
        command.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "Nehalem"]);
        command.args(["-smp", "2", "-m", "1024", "-nodefaults", "-display", "none", "-no-reboot"]);
        command.arg("-kernel").arg(&disks.kernel);
        // An emulated timer may come late on a machine that is busy, and is no reason to give up.
        let line = "root=/dev/nvme0n1 rw console=ttyS0 panic=-1 no_timer_check";
        command.args(["-append", line]);
        // The kernel has the drivers of these built in, and needs no initial RAM disk.
        let mut disk = |name: &str, file: &Path, options: &str| {
            let file = file.display();
            command.arg("-drive").arg(format!("if=none,id={name},file={file},{options}"));
            command.arg("-device").arg(format!("nvme,drive={name},serial={name}"));
        };
        disk("root", &disks.root, "format=qcow2");
        disk("payload", &disks.payload, "format=raw,read-only=on");
        disk("observed", &disks.observed, "format=raw");
        let forward = format!("hostfwd=tcp:127.0.0.1:{outside}-:{inside}");
        command.arg("-netdev").arg(format!("user,id=uplink,restrict=on,{forward}"));
        command.args(["-device", "virtio-net,netdev=uplink"]);
        command.arg("-chardev");
        command.arg(format!("file,id=console,path={},append=on", console.display()));
        command.args(["-serial", "chardev:console"]);
        command.args(["-chardev", "stdio,id=channel,signal=off", "-device", "virtio-serial"]);
        command.args(["-device", "virtserialport,chardev=channel,name=channel"]);
        let mut qemu = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start qemu-system-x86_64")?;
        let (Some(scripts), Some(stdout)) = (qemu.stdin.take(), qemu.stdout.take()) else {
            bail!("qemu has no channel");
        };
        let (sender, answers) = mpsc::channel();
        std::thread::spawn(move || listen(stdout, &sender));
        Ok(Self { qemu, scripts, answers })
    }

    /// Waits until it does what it is told.
    pub(super) fn wait_for_boot(&mut self) -> anyhow::Result<()> {
        self.ask("true", BOOT).context("the machine does not boot").map(drop)
    }

    /// Runs a script of bash to its end.
    pub(super) fn run(&mut self, script: &str) -> anyhow::Result<Answer> {
        self.ask(script, PATIENCE)
    }

    fn ask(&mut self, script: &str, patience: Duration) -> anyhow::Result<Answer> {
        self.tell(script, patience)?;
        match self.answers.recv_timeout(patience + SLACK) {
            Ok(answer) => Ok(answer),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("the machine does not answer"),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("the machine has gone"),
        }
    }

    fn tell(&mut self, script: &str, patience: Duration) -> anyhow::Result<()> {
        let header = format!("{} {}\n", patience.as_secs(), script.len());
        self.scripts
            .write_all(header.as_bytes())
            .and_then(|()| self.scripts.write_all(script.as_bytes()))
            .and_then(|()| self.scripts.flush())
            .context("the machine has gone")
    }

    /// Runs a script after which the machine switches itself off, as it also does instead of
    /// booting again, and waits until it has.
    pub(super) fn end_by(mut self, script: &str) -> anyhow::Result<()> {
        self.tell(script, PATIENCE)?;
        loop {
            match self.answers.recv_timeout(BOOT) {
                // Whoever gives the answer may have been stopped before.
                Ok(answer) if answer.status == 0 => {}
                Ok(answer) => bail!("`{script}` ended so: {answer:?}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("the machine does not shut down"),
            }
        }
        let status = self.qemu.wait().context("cannot wait for qemu")?;
        if !status.success() {
            bail!("qemu failed: {status}");
        }
        Ok(())
    }

    /// Cuts its power.
    pub(super) fn cut_power(mut self) -> anyhow::Result<()> {
        self.end()
    }

    fn end(&mut self) -> anyhow::Result<()> {
        // setpriv has become qemu, so this is qemu's own process.
        self.qemu.kill().and_then(|()| self.qemu.wait()).context("cannot kill qemu")?;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

/// Hands on every answer, until the machine has gone or nobody wants to know.
fn listen(stdout: ChildStdout, answers: &mpsc::Sender<Answer>) {
    let mut stdout = BufReader::new(stdout);
    while let Some(answer) = read_answer(&mut stdout) {
        if answers.send(answer).is_err() {
            return;
        }
    }
    // A machine on its way down may break off within an answer; it has gone when qemu has. That it
    // cannot be read any more says the same.
    let _ = io::copy(&mut stdout, &mut io::sink());
}

fn read_answer(from: &mut impl BufRead) -> Option<Answer> {
    let mut header = String::new();
    from.read_line(&mut header).ok()?;
    let (status, size) = header.trim_end().split_once(' ')?;
    let mut output = vec![0; size.parse().ok()?];
    from.read_exact(&mut output).ok()?;
    let output = String::from_utf8_lossy(&output).into_owned();
    Some(Answer { status: status.parse().ok()?, output })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_one_by_one() {
        let mut text: &[u8] = b"0 3\na\nb1 0\n137 4\n1 2\n";
        let mut next = || read_answer(&mut text).map(|answer| (answer.status, answer.output));
        assert_eq!(next(), Some((0, "a\nb".into())));
        assert_eq!(next(), Some((1, String::new())));
        assert_eq!(next(), Some((137, "1 2\n".into())));
        assert_eq!(next(), None);
    }
}
