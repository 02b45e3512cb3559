//! What pods may use.

use anyhow::{Context, ensure};

use crate::vm::guest::Guest;
use crate::vm::pods::MANIFESTS;

/// Limits and requests of the pod `web` stand in the files of version 2, its containers' and its
/// own, and still do after systemd has gone over the whole tree.
pub(super) fn limits(guest: &mut Guest) -> anyhow::Result<String> {
    let (web, idle) = (guest.cgroup_of("web", "web")?, guest.cgroup_of("web", "idle")?);
    let (pod, _) = web.rsplit_once('/').context("a control group of nobody")?;
    // Shares of 1024 for a processor, as version 2 weighs them: 256 for a request of 250m, 512 for
    // both containers, where the second one asks for what it is limited to.
    let expected = [
        (web.as_str(), "cpu.max", "50000 100000"),
        (&web, "cpu.weight", "10"),
        (&web, "memory.max", "67108864"),
        (&idle, "cpu.max", "25000 100000"),
        (&idle, "cpu.weight", "10"),
        (&idle, "memory.max", "33554432"),
        (pod, "cpu.max", "75000 100000"),
        (pod, "cpu.weight", "20"),
        (pod, "memory.max", "100663296"),
    ];
    for moment in ["at first", "after systemd has gone over its units"] {
        for (group, file, value) in expected {
            let found = guest.sh(&format!("cat {group}/{file}"))?;
            ensure!(found == value, "{moment} {group}/{file} is {found}, not {value}");
        }
        guest.sh(
            "systemctl daemon-reload; systemctl set-property --runtime dbus.service CPUWeight=50",
        )?;
    }
    Ok(format!("{} values", expected.len()))
}

/// A container that takes too much is killed, and nothing else is.
pub(super) fn out_of_memory(guest: &mut Guest) -> anyhow::Result<String> {
    let before = guest.processes()?;
    let manifest = format!("{MANIFESTS}/greedy.yaml");
    guest.write(
        &manifest,
        r"
apiVersion: v1
kind: Pod
metadata: { name: greedy }
spec:
  restartPolicy: Never
  containers:
  - name: greedy
    image: local/busybox:1
    command: [dd, if=/dev/zero, of=/dev/null, bs=256M, count=1]
    resources: { limits: { memory: 32Mi } }
",
    )?;
    guest.wait_for(
        "the kernel kills a container that takes too much",
        "mainstay status greedy --output=json | grep OOMKilled",
    )?;
    let pod = guest.pod("greedy")?;
    let end = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    ensure!(end["reason"] == "OOMKilled" && end["exitCode"] == 137, "it ended so: {end}");
    ensure!(pod["state"] == "OOMKilled", "the pod is {}", pod["state"]);
    guest.sh(&format!("rm {manifest}"))?;
    guest.wait_for("it is gone", "! mainstay status | grep greedy")?;
    ensure!(guest.processes()? == before, "others have ended too");
    let failed = guest.sh("systemctl --failed --no-legend")?;
    ensure!(failed.is_empty(), "units have failed: {failed}");
    Ok("OOMKilled, and nothing else is".to_owned())
}

/// A container opens the machine's disk only if it is privileged.
pub(super) fn devices(guest: &mut Guest) -> anyhow::Result<String> {
    let disk = guest.sh("stat --format='%Hr %Lr' /dev/nvme0n1")?;
    let read = "dd of=/dev/null bs=512 count=1";
    let cases = [
        // What every container may open: the file system is not in the way.
        ("confined", "mknod /null c 1 3 && echo >/null".to_owned(), true),
        ("confined", format!("mknod /disk b {disk} && {read} if=/disk"), false),
        ("confined", format!("{read} if=/dev/nvme0n1"), false),
        ("privileged", format!("{read} if=/dev/nvme0n1"), true),
        ("privileged", format!("mknod /disk b {disk} && {read} if=/disk"), true),
    ];
    for (name, privileged) in [("confined", false), ("privileged", true)] {
        let manifest = secured(name, "{}", &format!("{{ privileged: {privileged} }}"));
        guest.write(&format!("{MANIFESTS}/{name}.yaml"), &manifest)?;
    }
    guest.wait_for_pods(&[("confined", "Running"), ("privileged", "Running")])?;
    for (pod, script, works) in &cases {
        let answer = guest.run(&format!("mainstay exec {pod} -- sh -c '{script}'"))?;
        let output = &answer.output;
        ensure!((answer.status == 0) == *works, "{pod}: `{script}` ended so: {answer:?}");
        let refused = output.contains("Operation not permitted") || output.contains("No such file");
        ensure!(*works || refused, "{pod}: `{script}` failed so: {output}");
    }
    guest.sh(&format!("rm {MANIFESTS}/confined.yaml {MANIFESTS}/privileged.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep -e confined -e privileged")?;
    Ok(format!("{} cases", cases.len()))
}

/// Seccomp filters what a container does, and what is run in it later.
pub(super) fn system_calls(guest: &mut Guest) -> anyhow::Result<String> {
    let mut cases = Vec::new();
    for (profile, mode) in [("Unconfined", "0"), ("RuntimeDefault", "2")] {
        for escalation in [true, false] {
            let name = format!("{profile}-{escalation}").to_lowercase();
            let manifest = secured(
                &name,
                &format!("{{ seccompProfile: {{ type: {profile} }} }}"),
                &format!("{{ allowPrivilegeEscalation: {escalation} }}"),
            );
            guest.write(&format!("{MANIFESTS}/{name}.yaml"), &manifest)?;
            cases.push((name, mode));
        }
    }
    let running: Vec<(&str, &str)> =
        cases.iter().map(|(name, _)| (name.as_str(), "Running")).collect();
    guest.wait_for_pods(&running)?;
    for (name, mode) in &cases {
        for process in ["1", "self"] {
            let seen = guest.sh(&format!(
                "mainstay exec {name} -- awk '/^Seccomp:/ {{ print $2 }}' /proc/{process}/status"
            ))?;
            ensure!(seen == *mode, "{name}: Seccomp of {process} is {seen}, not {mode}");
        }
    }
    guest.sh(&format!("rm {MANIFESTS}/*-true.yaml {MANIFESTS}/*-false.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep -e -true -e -false")?;
    Ok("Seccomp: 2 where it should be".to_owned())
}

/// A pod that does nothing, with security contexts for itself and its container.
fn secured(name: &str, pod: &str, container: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  securityContext: {pod}
  containers:
  - name: main
    image: local/busybox:1
    command: [sh, -c, "trap exit TERM; sleep infinity & wait"]
    securityContext: {container}
"#
    )
}
