//! The operator switches the machine off, and systemd-logind waits until pods have ended in their order.

use std::time::Instant;

use anyhow::{Context, ensure};

use super::install::DEFAULTS;
use crate::vm::guest::Guest;
use crate::vm::pods::{self, MANIFESTS, Noted, times};

const CONFIG: &str = "/etc/mainstay/logind.yaml";

/// Seconds that all pods have together, which is more than logind waits by itself, and that the critical ones have of
/// them.
const PERIODS: (u64, u64) = (40, 15);

/// Pods and the classes of their priority. Those without one end before the other, beside each other.
const PODS: [(&str, &str); 3] =
    [("plain", ""), ("hooked", ""), ("critical", "system-node-critical")];

pub(super) fn shutdown(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh(&format!("rm -f {}; cp {DEFAULTS} {DEFAULTS}.aside", pods::LOG))?;
    let (all, critical) = PERIODS;
    guest.write(
        CONFIG,
        &format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             shutdownGracePeriod: {all}s\nshutdownGracePeriodCriticalPods: {critical}s"
        ),
    )?;
    let options = format!("MAINSTAY_OPTS=\"--pod-manifest-path={MANIFESTS} --config={CONFIG}\"");
    guest.write(DEFAULTS, &options)?;
    guest.sh("systemctl restart mainstay")?;
    for (name, class) in PODS {
        guest.write(&format!("{MANIFESTS}/{name}.yaml"), &ending(name, class))?;
    }
    let running = PODS.map(|(name, _)| (name, "Running"));
    guest.wait_for_pods(&running)?;
    guest.wait_for(
        "the pods have begun",
        &format!("test $(grep -c ' started ' {}) -ge {}", pods::LOG, PODS.len()),
    )?;
    guest.wait_for(
        "logind knows who delays a shutdown",
        "systemd-inhibit --list --no-pager | grep 'mainstay.*shutdown.*delay'",
    )?;
    let delay = guest.sh("busctl get-property org.freedesktop.login1 /org/freedesktop/login1 \
         org.freedesktop.login1.Manager InhibitDelayMaxUSec")?;
    ensure!(delay == format!("t {}", all * 1_000_000), "logind delays a shutdown for {delay} µs");

    let boot = guest.sh("cat /proc/sys/kernel/random/boot_id")?;
    let start = Instant::now();
    guest.power_off_and_on()?;
    guest.wait_for_pods(&running)?;
    let time = start.elapsed();

    let log: Vec<Noted> = pods::log(guest)?;
    let (before, after): (Vec<_>, Vec<_>) = log.into_iter().partition(|noted| noted.boot == boot);
    let place = |pod: &str, what: &str| {
        let found = before.iter().position(|noted| noted.pod == pod && noted.what == what);
        let found = found.filter(|_| times(&before, pod, what) == 1);
        found.with_context(|| format!("{pod} has not {what} once before it ended: {before:#?}"))
    };
    // The hook of the pod that has one, then what it does when it is told to end; and the critical one when both of
    // the others have ended.
    let order = [
        ("hooked", "stopping", "hooked", "ending"),
        ("hooked", "ending", "hooked", "ended"),
        ("hooked", "ended", "critical", "ending"),
        ("plain", "ending", "plain", "ended"),
        ("plain", "ended", "critical", "ending"),
        ("critical", "ending", "critical", "ended"),
    ];
    for (first, what, second, then) in order {
        ensure!(
            place(first, what)? < place(second, then)?,
            "{second} was {then} before {first} was {what}: {before:#?}"
        );
    }
    for (name, _) in PODS {
        let starts = times(&after, name, "started");
        ensure!(starts == 1, "{name} was started {starts} times after that: {after:#?}");
    }
    let said = guest.sh("journalctl --boot=-1 --unit=mainstay --output=cat --no-pager")?;
    ensure!(said.contains("all pods have had their time"), "the agent said:\n{said}");
    ensure!(!said.contains("pods have not ended in the time"), "the agent said:\n{said}");

    for (name, _) in PODS {
        guest.sh(&format!("rm {MANIFESTS}/{name}.yaml"))?;
    }
    guest.sh(&format!("mv {DEFAULTS}.aside {DEFAULTS}; systemctl restart mainstay"))?;
    guest
        .wait_for("they are gone", "! mainstay status | grep -e plain- -e hooked- -e critical-")?;
    Ok(format!("{:.0} s until everything ran again", time.as_secs_f64()))
}

/// A pod that writes down its end, for which it takes a while.
fn ending(name: &str, class: &str) -> String {
    let class = if class.is_empty() { "\"\"" } else { class };
    let say = |what: &str| {
        format!("echo \"{name} 1 {what} $(cat /proc/sys/kernel/random/boot_id)\" >>/observed/log")
    };
    let hook = match name {
        "hooked" => format!(
            "lifecycle: {{ preStop: {{ exec: {{ command: [sh, -c, '{}; sleep 2'] }} }} }}",
            say("stopping")
        ),
        _ => String::new(),
    };
    let (started, at_end, ended) = (say("started"), say("ending"), say("ended"));
    format!(
        r"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  priorityClassName: {class}
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c]
    args:
    - |
      trap '{at_end}; sleep 2; {ended}; exit' TERM
      {started}
      sleep infinity & wait
    volumeMounts: [{{ name: observed, mountPath: /observed }}]
    {hook}
  volumes: [{{ name: observed, hostPath: {{ path: /observed }} }}]
"
    )
}
