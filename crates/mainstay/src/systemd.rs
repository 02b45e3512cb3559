//! The service manager, where it is systemd: telling it that the agent is ready, and having it
//! hand over a part of the control groups.
//!
//! # Why a service that sleeps
//!
//! Of the units that systemd delegates control groups to, a scope ends with its last process, a
//! slice cannot be delegated, and a service whose process has ended loses its group even while it
//! counts as active. So a process sleeps in it ([`crate::cli`], `hold`), in a group of its own,
//! since one that has processes cannot pass controllers down. The service is stopped at shutdown,
//! after the agent and before the network goes, so pods get their SIGTERM while the world is still
//! there. Source: systemd.service(5), systemd.resource-control(5), "CGROUP_DELEGATION" of systemd's
//! documentation, `service_set_state` in systemd's `src/core/service.c`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mainstay_linux::cgroup::{Hierarchies, weight_of_shares};
use mainstay_node::PodsGroup;
use mainstay_plan::allocatable::NodeLimits;

use crate::instance::Instance;

/// The slice of all instances.
const SLICE: &str = "mainstay.slice";

/// The group of the process that sleeps, below the one that is handed over.
const HOLDER: &str = "holder";

/// How long pods have at shutdown before they are killed, as long as nobody says that one has more: the usual grace
/// period.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);

/// Is there where systemd manages the machine. Source: sd_booted(3).
const SYSTEMD: &str = "/run/systemd/system";

/// Where logind is told how long pods may need at a shutdown; systemd forgets it with the machine's end. Source:
/// logind.conf(5).
pub(crate) fn logind_settings(instance: &Instance) -> PathBuf {
    format!("/run/systemd/logind.conf.d/99-{}.conf", instance.name()).into()
}

/// Whether systemd manages this machine.
pub(crate) fn is_running() -> bool {
    Path::new(SYSTEMD).is_dir()
}

/// Tells whoever started this process that it is ready, if they want to know.
pub(crate) fn tell_ready() {
    notify(sd_notify::NotifyState::Ready);
}

/// Tells whoever started this process that it ends.
pub(crate) fn tell_stopping() {
    notify(sd_notify::NotifyState::Stopping);
}

fn notify(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "cannot tell the service manager how far the start is");
    }
}

/// Has systemd wait so long for the end of the unit that this process is of. Source: `EXTEND_TIMEOUT_USEC` in
/// sd_notify(3).
pub(crate) fn extend_timeout(by: Duration) {
    // The state of that name holds no more than 71 minutes.
    let message = format!("EXTEND_TIMEOUT_USEC={}", by.as_micros());
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Custom(&message)]) {
        tracing::warn!(%error, "systemd ends pods earlier than they are to end");
    }
}

/// Where the agent leaves for [`crate::cli`], `hold`, how many seconds pods have at most to end.
fn longest_grace(instance: &Instance) -> PathBuf {
    instance.run_dir.join("longest-grace")
}

/// The control group that systemd hands over to an instance.
pub(crate) fn delegated(instance: &Instance) -> String {
    format!("/{SLICE}/{}", unit(instance))
}

/// Has systemd hand it over, if it has not done so yet.
///
/// # Errors
///
/// When systemd does not manage this machine, or refuses.
pub(crate) fn delegate(instance: &Instance) -> anyhow::Result<()> {
    if !is_running() {
        bail!(
            "systemd does not manage this machine, so it cannot make control groups; set \
             cgroupDriver to cgroupfs"
        );
    }
    let unit = unit(instance);
    {
        let _turn = take_turn()?;
        if !is_active(&unit)? {
            start(instance, &unit)?;
        }
    }
    // Also for a unit whose starter was killed before this.
    let holder = format!("{}/{HOLDER}", delegated(instance));
    let pid = ask(&unit, "MainPID")?;
    // To the kernel that would be this process.
    ensure!(
        pid != "0",
        "the process of the unit {unit} has ended; `mainstay down` removes the unit"
    );
    let hierarchies = Hierarchies::mounted()?;
    // systemd passes down only what it knows itself, and huge pages are not among that. It leaves alone
    // what others pass down beside it.
    if let Err(error) = hierarchies.at(&delegated(instance)).receive("hugetlb") {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "huge pages of pods are not limited");
    }
    for directory in hierarchies.at(&holder).directories() {
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(directory.join("cgroup.procs"), &pid))
            .with_context(|| format!("cannot move process {pid} to {}", directory.display()))?;
    }
    Ok(())
}

fn start(instance: &Instance, unit: &str) -> anyhow::Result<()> {
    let mut arguments = vec![
        "--quiet".to_owned(),
        format!("--unit={unit}"),
        format!("--slice={SLICE}"),
        format!("--description=Pods of mainstay in {}", instance.root_dir.display()),
    ];
    let mut set = |property: &str| arguments.push(format!("--property={property}"));
    set("Type=exec");
    set("Delegate=yes");
    // One that failed is in the way of the next one otherwise.
    set("CollectMode=inactive-or-failed");
    // The limits for one service are not for all pods of a machine.
    set("TasksMax=infinity");
    // A container that is killed for want of memory is no reason to stop all others.
    set("OOMPolicy=continue");
    // The process that holds the unit ends them; if it were killed for want of memory, systemd would.
    set("KillMode=mixed");
    set("OOMScoreAdjust=-999");
    set(&format!("TimeoutStopSec={}", SHUTDOWN_GRACE.as_secs()));
    // It asks for more where pods have more.
    set("NotifyAccess=main");
    // Units are stopped in the reverse order: the agent, which would start pods again, comes
    // first, and the network stays until the pods have ended.
    set("After=network.target");
    if let Some(own) = own_unit() {
        set(&format!("Before={own}"));
    }
    let own = std::env::current_exe().context("cannot find out where mainstay is installed")?;
    arguments.extend([own.display().to_string(), "hold".to_owned(), delegated(instance)]);
    arguments.push(longest_grace(instance).display().to_string());
    run("systemd-run", &arguments).with_context(|| format!("cannot make the unit {unit}"))?;
    Ok(())
}

/// The group of an instance's pods, whose limits systemd keeps.
#[derive(Debug)]
pub(crate) struct DelegatedGroup(pub(crate) Instance);

impl PodsGroup for DelegatedGroup {
    fn limit(&self, limits: NodeLimits) -> Result<(), String> {
        let mut arguments =
            ["set-property", "--runtime", &unit(&self.0)].map(str::to_owned).to_vec();
        arguments.push(format!("CPUWeight={}", weight_of_shares(limits.cpu_shares)));
        arguments.push(format!("MemoryMax={}", limits.memory));
        arguments.extend(limits.pids.map(|pids| format!("TasksMax={pids}")));
        run("systemctl", &arguments).map(drop).map_err(|error| format!("{error:#}"))
    }

    fn keep_longest_grace(&self, longest: Duration) -> Result<(), String> {
        let (path, text) = (longest_grace(&self.0), longest.as_secs().to_string());
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        // Whoever reads it finds the one or the other.
        let new = path.with_extension("new");
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn name(&self) -> String {
        delegated(&self.0)
    }
}

/// Gives it back. Nothing of ours runs in it any more.
pub(crate) fn release(instance: &Instance) -> anyhow::Result<()> {
    if !is_running() {
        return Ok(());
    }
    let settings = logind_settings(instance);
    match fs::remove_file(&settings) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", settings.display()));
        }
        // What logind has read holds until it is started again.
        _ => {}
    }
    let unit = unit(instance);
    if is_active(&unit)? {
        run("systemctl", &["stop".to_owned(), unit.clone()])
            .with_context(|| format!("cannot stop the unit {unit}"))?;
    }
    // What was made after somebody else stopped it is not systemd's to remove.
    let hierarchies = Hierarchies::mounted()?;
    hierarchies.at(&delegated(instance)).remove().context("cannot give back control groups")?;
    // systemd keeps a slice that it made when nothing is left in it, and with a slice it stops all
    // that is in it.
    let _turn = take_turn()?;
    let slice = hierarchies.at(&format!("/{SLICE}"));
    if slice.exists() && !slice.has_children()? {
        run("systemctl", &["stop".to_owned(), SLICE.to_owned()])
            .with_context(|| format!("cannot stop {SLICE}"))?;
    }
    Ok(())
}

/// Instances make and remove their units in the slice one after the other.
fn take_turn() -> anyhow::Result<File> {
    let directory = File::open(SYSTEMD).with_context(|| format!("cannot open {SYSTEMD}"))?;
    directory.lock().with_context(|| format!("cannot lock {SYSTEMD}"))?;
    Ok(directory)
}

fn unit(instance: &Instance) -> String {
    format!("{}-pods.service", instance.name())
}

fn is_active(unit: &str) -> anyhow::Result<bool> {
    Ok(ask(unit, "ActiveState")? == "active")
}

/// A property of a unit, in systemd's words.
fn ask(unit: &str, property: &str) -> anyhow::Result<String> {
    let arguments = ["show", "--value", "--property", property, unit].map(str::to_owned);
    run("systemctl", &arguments).with_context(|| format!("cannot ask for the state of {unit}"))
}

/// The unit that this process is in, if it is a service.
fn own_unit() -> Option<String> {
    // `0::/system.slice/x.service`, or `1:name=systemd:/...` on version 1. Source: cgroups(7).
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let line =
        text.lines().find(|line| line.starts_with("0::") || line.contains("name=systemd"))?;
    let unit = line.rsplit('/').next()?;
    unit.ends_with(".service").then(|| unit.to_owned())
}

/// Runs one of systemd's tools and returns what it says.
fn run(program: &str, arguments: &[String]) -> anyhow::Result<String> {
    #[expect(clippy::disallowed_methods, reason = "systemd's own tools; no pod is waiting")]
    let output = Command::new(program)
        .args(arguments)
        // They would tell systemd of their own errors in the agent's name.
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
