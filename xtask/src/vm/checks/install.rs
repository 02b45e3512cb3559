//! Installing mainstay, and telling it where manifests are, as the tutorials do with the kubelet.

use anyhow::ensure;

use crate::vm::guest::{Driver, Guest};
use crate::vm::payload::IMAGES;
use crate::vm::pods::{self, MANIFESTS};

pub(super) const DEFAULTS: &str = "/etc/default/mainstay";
const DROP_IN: &str = "/etc/systemd/system/mainstay.service.d";
const CONFIG: &str = "/etc/mainstay/config.yaml";
/// Those that make a bridge network, host ports and container file systems. They are loaded when
/// they are first asked for.
const MODULES: [&str; 6] = ["bridge", "nf_tables", "nft_ct", "nft_nat", "overlay", "veth"];

/// Nothing of mainstay is there yet.
pub(super) fn boot(guest: &mut Guest) -> anyhow::Result<String> {
    guest.switch_on()?;
    let run = guest.sh("findmnt --noheadings --output OPTIONS /run")?;
    ensure!(run.contains("noexec"), "/run lets programs run: {run}");
    let groups = guest.sh("stat --file-system --format=%T /sys/fs/cgroup")?;
    ensure!(groups == "cgroup2fs", "control groups are {groups}");
    guest
        .sh("uname --kernel-release; systemctl --version | head -1 | cut -d' ' -f1,2")
        .map(|text| text.replace('\n', ", "))
}

/// Unpacks, enables, imports an image by putting it where images are looked for.
pub(super) fn install(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh("tar --extract --directory=/ --file=/dev/disk/by-id/nvme-QEMU_NVMe_Ctrl_payload")?;
    if guest.driver == Driver::Cgroupfs {
        // The agent never knew of another one.
        guest.sh(&format!("mkdir -p {MANIFESTS}"))?;
        write_options(guest)?;
    }
    // Ready means ready: the very next command is answered.
    let status = guest
        .sh("systemctl --quiet enable --now mainstay && mainstay status && mainstay image ls")?;
    ensure!(status.contains("no pods"), "an agent without manifests says:\n{status}");
    let unit = "systemctl show --value --property=Type --property=ActiveState mainstay";
    let unit = guest.sh(unit)?.replace('\n', " ");
    ensure!(unit == "notify active", "the unit is {unit}");
    let directory = "/var/lib/mainstay/images";
    guest.sh(&format!("cp {IMAGES}/busybox.tar {IMAGES}/wide-0.tar {directory}/"))?;
    guest.wait_for(
        "images that were put into the directory are there",
        "mainstay image ls | grep local/busybox && mainstay image ls | grep local/wide-0",
    )?;
    Ok(String::new())
}

/// The options go where the unit reads them from.
pub(super) fn options(guest: &mut Guest) -> anyhow::Result<String> {
    write_options(guest)?;
    guest.write(&format!("{MANIFESTS}/web.yaml"), pods::WEB)?;
    guest.write(&format!("{MANIFESTS}/host.yaml"), pods::HOST)?;
    guest.sh("systemctl daemon-reload && systemctl restart mainstay")?;
    guest.wait_for_pods(&[("web", "Running"), ("host", "Running")])?;

    let page = guest.page()?;
    ensure!(page == "hello from the bridge", "from outside the host port says {page:?}");
    for (address, expected) in [
        ("127.0.0.1/8080", "hello from the bridge"),
        ("10.0.2.15/8080", "hello from the bridge"),
        ("127.0.0.1/8081", "hello from the host"),
    ] {
        let ask =
            format!("exec 4<>/dev/tcp/{address}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&4; cat <&4");
        let page = guest.sh(&ask)?;
        ensure!(page.ends_with(expected), "from inside {address} says {page:?}");
    }
    let loaded = guest.sh("lsmod")?;
    for module in MODULES {
        let there = loaded.lines().any(|line| line.split(' ').next() == Some(module));
        ensure!(there, "the module {module} is not loaded:\n{loaded}");
    }
    Ok(format!("on demand: {}", MODULES.join(", ")))
}

fn write_options(guest: &mut Guest) -> anyhow::Result<()> {
    let mut options = format!("--pod-manifest-path={MANIFESTS}");
    if guest.driver == Driver::Cgroupfs {
        guest.write(
            CONFIG,
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             cgroupDriver: cgroupfs",
        )?;
        options.push_str(&format!(" --config={CONFIG}"));
    }
    guest.write(DEFAULTS, &format!("MAINSTAY_OPTS=\"{options}\""))
}

/// The command line is written anew, and later back.
pub(super) fn drop_in(guest: &mut Guest) -> anyhow::Result<String> {
    let before = guest.processes()?;
    guest.sh(&format!("mv {DEFAULTS} {DEFAULTS}.aside"))?;
    guest.write(
        &format!("{DROP_IN}/override.conf"),
        &format!(
            "[Service]\nExecStart=\nExecStart=/usr/local/bin/mainstay run \
             --pod-manifest-path={MANIFESTS}"
        ),
    )?;
    guest.write(&format!("{MANIFESTS}/late.yaml"), &pods::noted("late", "Always", pods::RUN_ON))?;
    guest.sh("systemctl daemon-reload && systemctl restart mainstay")?;
    guest.wait_for_pods(&[("web", "Running"), ("host", "Running"), ("late", "Running")])?;
    let after = guest.processes()?;
    let stay = before.iter().all(|(pid, process)| after.get(pid) == Some(process));
    ensure!(stay, "processes have ended: {before:#?}, now {after:#?}");
    guest.sh(&format!(
        "set -e; rm -r {DROP_IN} {MANIFESTS}/late.yaml; mv {DEFAULTS}.aside {DEFAULTS}; \
         systemctl daemon-reload; systemctl restart mainstay"
    ))?;
    guest.wait_for(
        "the pod whose manifest is gone is gone",
        "! mainstay status | grep late-guest",
    )?;
    Ok(String::new())
}
