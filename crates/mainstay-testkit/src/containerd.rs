//! Debian's containerd, with a directory of its own, of which nothing is left.

#![expect(clippy::unwrap_used, reason = "for tests")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::tools;

/// How long it may take to begin, and what it leaves to go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends one with all that it runs, and takes away what does not outlive a machine that loses its power.
///
/// `$1` is its directory, `$2` the control group of its pods.
const END: &str = r#"
end() {
    tries=0
    while found=$(ls -d "/sys/fs/cgroup$1" /sys/fs/cgroup/*"$1"); [ "$found" ]; do
        tries=$((tries + 1))
        [ $tries -lt 1500 ] || return
        # 0 is whom this cannot see.
        find $found -name cgroup.procs -exec cat {} + | grep -vx 0 | sort -u | xargs -r kill -KILL
        find $found -depth -type d -exec rmdir {} + || sleep 0.02
    done 2> /dev/null
}
# Who makes processes goes before what it makes.
end "$2-containerd" && end "$2" || exit
# Sockets of shims are below /run/containerd whatever is configured, and outlive a shim that is killed. Source:
# `SocketAddress` in `runtime/v2/shim/util_unix.go`.
grep -oE '[0-9a-f]{64}' "$1/log" | sort -u | while read -r id; do
    rm -f "/run/containerd/s/$(printf %s "$1/c.sock/k8s.io/$id" | sha256sum | cut -c -64)"
done
while read -r _ point _; do
    case $point in "$1"/*) umount -l "$point" || exit ;; esac
done < /proc/mounts
rm -rf --one-file-system "$1/state" "$1/runc" "$1/c.sock" "$1/c.sock.ttrpc" || exit
"#;

/// Waits for a word, or for the end of its input when a test is killed, and does the rest.
///
/// `$3` is a path that whoever uses it is known by: without a word it is waited for that to go, since what goes
/// in order needs the runtime.
const GUARD: &str = r#"
tries=0
read -r word || while [ -e "$3" ] && [ $tries -lt 600 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

/// A containerd that runs until this is dropped, or the test ends in any other way, with all that it runs.
///
/// It has the images `local/busybox:1` and, for sandboxes, `local/pause:1`. In `certs.d` of its directory, if there
/// is one, stands what is to be known of registries. A pod gets a pair of interfaces
/// of its own (CNI `ptp`), and no rule of any firewall.
#[derive(Debug)]
pub struct Containerd {
    child: Option<Child>,
    directory: PathBuf,
    cgroup: String,
    /// The network namespace that it is in, if that is not the test's.
    machine: Option<PathBuf>,
    /// Ends it, whatever becomes of this process.
    guard: Child,
}

impl Containerd {
    /// Starts one in `directory`, which goes with it, as does the control group `cgroup` with the pods. When the
    /// test is killed, it is ended after the path `user` has gone.
    ///
    /// # Panics
    ///
    /// When it does not start in its time.
    pub fn start(directory: &Path, cgroup: &str, user: Option<&Path>) -> Self {
        Self::start_in(None, directory, cgroup, user)
    }

    /// The same in a network namespace, where ports of the host lead to pods (CNI `portmap`).
    ///
    /// # Panics
    ///
    /// When it does not start in its time.
    pub fn start_in(
        machine: Option<&Path>,
        directory: &Path,
        cgroup: &str,
        user: Option<&Path>,
    ) -> Self {
        fs::create_dir_all(directory.join("net.d")).unwrap();
        fs::write(directory.join("config.toml"), config(directory)).unwrap();
        let network = network(directory, machine.is_some());
        fs::write(directory.join("net.d/10-ptp.conflist"), network).unwrap();
        let script = format!("{GUARD}{END}rm -rf --one-file-system \"$1\"");
        let mut guard = shell(&script, directory, cgroup);
        guard.arg(user.unwrap_or(Path::new(""))).stdin(Stdio::piped());
        // What it says would keep the test's output open.
        guard.stdout(Stdio::null()).stderr(Stdio::null());
        let guard = guard.spawn().unwrap();
        let (directory, cgroup) = (directory.to_owned(), cgroup.to_owned());
        let machine = machine.map(Path::to_owned);
        let mut it = Self { child: None, directory, cgroup, machine, guard };
        it.begin();
        for image in ["pause", "busybox"] {
            it.import(&tools::image(image));
        }
        it
    }

    /// Takes in the images of a file.
    ///
    /// # Panics
    ///
    /// When it does not.
    pub fn import(&self, file: &Path) {
        let imported = self.ctr(&["images", "import", file.to_str().unwrap()]);
        assert!(imported, "{} is imported", file.display());
    }

    /// The names of its images, each with a line.
    ///
    /// # Panics
    ///
    /// When it does not tell.
    pub fn images(&self) -> String {
        let listed = self.client(&["images", "list", "--quiet"]).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        String::from_utf8(listed.stdout).unwrap()
    }

    /// Removes a name of an image, whoever uses it; whether that is done.
    pub fn remove_image(&self, name: &str) -> bool {
        self.ctr(&["images", "remove", "--sync", name])
    }

    /// Leaves of it what a machine that loses its power leaves: its root directory.
    ///
    /// # Panics
    ///
    /// When something cannot be ended.
    pub fn cut_power(&mut self) {
        self.kill();
        let ended = shell(END, &self.directory, &self.cgroup).status().unwrap();
        assert!(ended.success(), "{ended}");
    }

    /// The shims of all pods.
    pub fn shims(&self) -> BTreeSet<i32> {
        let processes = fs::read_to_string(self.own_group().join("cgroup.procs")).unwrap();
        let is_shim = |pid: &i32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.starts_with("containerd-shim")
        };
        processes.lines().map(|pid| pid.parse().unwrap()).filter(is_shim).collect()
    }

    /// What it and its shims are in, by which they are found.
    fn own_group(&self) -> PathBuf {
        // Of version 2, or one of those of version 1.
        let roots = ["", "unified", "pids"].map(|name| Path::new("/sys/fs/cgroup").join(name));
        let root = roots.into_iter().find(|it| it.join("cgroup.procs").exists()).unwrap();
        root.join(format!("{}-containerd", self.cgroup.trim_start_matches('/')))
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("c.sock")
    }

    /// Kills it, and leaves its containers alone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Has it stand still, or go on.
    pub fn suspend(&self, suspended: bool) {
        tools::suspend(self.child.as_ref().unwrap(), suspended);
    }

    /// Starts it, for the first time or anew, if it is not running.
    ///
    /// # Panics
    ///
    /// When it does not in its time.
    pub fn begin(&mut self) {
        if self.child.is_some() {
            return;
        }
        let path = self.directory.join("log");
        let log = fs::File::options().create(true).append(true).open(path).unwrap();
        let group = self.own_group();
        fs::create_dir_all(&group).unwrap();
        let mut command = program("sh");
        command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(group);
        if let Some(machine) = &self.machine {
            command.arg("nsenter").arg(format!("--net={}", machine.display())).arg("--");
        }
        command.args(["containerd", "--config"]).arg(self.directory.join("config.toml"));
        // What interrupts the test does not reach it; it is ended in order.
        command.process_group(0);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        let end = Instant::now() + PATIENCE;
        // Its plugins are there some time after its socket is.
        let serves = |it: &Self| UnixStream::connect(it.socket()).is_ok() && it.ctr(&["version"]);
        while !serves(self) {
            assert!(Instant::now() < end, "containerd does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Runs its own client; whether that succeeded.
    fn ctr(&self, arguments: &[&str]) -> bool {
        let mut ctr = self.client(arguments);
        ctr.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    }

    fn client(&self, arguments: &[&str]) -> Command {
        let mut ctr = program("ctr");
        ctr.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io"]).args(arguments);
        ctr
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            // One that stands still does not notice anything else.
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
        }
        self.kill();
        let _ = self.guard.stdin.take().unwrap().write_all(b"done\n");
        let ended = self.guard.wait().unwrap();
        assert!(
            ended.success() || std::thread::panicking(),
            "containerd leaves something: {ended}"
        );
    }
}

/// A shell with a script of those above.
#[expect(clippy::disallowed_methods, reason = "it does what a killed test cannot do any more")]
fn shell(script: &str, directory: &Path, cgroup: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(directory).arg(cgroup).process_group(0);
    command
}

/// One of the programs, which finds the others, as does a shell.
#[expect(clippy::disallowed_methods, reason = "containerd is a program")]
fn program(name: &str) -> Command {
    let tree = tools::program("containerd");
    let mut command = Command::new(name);
    command.stdin(Stdio::null());
    let path = std::env::var("PATH").unwrap_or_default();
    let (bin, sbin) = (tree.join("usr/bin"), tree.join("usr/sbin"));
    command.env("PATH", format!("{}:{}:{path}", bin.display(), sbin.display()));
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    command.env("LD_LIBRARY_PATH", tree.join(libraries));
    command
}

/// Source: `docs/cri/config.md` of containerd 1.6.
fn config(directory: &Path) -> String {
    let (tree, plugins) = (tools::program("containerd"), tools::program("cni"));
    let (directory, tree, plugins) = (directory.display(), tree.display(), plugins.display());
    format!(
        r#"version = 2
root = "{directory}/root"
state = "{directory}/state"
[grpc]
  address = "{directory}/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "docker.io/local/pause:1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{directory}/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{directory}/certs.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "{tree}/usr/sbin/runc"
      Root = "{directory}/runc"
"#
    )
}

/// A pair of interfaces for each pod, which goes with its namespace. Two at the same time have other addresses.
fn network(directory: &Path, has_ports: bool) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Processes that live at the same time mostly have other numbers.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let number = std::process::id().wrapping_mul(4).wrapping_add(count) % (1 << 14);
    let (second, third) = (128 + number / 256, number % 256);
    let directory = directory.display();
    let portmap = r#",{"type":"portmap","capabilities":{"portMappings":true}}"#;
    let portmap = if has_ports { portmap } else { "" };
    format!(
        r#"{{"cniVersion":"1.0.0","name":"ptp","plugins":[{{"type":"ptp","ipMasq":false,"ipam":
{{"type":"host-local","dataDir":"{directory}/addresses","ranges":[[{{"subnet":"10.{second}.{third}.0/24"}}]],
"routes":[{{"dst":"0.0.0.0/0"}}]}}}}{portmap}]}}"#
    )
}
