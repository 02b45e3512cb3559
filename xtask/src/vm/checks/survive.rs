//! What happens to the agent is nothing to the pods.

use anyhow::ensure;

use crate::vm::guest::{Driver, Guest, Processes};

/// What is done to the agent.
const ACCIDENTS: &[(&str, &str)] = &[
    ("restart", "systemctl restart mainstay"),
    ("reload of all units", "systemctl daemon-reload"),
    ("a new service manager", "systemctl daemon-reexec"),
    ("stop", "systemctl stop mainstay; ! systemctl is-active --quiet mainstay"),
    ("start", "systemctl start mainstay"),
    ("kill -9", "kill -9 $(systemctl show --value --property=MainPID mainstay)"),
    // Started again by systemd, after a second.
    ("its new start", "until mainstay status | grep Running; do sleep 0.2; done"),
];

pub(super) fn survive(guest: &mut Guest) -> anyhow::Result<String> {
    let before = guest.processes()?;
    apart(guest, &before)?;
    for (name, script) in ACCIDENTS {
        guest.sh(script)?;
        let after = guest.processes()?;
        ensure!(after == before, "after {name} there are others: {before:#?}, now {after:#?}");
    }
    guest.wait_for_pods(&[("web", "Running"), ("host", "Running")])?;
    for pod in ["web", "host"] {
        let restarts = guest.pod(pod)?["restarts"].clone();
        ensure!(restarts == 0, "{pod} was restarted {restarts} times");
    }
    ensure!(guest.processes()? == before, "the agent that came back has restarted pods");
    let failed = guest.sh("systemctl --failed --no-legend")?;
    ensure!(failed.is_empty(), "units have failed: {failed}");
    Ok(format!("{} processes stay", before.len()))
}

/// The pods and their shims are where the service is not.
fn apart(guest: &mut Guest, processes: &Processes) -> anyhow::Result<()> {
    let shims = processes.values().filter(|it| it.command == "mainstay-shim").count();
    ensure!(shims == 2, "{shims} shims for two pods: {processes:#?}");
    let pods = processes.values().filter(|it| it.command.starts_with("httpd")).count();
    ensure!(pods == 2, "{pods} servers in two pods: {processes:#?}");
    let service = guest.sh("cat /sys/fs/cgroup/system.slice/mainstay.service/cgroup.procs")?;
    let main = guest.sh("systemctl show --value --property=MainPID mainstay")?;
    ensure!(service == main, "processes {service} are in the service of {main}");
    if guest.driver == Driver::Systemd {
        let unit = guest
            .sh("systemctl show --value --property=Delegate --property=ActiveState \
             --property=ControlGroup mainstay-pods")?;
        let expected = ["yes", "active", guest.driver.root()];
        let all = expected.iter().all(|word| unit.lines().any(|line| line == *word));
        ensure!(all, "the pods' unit is {unit}");
    } else {
        let other = guest.sh("ls -d /sys/fs/cgroup/mainstay.slice 2>/dev/null; true")?;
        ensure!(other.is_empty(), "systemd has a slice for pods");
    }
    Ok(())
}
