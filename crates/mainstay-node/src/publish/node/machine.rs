//! What this machine is.
//!
//! Source for where things are found: cadvisor (`machine/info.go`), which a kubelet asks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mainstay_linux::machine;
use mainstay_plan::node_status::Machine;
use mainstay_pod::Amounts;
use rustix::fs::statvfs;

/// The machine with the file system of a directory.
pub(super) async fn look(directory: &Path) -> Machine {
    let directory: PathBuf = directory.to_owned();
    tokio::task::spawn_blocking(move || find(&directory)).await.unwrap_or_default()
}

/// What of this machine pods can have, with the file system of a directory.
pub fn allocatable(directory: &Path) -> Amounts {
    capacity(directory).allocatable()
}

/// How much there is of what pods take.
fn capacity(directory: &Path) -> Machine {
    let usage = machine::machine().unwrap_or_default();
    Machine {
        processors: count(&first(&["/sys/devices/system/cpu/online"])),
        memory: usage.memory,
        swap: usage.swap,
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
        huge_pages: huge_pages(Path::new("/sys/kernel/mm/hugepages")),
        ..capacity(directory)
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

/// How many there are in a list such as `0-3,6`.
fn count(list: &str) -> u64 {
    let of_range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    let all: Option<u64> = list.split(',').map(of_range).sum();
    all.unwrap_or_else(|| {
        let some = std::thread::available_parallelism();
        some.ok().and_then(|some| u64::try_from(some.get()).ok()).unwrap_or(1)
    })
}

/// Bytes by size of page. Source: `Documentation/admin-guide/mm/hugetlbpage.rst` of Linux.
fn huge_pages(directory: &Path) -> BTreeMap<String, u64> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|name| name.strip_suffix("kB"));
        let Some(kibibytes) = size.and_then(|size| size.parse::<u64>().ok()) else { continue };
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let count: u64 = count.trim().parse().unwrap_or(0);
        let text = format!("{kibibytes}Ki");
        let size =
            mainstay_pod::Quantity::parse(&text).map_or(text, mainstay_pod::Quantity::canonical);
        pages.insert(size, count.saturating_mul(kibibytes).saturating_mul(1024));
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_counted() {
        for (list, count) in [("0", 1), ("0-3", 4), ("0-3,6,8-9", 7)] {
            assert_eq!(super::count(list), count, "{list}");
        }
        assert!(super::count("") >= 1);
    }

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
        let directory = tempfile::tempdir().unwrap();
        for (name, count) in [("hugepages-2048kB", "3"), ("hugepages-1048576kB", "0")] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("nr_hugepages"), count).unwrap();
        }
        let pages = huge_pages(directory.path());
        assert_eq!(pages, [("2Mi".to_owned(), 6 << 20), ("1Gi".to_owned(), 0)].into());
    }

    #[test]
    fn this_machine_is_found() {
        let machine = find(Path::new("/"));
        assert!(machine.memory > 0 && machine.storage > 0 && machine.processors > 0);
        assert!(!machine.kernel_version.is_empty() && !machine.boot_id.is_empty());
    }
}
