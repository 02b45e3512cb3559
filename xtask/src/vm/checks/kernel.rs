//! What a kernel has that those of other machines lack.

use anyhow::ensure;

use crate::vm::guest::Guest;
use crate::vm::pods::MANIFESTS;

/// A program that waits for its end.
const WAIT: &str = r#"[sh, -c, "trap exit TERM; sleep infinity & wait"]"#;

/// Huge pages are whose they are asked for: as a limit, in a volume, and when there are not enough.
pub(super) fn huge_pages(guest: &mut Guest) -> anyhow::Result<String> {
    let reserved = guest.sh("sysctl -q -w vm.nr_hugepages=8; cat /proc/sys/vm/nr_hugepages")?;
    ensure!(reserved == "8", "of 8 huge pages {reserved} could be had");
    guest.write(
        &format!("{MANIFESTS}/huge.yaml"),
        &format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{ name: huge }}
spec:
  containers:
  - name: some
    image: local/busybox:1
    command: {WAIT}
    env:
    - name: PAGES
      valueFrom: {{ resourceFieldRef: {{ resource: limits.hugepages-2Mi, divisor: 1Mi }} }}
    resources: {{ limits: {{ cpu: 100m, hugepages-2Mi: 4Mi }} }}
    volumeMounts: [{{ name: pages, mountPath: /pages }}]
  - name: none
    image: local/busybox:1
    command: {WAIT}
    volumeMounts: [{{ name: pages, mountPath: /pages }}]
  volumes: [{{ name: pages, emptyDir: {{ medium: HugePages-2Mi }} }}]
"#
        ),
    )?;
    guest.write(
        &format!("{MANIFESTS}/toomuch.yaml"),
        &format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{ name: toomuch }}
spec:
  containers:
  - name: main
    image: local/busybox:1
    command: {WAIT}
    resources: {{ limits: {{ cpu: 100m, hugepages-2Mi: 32Mi }} }}
"#
        ),
    )?;
    guest.wait_for_pods(&[("huge", "Running")])?;
    let too_few =
        |used: u32| format!("hugepages-2Mi, requested: 33554432, used: {used}, capacity: 16777216");
    let says = |used| format!("mainstay status toomuch | grep -q '{}'", too_few(used));
    guest.wait_for("a pod waits for more of them", &says(4 << 20))?;

    let (some, none) = (guest.cgroup_of("huge", "some")?, guest.cgroup_of("huge", "none")?);
    let pod = some.rsplit_once('/').map_or("", |(pod, _)| pod).to_owned();
    for (group, bytes) in [(&some, 4 << 20), (&none, 0), (&pod, 4 << 20)] {
        for file in ["hugetlb.2MB.max", "hugetlb.2MB.rsvd.max"] {
            let found = guest.sh(&format!("cat {group}/{file}"))?;
            ensure!(found == bytes.to_string(), "{group}/{file} is {found}, not {bytes}");
        }
    }
    for (container, script, works) in [
        (
            "some",
            "test $PAGES = 4 && grep -q \" /pages hugetlbfs .*pagesize=2M\" /proc/mounts",
            true,
        ),
        ("none", "fallocate -l 2M /pages/none", false),
        ("some", "fallocate -l 4M /pages/some", true),
        ("some", "fallocate -l 2M /pages/more", false),
    ] {
        let exec = format!("mainstay exec huge -c {container} -- sh -c '{script}'");
        let answer = guest.run(&exec)?;
        ensure!((answer.status == 0) == works, "{container}: `{script}` ended so: {answer:?}");
    }
    guest.sh(&format!("rm {MANIFESTS}/huge.yaml"))?;
    guest.wait_for("those of another pod are free", &says(0))?;
    guest.wait_for("the pages are free", "grep -E 'HugePages_Free: +8' /proc/meminfo")?;
    let more = guest.sh("sysctl -q -w vm.nr_hugepages=16; cat /proc/sys/vm/nr_hugepages")?;
    ensure!(more == "16", "of 16 huge pages {more} could be had");
    guest.wait_for_pods(&[("toomuch", "Running")])?;
    guest.sh(&format!("rm {MANIFESTS}/toomuch.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep -e huge -e toomuch")?;
    guest.sh("sysctl -q -w vm.nr_hugepages=0")?;
    Ok("8 pages of 2 MiB, then 16".to_owned())
}

/// The profile of the guest's own, and what it refuses beside what the rights of files do.
const PROFILE: &str = "profile vm-mine flags=(attach_disconnected) {
  capability, file, network, signal, deny /tmp/refused w,
}";

/// Containers and what is run in them later have the profile that was asked for, and are held to it.
pub(super) fn apparmor(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh(&format!("apparmor_parser --replace --skip-cache <<'END'\n{PROFILE}\nEND"))?;
    let mine = "{ type: Localhost, localhostProfile: vm-mine }";
    let rows = [
        ("plain", "", "{}", "mainstay-default-1 (enforce)"),
        ("mine", "", mine, "vm-mine (enforce)"),
        ("noted", "localhost/vm-mine", "{}", "vm-mine (enforce)"),
        ("none", "", "{ type: Unconfined }", "unconfined"),
        ("all", "", "{}", "unconfined"),
    ];
    for (name, annotation, profile, _) in rows {
        guest.write(
            &format!("{MANIFESTS}/armor-{name}.yaml"),
            &armored(name, annotation, profile, name == "all"),
        )?;
    }
    let missing = "{ type: Localhost, localhostProfile: vm-missing }";
    guest.write(
        &format!("{MANIFESTS}/armor-missing.yaml"),
        &armored("missing", "", missing, false),
    )?;
    guest.wait_for_pods(&[
        ("armor-plain", "Running"),
        ("armor-mine", "Running"),
        ("armor-noted", "Running"),
        ("armor-none", "Running"),
        ("armor-all", "Running"),
        ("armor-missing", "CreateContainerError"),
    ])?;
    for (name, _, _, expected) in rows {
        for process in ["1", "self"] {
            let file = format!("/proc/{process}/attr/current");
            let found = guest.sh(&format!("mainstay exec armor-{name} -- cat {file}"))?;
            ensure!(found == expected, "armor-{name}: {file} is {found}, not {expected}");
        }
    }
    for (name, script, works) in [
        // It has the capability, and the system call is let through.
        ("plain", "mount -t tmpfs none /tmp", false),
        ("none", "mount -t tmpfs none /tmp", true),
        ("all", "mount -t tmpfs none /tmp", true),
        ("plain", "echo 1 >/tmp/refused && kill -0 1", true),
        ("mine", "echo 1 >/tmp/other", true),
        ("mine", "echo 1 >/tmp/refused", false),
        ("noted", "echo 1 >/tmp/refused", false),
    ] {
        let answer = guest.run(&format!("mainstay exec armor-{name} -- sh -c '{script}'"))?;
        ensure!((answer.status == 0) == works, "armor-{name}: `{script}` ended so: {answer:?}");
    }
    guest.sh(&format!("rm {MANIFESTS}/armor-*.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep armor-")?;

    // Without the program that compiles profiles.
    guest.sh("set -e; echo -n mainstay-default-1 >/sys/kernel/security/apparmor/.remove; \
         mv /usr/sbin/apparmor_parser /root/; ! command -v apparmor_parser")?;
    let wanted = armored("wanted", "", "{ type: RuntimeDefault }", false);
    guest.write(&format!("{MANIFESTS}/armor-wanted.yaml"), &wanted)?;
    guest.write(&format!("{MANIFESTS}/armor-plain.yaml"), &armored("plain", "", "{}", false))?;
    guest.wait_for_pods(&[("armor-wanted", "CreateContainerError"), ("armor-plain", "Running")])?;
    let said = guest.sh("mainstay status; true")?;
    ensure!(said.contains("apparmor_parser, which is not on this machine"), "it says:\n{said}");
    guest.sh(&format!("mv /root/apparmor_parser /usr/sbin/; rm {MANIFESTS}/armor-*.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep armor-")?;
    Ok(format!("{} profiles", rows.len()))
}

/// A pod with a profile in the field of its container, and in the annotation that came before it.
fn armored(name: &str, annotation: &str, profile: &str, privileged: bool) -> String {
    let annotation = match annotation {
        "" => String::new(),
        value => {
            format!(
                ", annotations: {{ container.apparmor.security.beta.kubernetes.io/main: {value} }}"
            )
        }
    };
    let profile = match profile {
        "{}" => String::new(),
        profile => format!("appArmorProfile: {profile}, "),
    };
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: armor-{name}{annotation} }}
spec:
  containers:
  - name: main
    image: local/busybox:1
    command: {WAIT}
    securityContext: {{ {profile}privileged: {privileged}, capabilities: {{ add: [SYS_ADMIN] }} }}
"#
    )
}

/// A server in the guest, of which it is its own client. It lets nobody wait for those who had something open
/// before it was started.
const SERVER: &str = "set -e; mkdir -p /srv/nfs/part; echo hello >/srv/nfs/hello; modprobe nfsd; \
    mountpoint -q /proc/fs/nfsd || mount -t nfsd nfsd /proc/fs/nfsd; rpc.nfsd 0; \
    echo 10 >/proc/fs/nfsd/nfsv4leasetime; echo 10 >/proc/fs/nfsd/nfsv4gracetime; \
    exportfs -o rw,no_root_squash,insecure,fsid=0 10.0.2.15:/srv/nfs; \
    pidof rpc.mountd || rpc.mountd; rpc.nfsd --no-udp --no-nfs-version 3 2";

/// Volumes of a server: written, read, through an agent that comes anew; and a server that stops answering
/// stops nothing but what uses it.
pub(super) fn nfs(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh(SERVER)?;
    let served = served("served", "10.0.2.15");
    guest.write(&format!("{MANIFESTS}/served.yaml"), &served)?;
    guest.wait_for_pods(&[("served", "Running")])?;
    for (script, works) in [
        ("test \"$(cat /all/hello)\" = hello", true),
        ("echo there >/all/part/here && test \"$(cat /part/here)\" = there", true),
        ("echo more >/read/more", false),
        ("test -d /made && echo x >/made/x", true),
    ] {
        let answer = guest.run(&format!("mainstay exec served -- sh -c '{script}'"))?;
        ensure!((answer.status == 0) == works, "`{script}` ended so: {answer:?}");
    }
    let seen = guest.sh("cat /srv/nfs/part/here /srv/nfs/new/made/x")?;
    ensure!(seen == "there\nx", "the server has {seen:?}");
    let options = guest.sh("grep -o ' nfs4 .*vers=4.2' /proc/mounts | head -1")?;
    ensure!(!options.is_empty(), "it is not mounted with NFS 4.2");

    guest.sh("systemctl restart mainstay")?;
    guest.wait_for_pods(&[("served", "Running"), ("web", "Running")])?;
    ensure!(guest.pod("served")?["restarts"] == 0, "the pod was restarted");
    guest.sh(&format!("rm {MANIFESTS}/served.yaml"))?;
    guest.wait_for("the pod is gone", "! mainstay status | grep served")?;
    guest.sh("! grep kubernetes.io~nfs /proc/mounts")?;
    let kept = guest.sh("cat /srv/nfs/part/here")?;
    ensure!(kept == "there", "what was written is not on the server: {kept}");

    // From now on it says nothing.
    guest.write(&format!("{MANIFESTS}/served.yaml"), &served)?;
    guest.wait_for_pods(&[("served", "Running")])?;
    guest.sh(
        "nft add table inet silence; nft add chain inet silence in \
         '{ type filter hook input priority 0; }'; nft add rule inet silence in tcp dport 2049 drop",
    )?;
    guest.sh("mainstay exec served -- sh -c 'echo lost >/all/lost' >/dev/null 2>&1 & \
         systemctl restart mainstay")?;
    guest.write(&format!("{MANIFESTS}/beside.yaml"), &armored("beside", "", "{}", false))?;
    guest.wait_for_pods(&[("web", "Running"), ("armor-beside", "Running")])?;
    guest.sh(&format!("rm {MANIFESTS}/served.yaml"))?;
    guest.wait_for("the pod without a server is gone", "! mainstay status | grep served")?;
    guest.sh("! grep kubernetes.io~nfs /proc/mounts")?;
    guest.write(&format!("{MANIFESTS}/served.yaml"), &served)?;
    guest.wait_for(
        "it is told that the server does not answer",
        "mainstay status | grep 'the server does not answer'",
    )?;
    guest.sh(&format!("rm {MANIFESTS}/served.yaml {MANIFESTS}/beside.yaml"))?;
    guest.wait_for("they are gone", "! mainstay status | grep -e served -e armor-beside")?;
    guest
        .sh("nft delete table inet silence; rpc.nfsd 0; exportfs -ua; kill $(pidof rpc.mountd)")?;
    Ok("NFS 4.2".to_owned())
}

/// A pod with a server's directory: all of it, a part of it, for reading only, and a part that is to be made.
fn served(name: &str, server: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  terminationGracePeriodSeconds: 2
  containers:
  - name: main
    image: local/busybox:1
    command: {WAIT}
    volumeMounts:
    - {{ name: all, mountPath: /all }}
    - {{ name: all, mountPath: /part, subPath: part }}
    - {{ name: all, mountPath: /made, subPath: new/made }}
    - {{ name: read, mountPath: /read }}
  volumes:
  - {{ name: all, nfs: {{ server: {server}, path: / }} }}
  - {{ name: read, nfs: {{ server: {server}, path: /, readOnly: true }} }}
"#
    )
}

/// A host port of SCTP leads into the pod. Its program is the guest's, since busybox has none.
pub(super) fn sctp(guest: &mut Guest) -> anyhow::Result<String> {
    guest.write(
        &format!("{MANIFESTS}/sctp.yaml"),
        r#"
apiVersion: v1
kind: Pod
metadata: { name: sctp }
spec:
  containers:
  - name: main
    image: local/busybox:1
    command: [chroot, /guest, socat, "SCTP-LISTEN:900,fork", "SYSTEM:echo hello over SCTP"]
    ports: [{ containerPort: 900, hostPort: 9000, protocol: SCTP }]
    volumeMounts: [{ name: guest, mountPath: /guest, recursiveReadOnly: IfPossible, readOnly: true }]
  volumes: [{ name: guest, hostPath: { path: / } }]
"#,
    )?;
    guest.wait_for_pods(&[("sctp", "Running")])?;
    let address = guest.pod("sctp")?["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    for place in [format!("{address}:900"), "10.0.2.15:9000".to_owned()] {
        let ask = format!("timeout 20 socat -u SCTP:{place} -");
        guest.wait_for(&format!("{place} answers"), &format!("{ask} | grep 'hello over SCTP'"))?;
    }
    // The port is taken for everybody else.
    guest.sh("! timeout 5 socat -u SCTP-LISTEN:9000 - 2>&1 | grep -v 'Address already in use'")?;
    guest.sh(&format!("rm {MANIFESTS}/sctp.yaml"))?;
    guest.wait_for("the pod is gone", "! mainstay status | grep sctp")?;
    Ok(String::new())
}

/// Requests are kept for pods in all groups up to the root, and who has a limit is slowed down before it.
pub(super) fn memory(guest: &mut Guest) -> anyhow::Result<String> {
    const CONFIG: &str = "/etc/mainstay/memory.yaml";
    const DEFAULTS: &str = "/etc/default/mainstay";
    guest.write(
        CONFIG,
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
         featureGates: { MemoryQoS: true }\nmemoryThrottlingFactor: 0.5\n\
         memoryReservationPolicy: TieredReservation",
    )?;
    guest.sh(&format!("cp {DEFAULTS} {DEFAULTS}.aside"))?;
    let options = format!("MAINSTAY_OPTS=\"--pod-manifest-path={MANIFESTS} --config={CONFIG}\"");
    guest.write(DEFAULTS, &options)?;
    guest.sh("systemctl restart mainstay")?;
    for (name, resources) in [
        ("kept", "{ limits: { cpu: 100m, memory: 32Mi } }"),
        ("liked", "{ requests: { memory: 16Mi }, limits: { memory: 48Mi } }"),
    ] {
        let manifest = format!(
            r#"
apiVersion: v1
kind: Pod
metadata: {{ name: {name} }}
spec:
  containers:
  - name: main
    image: local/busybox:1
    command: {WAIT}
    resources: {resources}
"#
        );
        guest.write(&format!("{MANIFESTS}/{name}.yaml"), &manifest)?;
    }
    guest.wait_for_pods(&[("kept", "Running"), ("liked", "Running")])?;
    let (kept, liked) = (guest.cgroup_of("kept", "main")?, guest.cgroup_of("liked", "main")?);
    let above = |group: &str| group.rsplit_once('/').map_or("", |(above, _)| above).to_owned();
    let (kept_pod, liked_pod) = (above(&kept), above(&liked));
    let (class, all) = (above(&liked_pod), above(&kept_pod));
    let slice = above(&all);
    let expected = [
        (&kept, "memory.min", "33554432"),
        (&kept, "memory.high", "max"),
        (&kept_pod, "memory.min", "33554432"),
        (&liked, "memory.low", "16777216"),
        // Half of the way from 16 MiB to 48 MiB.
        (&liked, "memory.high", "33554432"),
        (&liked_pod, "memory.low", "16777216"),
    ];
    for (group, file, value) in expected {
        let found = guest.sh(&format!("cat {group}/{file}"))?;
        ensure!(found == value, "{group}/{file} is {found}, not {value}");
    }
    for (file, least) in [("memory.min", 33_554_432_u64), ("memory.low", 16_777_216)] {
        let mut sum_in = |group: &str| {
            guest.sh(&format!(
                "set -e; sum=0; for pod in $(find {group} -maxdepth 2 -name 'pod*'); do \
                 sum=$((sum + $(cat $pod/{file}))); done; echo $sum"
            ))
        };
        let (of_class, of_all) = (sum_in(&class)?, sum_in(&all)?);
        ensure!(of_all.parse::<u64>()? >= least, "the pods' {file} is {of_all} together");
        // systemd writes what it thinks of them whenever it likes; they are looked after.
        guest.sh("systemctl daemon-reload")?;
        for (group, sum) in [(&class, &of_class), (&all, &of_all), (&slice, &of_all)] {
            let covers = format!("test $(cat {group}/{file}) = {sum}");
            guest.wait_for(&format!("{group}/{file} covers its pods"), &covers)?;
        }
    }
    guest.sh(&format!(
        "rm {MANIFESTS}/kept.yaml {MANIFESTS}/liked.yaml; mv {DEFAULTS}.aside {DEFAULTS}; \
         systemctl restart mainstay"
    ))?;
    guest.wait_for("they are gone", "! mainstay status | grep -e kept -e liked")?;
    Ok(format!("{} values", expected.len()))
}
