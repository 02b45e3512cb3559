//! An instance of mainstay with directories of its own.

mod above;
mod below;
mod leftovers;
mod status;
mod watchdog;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mainstay_engine::network::Names;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_testkit::tools;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use above::Above;
use below::Below;
pub(crate) use status::{Pod, Status};
use watchdog::Watchdog;

use crate::machines::enter;
use crate::program::{self, Outcome, command};

/// Which shape tests are run in: whose API nodes are of (`member`), or what runs their pods (`containerd`).
const SHAPE: &str = "MAINSTAY_TEST_SHAPE";

/// How long something that has to come may take, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// An instance, on this machine as an operator has it. Nothing of it is left when it is
/// dropped, nor when the test is killed.
pub(crate) struct Node {
    directory: TempDir,
    program: PathBuf,
    agent: Option<Child>,
    /// What `mainstay run` is given beside what tells instances apart. Default: the manifests.
    pub(crate) arguments: Vec<String>,
    /// The node's name; `n1` by default.
    pub(crate) name: String,
    /// The port of the Kubernetes API; a free one by default, since tests run side by side.
    pub(crate) secure_port: u16,
    /// What is in the agent's environment beside what is in this test's.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// The network namespace that it runs in, if it is not this test's.
    pub(crate) machine: Option<PathBuf>,
    /// What it joins, instead of having an API of its own.
    server: Vec<String>,
    /// The API that is above it without its test knowing.
    above: Option<Above>,
    /// The runtime that is below it without its test knowing.
    below: Option<Below>,
    watchdog: Watchdog,
}

impl Node {
    /// A running agent that watches [`Self::manifests`], which is empty, and has the image
    /// `local/busybox:1`. None if this is not root, which is printed.
    pub(crate) fn start() -> Option<Self> {
        let mut node = Self::prepare()?;
        node.launch();
        Some(node)
    }

    /// The same, with no agent yet.
    pub(crate) fn prepare() -> Option<Self> {
        if !tools::is_root() {
            return None;
        }
        let program = program::mainstay();
        // Short, since names of sockets have 107 bytes.
        let directory = tempfile::Builder::new().prefix("ms-").tempdir().unwrap();
        for name in ["manifests", "staging", "host", "root/images"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let watchdog = Watchdog::start(&program, directory.path());
        let manifests = directory.path().join("manifests");
        let arguments = vec![
            format!("--pod-manifest-path={}", manifests.display()),
            format!("--config={}", directory.path().join("config.yaml").display()),
        ];
        let node = Self {
            directory,
            program,
            agent: None,
            arguments,
            name: "n1".to_owned(),
            secure_port: 0,
            environment: Vec::new(),
            machine: None,
            server: Vec::new(),
            above: None,
            below: None,
            watchdog,
        };
        node.configure("");
        node.provide(&tools::image("busybox"));
        Some(node)
    }

    /// Gives the agent a configuration, at its next start. Unless it says otherwise nothing is ever short,
    /// however full the disk of this machine is.
    pub(crate) fn configure(&self, fields: &str) {
        let path = self.path("config.yaml");
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let calm = [
            ("evictionHard", "evictionHard: {}\n"),
            ("image", "imageGCHighThresholdPercent: 100\n"),
        ];
        let is_calm = calm.into_iter().filter(|(field, _)| !fields.contains(field));
        let calm: String = is_calm.map(|(_, line)| line).collect();
        fs::write(&path, format!("{head}{calm}{fields}\n")).unwrap();
    }

    /// Has the agent join an API, at its next start.
    pub(crate) fn join(&mut self, server: &str, token: Option<&str>) {
        self.server = vec![format!("--server={server}")];
        self.server.extend(token.map(|token| format!("--token={token}")));
    }

    /// Has the agent be a node of the cluster of a kubeconfig, at its next start.
    pub(crate) fn belong(&mut self, kubeconfig: &Path, bootstrap: Option<&Path>) {
        self.server = vec![format!("--kubeconfig={}", kubeconfig.display())];
        let flag = |path: &Path| format!("--bootstrap-kubeconfig={}", path.display());
        self.server.extend(bootstrap.map(flag));
    }

    /// Has the agent have an API of its own again, at its next start.
    pub(crate) fn leave(&mut self) {
        self.server.clear();
    }

    /// Starts the agent and waits until it answers.
    #[track_caller]
    pub(crate) fn launch(&mut self) {
        self.spawn();
        self.wait_until("the agent answers", |status| status.agent);
    }

    /// Starts the agent.
    pub(crate) fn spawn(&mut self) {
        // Those with a machine of their own are the test's own matter.
        let is_plain = self.server.is_empty() && self.machine.is_none() && self.secure_port == 0;
        if is_plain && above::is_wanted() {
            self.above = Some(Above::new(self));
        }
        if below::is_wanted(self) {
            self.below = Some(Below::new(self));
        }
        self.begin_runtime();
        let log = self.path("log");
        let log = File::options().append(true).create(true).open(log).unwrap();
        let mut command = self.command_in(&self.environment, &["run"]);
        command.arg(format!("--hostname-override={}", self.name));
        match self.server.is_empty() {
            true => command.arg(format!("--secure-port={}", self.secure_port)),
            false => command.args(&self.server),
        };
        command.args(["--port=0", "--healthz-port=0"]);
        command.args(&self.arguments).env("MAINSTAY_LOG", "debug");
        // What interrupts the test does not reach it; it is ended in order.
        command.process_group(0).stdin(Stdio::null());
        self.agent = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    /// Starts the runtime below, as far as it is another one and not there.
    pub(crate) fn begin_runtime(&mut self) {
        if let Some(below) = &mut self.below {
            below.containerd.begin();
            // It looks for what it ran before, and says nothing else meanwhile.
            let said = || self.status().runtime.iter().all(|it| it.status).then_some(());
            assert!(wait_for(said).is_some(), "containerd does not answer");
        }
    }

    /// Kills the agent as power cuts and impatient people do.
    pub(crate) fn kill(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Ends the agent in order.
    pub(crate) fn terminate(&mut self) {
        let mut agent = self.agent.take().unwrap();
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success());
    }

    /// Takes leave of an agent that somebody else has ended in order.
    pub(crate) fn terminated(&mut self) {
        assert!(self.agent.take().unwrap().wait().unwrap().success());
    }

    /// What there is of the instance on this machine, in words.
    pub(crate) fn left(&self) -> Vec<String> {
        leftovers::find(self.directory.path(), &self.names())
    }

    /// Leaves of the instance what a machine that loses its power leaves: the root directory.
    pub(crate) fn cut_power(&mut self) {
        self.kill();
        if let Some(below) = &mut self.below {
            below.containerd.cut_power();
        }
        let hierarchies = Hierarchies::mounted().unwrap();
        let group = hierarchies.at(&format!("/{}", self.names().table));
        while group.kill().unwrap() > 0 {}
        group.remove().unwrap();
        leftovers::unmount(self.directory.path());
        leftovers::remove_network(&self.names());
        fs::remove_dir_all(self.path("run")).unwrap();
    }

    /// The processes of a control group below that of the instance: `shims`, or all for the empty
    /// path.
    pub(crate) fn processes(&self, group: &str) -> BTreeSet<i32> {
        if let Some(below) = self.below.as_ref().filter(|_| group == "shims") {
            return below.containerd.shims();
        }
        let hierarchies = Hierarchies::mounted().unwrap();
        let group = format!("/{}/{group}", self.names().table);
        hierarchies.at(&group).processes().unwrap()
    }

    /// Kills the shims of all pods; some may end by themselves meanwhile.
    pub(crate) fn kill_shims(&self) {
        for shim in self.processes("shims") {
            let killed = kill_process(Pid::from_raw(shim).unwrap(), Signal::KILL);
            assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
        }
    }

    /// A path in the instance's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where manifests are put.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.path("manifests")
    }

    /// A directory for what pods tell.
    pub(crate) fn host(&self) -> PathBuf {
        self.path("host")
    }

    /// The lines of a file in [`Self::host`]; none when it is not there.
    pub(crate) fn told(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.host().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What its things on the machine are called.
    pub(crate) fn names(&self) -> Names {
        Names::of(&self.path("root"))
    }

    /// Imports an image by hand.
    pub(crate) fn import(&self, image: &Path) {
        match &self.below {
            Some(below) => below.containerd.import(image),
            // With its start it is given what there is by then.
            None if below::is_wanted(self) => self.provide(image),
            None => drop(self.mainstay(&["image", "import", image.to_str().unwrap()]).success()),
        }
    }

    /// The images that there are, by their names.
    pub(crate) fn images(&self) -> String {
        match &self.below {
            Some(below) => below.containerd.images(),
            None => self.mainstay(&["image", "ls"]).success(),
        }
    }

    /// Removes an image; whether that is done.
    pub(crate) fn remove_image(&self, name: &str) -> bool {
        match &self.below {
            Some(below) => below.containerd.remove_image(name),
            None => self.mainstay(&["image", "rm", name]).status.success(),
        }
    }

    /// Whether its pods are run by Debian's containerd, which lacks this; if so it is printed that it is skipped.
    pub(crate) fn skips_on_containerd(&self, what: &str) -> bool {
        if self.is_on_containerd() {
            println!("skipped: containerd 1.6 does not have {what}");
        }
        self.is_on_containerd()
    }

    /// Whether its pods are run by Debian's containerd.
    pub(crate) fn is_on_containerd(&self) -> bool {
        self.below.is_some()
    }

    /// Has another runtime below trust a registry whose certificate is of the authority in a file.
    pub(crate) fn trust(&self, host: &str, authority: &Path) {
        let place = self.path("certs.d").join(host);
        fs::create_dir_all(&place).unwrap();
        let (host, authority) = (format!("https://{host}"), authority.display());
        let hosts = format!("server = \"{host}\"\n[host.\"{host}\"]\nca = \"{authority}\"\n");
        fs::write(place.join("hosts.toml"), hosts).unwrap();
    }

    /// Puts an image file where it is imported by itself.
    pub(crate) fn provide(&self, image: &Path) {
        if let Some(below) = &self.below {
            return below.containerd.import(image);
        }
        let place = self.path("root/images").join(image.file_name().unwrap());
        std::os::unix::fs::symlink(image, place).unwrap();
    }

    /// Puts a manifest in place, as careful people do: whole.
    pub(crate) fn put(&self, file: &str, text: &impl ToString) {
        fs::rename(self.stage(file, text), self.manifests().join(file)).unwrap();
    }

    /// Writes a file where it can be moved away whole; answers its path.
    pub(crate) fn stage(&self, file: &str, text: &impl ToString) -> PathBuf {
        let staged = self.path("staging").join(file);
        fs::write(&staged, text.to_string()).unwrap();
        staged
    }

    /// Takes a manifest away.
    pub(crate) fn take(&self, file: &str) {
        fs::remove_file(self.manifests().join(file)).unwrap();
    }

    /// A command on this instance.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_in(&[], arguments)
    }

    /// The same with variables that nothing has which is run on the way to it.
    fn command_in(&self, environment: &[(&str, String)], arguments: &[&str]) -> Command {
        let program: &Path = if environment.is_empty() { &self.program } else { Path::new("env") };
        let mut command = match &self.machine {
            Some(space) => enter(space, program),
            None => command(program),
        };
        if !environment.is_empty() {
            command.args(environment.iter().map(|(name, value)| format!("{name}={value}")));
            command.arg(&self.program);
        }
        command.arg("--root-dir").arg(self.path("root")).arg("--run-dir").arg(self.path("run"));
        command.args(arguments);
        command
    }

    /// Runs a command on this instance.
    pub(crate) fn mainstay(&self, arguments: &[&str]) -> Outcome {
        program::run(&mut self.command(arguments))
    }

    /// What a shell prints in a container of a pod when it runs this script, which succeeds.
    #[track_caller]
    pub(crate) fn sh(&self, pod: &str, container: &str, script: &str) -> String {
        self.mainstay(&["exec", pod, "-c", container, "--", "sh", "-c", script]).success()
    }

    /// What there is now.
    #[track_caller]
    pub(crate) fn status(&self) -> Status {
        let outcome = self.mainstay(&["status", "-o", "json"]);
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
    }

    /// Waits for a status, and returns it.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, is: impl Fn(&Status) -> bool) -> Status {
        let found = wait_for(|| Some(self.status()).filter(|status| is(status)));
        found.unwrap_or_else(|| panic!("it does not come to this: {what}"))
    }

    /// Waits until a pod runs.
    #[track_caller]
    pub(crate) fn wait_for_running(&self, name: &str) -> Pod {
        let what = format!("pod {name} runs");
        let status = self.wait_until(&what, |status| status.pod(name).is_some_and(Pod::runs));
        status.pod(name).unwrap().clone()
    }

    /// Waits until a pod is in a state.
    #[track_caller]
    pub(crate) fn wait_for_state(&self, name: &str, state: &str) -> Pod {
        let what = format!("pod {name} is {state}");
        let status = self.wait_until(&what, |status| status.state(name) == state);
        status.pod(name).unwrap().clone()
    }

    /// Waits until nothing of a pod is left.
    #[track_caller]
    pub(crate) fn wait_for_gone(&self, name: &str) {
        self.wait_until(&format!("pod {name} is gone"), |status| status.pod(name).is_none());
    }

    /// Waits until a file in [`Self::host`] has so many lines.
    #[track_caller]
    pub(crate) fn wait_for_told(&self, file: &str, lines: usize) -> Vec<String> {
        let told = wait_for(|| Some(self.told(file)).filter(|told| told.len() >= lines));
        told.unwrap_or_else(|| panic!("{file} does not get {lines} lines: {:?}", self.told(file)))
    }

    /// Waits until this is what a pod has logged. What it said to a file is there at once, what it logs is on its way.
    #[track_caller]
    pub(crate) fn wait_for_said(&self, pod: &str, expected: &str) {
        let said = || self.mainstay(&["logs", pod]).success();
        assert!(wait_for(|| (said() == expected).then_some(())).is_some(), "{pod}: {:?}", said());
    }

    /// Waits until an agent has said this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) {
        let found = || self.log().contains(text).then_some(());
        assert!(wait_for(found).is_some(), "the agent does not say {text:?}:\n{}", self.log());
    }

    /// What the agents of this instance logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        if failed {
            eprintln!("=== status\n{}", self.mainstay(&["status"]).stdout);
            eprintln!("=== log\n{}", self.log());
            if let Some(above) = &self.above {
                eprintln!("=== log of the API\n{}", above.log());
            }
        }
        if self.path("root").exists() && !self.path("root/instance.json").exists() {
            // It was never run, and what is there is the test's.
            fs::remove_dir_all(self.path("root")).unwrap();
        }
        if let Some(below) = &mut self.below {
            if failed {
                eprintln!("=== log of containerd\n{}", below.containerd.log());
            }
            below.containerd.begin();
        }
        let down = self.mainstay(&["down", "--purge"]);
        if let Some(mut agent) = self.agent.take() {
            // `down` ended it.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        // Its command line names this node's files.
        drop(self.above.take());
        drop(self.below.take());
        let left = leftovers::find(self.directory.path(), &self.names());
        leftovers::unmount(self.directory.path());
        self.watchdog.dismiss();
        // One failure is enough.
        if failed {
            eprintln!("=== down\n{down:#?}\n=== left\n{left:#?}");
        } else {
            assert!(down.status.success(), "{down:#?}");
            assert!(left.is_empty(), "these are left: {left:#?}");
        }
    }
}

/// What there is on this machine of an instance in a directory, in words.
pub(crate) fn left_of(directory: &Path, names: &Names) -> Vec<String> {
    leftovers::find(directory, names)
}

/// Looks again and again; `None` when it is in vain.
pub(crate) fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() > deadline {
            return None;
        }
        std::thread::sleep(LOOK);
    }
}
