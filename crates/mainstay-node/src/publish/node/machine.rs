//! What this machine is.
//!
//! Source for where things are found: cadvisor (`machine/info.go`), which a kubelet asks.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_linux::machine;
use mainstay_plan::allocatable::cpus;
use mainstay_plan::node_status::Machine;
use mainstay_pod::Quantity;
use rustix::fs::statvfs;

/// The machine with the file system of a directory.
pub(super) async fn look(directory: &Path) -> Machine {
    let directory: PathBuf = directory.to_owned();
    tokio::task::spawn_blocking(move || find(&directory)).await.unwrap_or_default()
}

/// The processors that are online; `None` where the kernel does not tell.
pub fn look_at_processors() -> Option<BTreeSet<u32>> {
    cpus(&first(&["/sys/devices/system/cpu/online"])).ok().filter(|it| !it.is_empty())
}

/// How much this machine has of what pods take, with the file system of a directory.
pub fn look_at_resources(directory: &Path) -> Machine {
    let usage = machine::machine().unwrap_or_default();
    Machine {
        processors: count(),
        memory: usage.memory,
        swap: usage.swap,
        huge_pages: huge_pages(),
        storage: statvfs(directory).map_or(0, |it| it.f_blocks.saturating_mul(it.f_frsize)),
        ..Machine::default()
    }
}

fn find(directory: &Path) -> Machine {
    let machine_id = first(&["/etc/machine-id", "/var/lib/dbus/machine-id"]);
    let firmware = [
        "/sys/class/dmi/id/product_uuid",
        "/proc/device-tree/system-id",
        "/proc/device-tree/vm,uuid",
        "/etc/machine-id",
    ];
    let kernel = rustix::system::uname();
    Machine {
        system_uuid: first(&firmware),
        machine_id,
        boot_id: first(&["/proc/sys/kernel/random/boot_id"]),
        kernel_version: kernel.release().to_string_lossy().into_owned(),
        os_image: os_image(&first(&["/etc/os-release", "/usr/lib/os-release"])),
        architecture: architecture().to_owned(),
        ..look_at_resources(directory)
    }
}

/// The text of the first file that can be read, without blanks and zeros around it.
fn first(paths: &[&str]) -> String {
    let read = |path: &&str| {
        let text = fs::read_to_string(path).ok()?;
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_owned();
        (!text.is_empty()).then_some(text)
    };
    paths.iter().find_map(read).unwrap_or_default()
}

/// Source: os-release(5).
fn os_image(text: &str) -> String {
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map(|name| name.trim_matches(['"', '\'']).to_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "Linux".to_owned())
}

/// How Go calls the machine's architecture.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// How many processors are online.
fn count() -> u64 {
    let listed = look_at_processors().map(|listed| listed.len());
    let some = || std::thread::available_parallelism().ok().map(usize::from);
    listed.or_else(some).and_then(|count| u64::try_from(count).ok()).unwrap_or(1)
}

/// Bytes that are set aside, by the size of the page as resources name it.
pub(crate) fn huge_pages() -> BTreeMap<String, u64> {
    let pages = machine::huge_pages().into_iter();
    pages.map(|(size, count)| (size_text(size), count.saturating_mul(size))).collect()
}

fn size_text(bytes: u64) -> String {
    Quantity::from_bytes(bytes).canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_is_called_what_it_calls_itself() {
        assert_eq!(
            os_image("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
            "Debian GNU/Linux 12"
        );
        assert_eq!(os_image(""), "Linux");
    }

    #[test]
    fn pages_are_named_by_their_size() {
        for (bytes, text) in
            [(64 << 10, "64Ki"), (2 << 20, "2Mi"), (512 << 20, "512Mi"), (1 << 30, "1Gi")]
        {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn this_machine_is_found() {
        let machine = find(Path::new("/"));
        assert!(machine.memory > 0 && machine.storage > 0 && machine.processors > 0);
        assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
    }
}
