//! What the whole machine uses. Source: proc_stat(5), proc_meminfo(5), proc_pid_net(5).

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Processors and memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Nanoseconds that processors were busy since the boot, all together.
    pub cpu: u64,
    /// Seconds since 1970 at the boot, as the clock says it now.
    pub booted_at: u64,
    /// Bytes of memory that there are.
    pub memory: u64,
    /// Bytes of memory that somebody has, caches too.
    pub memory_usage: u64,
    /// Of them, files that nobody has used lately.
    pub inactive_file: u64,
    /// Of them, what belongs to no file.
    pub anonymous: u64,
    /// Bytes of memory that can be had without swapping; `None` where the kernel does not tell.
    pub available: Option<u64>,
    /// Bytes of swap that there are.
    pub swap: u64,
}

/// What went through a network interface since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Its name.
    pub name: String,
    /// Bytes that came.
    pub received_bytes: u64,
    /// Packets that came broken.
    pub receive_errors: u64,
    /// Bytes that went.
    pub sent_bytes: u64,
    /// Packets that could not go.
    pub send_errors: u64,
}

/// Reads what the machine uses.
pub fn machine() -> io::Result<Machine> {
    let stat = fs::read_to_string("/proc/stat")?;
    let memory = fs::read_to_string("/proc/meminfo")?;
    Ok(parse(&stat, &memory, rustix::param::clock_ticks_per_second()))
}

/// Where the processors tell when they got too hot: `/sys/devices/system/cpu/cpu<N>/thermal_throttle`.
pub fn thermal_throttles() -> io::Result<Vec<String>> {
    let mut list = Vec::new();
    for processor in fs::read_dir("/sys/devices/system/cpu")? {
        let path = processor?.path().join("thermal_throttle");
        if path.is_dir() {
            list.push(path.to_string_lossy().into_owned());
        }
    }
    Ok(list)
}

/// The sizes of huge pages that the processor has, in bytes, and how many pages of each the kernel has set
/// aside. Source: `Documentation/admin-guide/mm/hugetlbpage.rst` of Linux.
pub fn huge_pages() -> BTreeMap<u64, u64> {
    huge_pages_in(Path::new("/sys/kernel/mm/hugepages"))
}

fn huge_pages_in(directory: &Path) -> BTreeMap<u64, u64> {
    // A kernel without huge pages has no such directory.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let pages = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let kibibytes = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok()?;
        let count = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        Some((kibibytes.checked_mul(1024)?, count.trim().parse().unwrap_or(0)))
    });
    pages.collect()
}

/// Reads what went through the interfaces of the network namespace that a process is in, but for
/// the loopback one.
pub fn interfaces_of(pid: i32) -> io::Result<Vec<InterfaceCounters>> {
    Ok(parse_interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev"))?))
}

fn parse(stat: &str, memory: &str, ticks_per_second: u64) -> Machine {
    let after = |name: &str| stat.lines().find_map(|line| line.strip_prefix(name));
    let ticks: Vec<u64> = after("cpu ")
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    // user, nice, system, then irq, softirq and steal after idle and iowait; guests are users.
    let busy = [0, 1, 2, 5, 6, 7].map(|field| ticks.get(field).copied().unwrap_or_default());
    let nanoseconds = 1_000_000_000 / ticks_per_second.max(1);
    let told = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes.saturating_mul(1024))
    };
    let bytes = |name: &str| told(name).unwrap_or_default();
    let total = bytes("MemTotal");
    Machine {
        cpu: busy.iter().sum::<u64>().saturating_mul(nanoseconds),
        booted_at: after("btime ").and_then(|text| text.trim().parse().ok()).unwrap_or_default(),
        memory: total,
        memory_usage: total.saturating_sub(bytes("MemFree")),
        inactive_file: bytes("Inactive(file)"),
        anonymous: bytes("AnonPages"),
        available: told("MemAvailable"),
        swap: bytes("SwapTotal"),
    }
}

fn parse_interfaces(table: &str) -> Vec<InterfaceCounters> {
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let counters: Vec<u64> =
            counters.split_whitespace().map(|field| field.parse().unwrap_or_default()).collect();
        let at = |field: usize| counters.get(field).copied();
        Some(InterfaceCounters {
            name: name.trim().to_owned(),
            received_bytes: at(0)?,
            receive_errors: at(2)?,
            sent_bytes: at(8)?,
            send_errors: at(10)?,
        })
    };
    table.lines().filter_map(one).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_read() {
        let stat = "cpu  10 20 30 400 50 1 2 3 9 9\ncpu0 1 1 1 1 1 1 1 1 1 1\nbtime 1700000000\n";
        let memory = "MemTotal:  1000 kB\nMemFree:  400 kB\nInactive(file):  100 kB\n\
                      Inactive:  1 kB\nAnonPages:  200 kB\nMemAvailable:  500 kB\n\
                      SwapTotal:  50 kB\n";
        let expected = Machine {
            cpu: 660_000_000,
            booted_at: 1_700_000_000,
            memory: 1_024_000,
            memory_usage: 614_400,
            inactive_file: 102_400,
            anonymous: 204_800,
            available: Some(512_000),
            swap: 51_200,
        };
        assert_eq!(parse(stat, memory, 100), expected);
        assert_eq!(parse("", "", 100), Machine::default());
        let own = machine().unwrap();
        assert!(own.cpu > 0 && own.memory > own.inactive_file && own.booted_at > 0);
    }

    #[test]
    fn huge_pages_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        for (name, count) in
            [("hugepages-2048kB", "3\n"), ("hugepages-1048576kB", "0"), ("odd", "1")]
        {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("nr_hugepages"), count).unwrap();
        }
        assert_eq!(huge_pages_in(directory.path()), [(2 << 20, 3), (1 << 30, 0)].into());
        assert_eq!(huge_pages_in(&directory.path().join("none")), BTreeMap::new());
    }

    #[test]
    fn interfaces_are_read() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop
    lo:     100       1    0    0    0     0          0         0      100       1    0    0 0 0 0 0
  eth0: 1296    12    3    0    0     0          0         0     936      10    4    0 0 0 0 0
";
        let expected = InterfaceCounters {
            name: "eth0".to_owned(),
            received_bytes: 1296,
            receive_errors: 3,
            sent_bytes: 936,
            send_errors: 4,
        };
        assert_eq!(parse_interfaces(table), [expected]);
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(interfaces_of(own).is_ok());
    }
}
