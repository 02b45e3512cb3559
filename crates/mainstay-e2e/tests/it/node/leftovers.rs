//! What an instance may leave on a machine.

use std::fs;
use std::path::Path;

use mainstay_engine::network::Names;
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::mount;

use super::wait_for;
use crate::program::{command, run};

/// Finds processes, mounts, control groups, links and rules, and files below `directory` that are
/// the instance's; each in words.
pub(super) fn find(directory: &Path, names: &Names) -> Vec<String> {
    let mut left = Vec::new();
    left.extend(processes(directory));
    let mounts = mount::mount_points().unwrap();
    let mounts = mounts.iter().filter(|point| point.starts_with(directory));
    left.extend(mounts.map(|point| format!("mount {}", point.display())));
    let hierarchies = Hierarchies::mounted().unwrap();
    let group = hierarchies.at(&format!("/{}", names.table));
    let groups = group.directories().filter(|path| path.exists());
    left.extend(groups.map(|path| format!("control group {}", path.display())));
    left.extend(links(names).into_iter().map(|link| format!("link {link}")));
    if tables().contains(&format!("table inet {}\n", names.table)) {
        left.push(format!("table {}", names.table));
    }
    for file in ["root", "run"] {
        left.extend(directory.join(file).exists().then(|| format!("directory {file}")));
    }
    left
}

/// Processes that were started with a path of the instance, or see one in their mounts. What a test
/// mounts beside the instance is seen by other tests' pods too, if they start meanwhile.
fn processes(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let directory = directory.to_str().unwrap();
    for entry in fs::read_dir("/proc").unwrap() {
        let entry = entry.unwrap().path();
        let Some(pid) = entry.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok())
        else {
            continue;
        };
        let read = |file: &str| {
            // It may end at any time.
            let bytes = fs::read(entry.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', " ")
        };
        let line = read("cmdline");
        let is_watchdog = line.starts_with("sh -c");
        let mounts = read("mountinfo");
        let sees = |part: &str| mounts.contains(&format!("{directory}/{part}/"));
        if (line.contains(directory) && !is_watchdog) || sees("root") || sees("run") {
            found.push(format!("process {pid} {line}"));
        }
    }
    found
}

/// Links that carry the instance's mark.
fn links(names: &Names) -> Vec<String> {
    let mut links = Vec::new();
    for entry in fs::read_dir("/sys/class/net").unwrap() {
        let entry = entry.unwrap();
        // Another test may take its links away at any time.
        let group = fs::read_to_string(entry.path().join("netdev_group")).unwrap_or_default();
        let group = group.trim().parse::<u32>().unwrap_or(0);
        if group == names.group || group == names.doomed {
            links.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    links
}

fn tables() -> String {
    run(command("nft").args(["list", "tables"])).success()
}

/// Takes out of sight all that is mounted below a directory.
pub(super) fn unmount(directory: &Path) {
    let mounts = mount::mount_points().unwrap();
    for point in mounts.iter().rev().filter(|point| point.starts_with(directory)) {
        mount::detach(point).unwrap();
    }
}

/// Removes links and rules, as the end of the machine does.
pub(super) fn remove_network(names: &Names) {
    let gone = wait_for(|| {
        let links = links(names);
        for link in &links {
            // It may go by itself, with the network at its other end.
            run(command("ip").args(["link", "delete", link]));
        }
        links.is_empty().then_some(())
    });
    assert!(gone.is_some(), "links cannot be deleted: {:?}", links(names));
    if tables().contains(&format!("table inet {}\n", names.table)) {
        run(command("nft").args(["delete", "table", "inet", &names.table])).success();
    }
}
