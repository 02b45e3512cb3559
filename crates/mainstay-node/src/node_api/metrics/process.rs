//! This process. Source for the names: `prometheus/client_golang`, `process_collector.go`; for the
//! files: proc_pid_stat(5), proc_pid_statm(5).

use std::fs;

use mainstay_linux::machine::machine;

use super::exposition::{Exposition, Kind, Nanoseconds};

/// Fields of `/proc/self/stat`, counted from 0 after the name.
const USER_TIME: usize = 11;
const SYSTEM_TIME: usize = 12;
const START_TIME: usize = 19;

/// Adds what is known of this process.
pub(super) fn add(out: &mut Exposition) {
    if let (Some(user), Some(system)) = (ticks(USER_TIME), ticks(SYSTEM_TIME)) {
        let help = "Total user and system CPU time spent in seconds.";
        out.family("process_cpu_seconds_total", Kind::Counter, help);
        out.sample(&[], Nanoseconds(user.saturating_add(system)));
    }
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let resident = pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    if let Some(pages) = resident {
        let size = u64::try_from(rustix::param::page_size()).unwrap_or_default();
        let help = "Resident memory size in bytes.";
        out.family("process_resident_memory_bytes", Kind::Gauge, help);
        out.sample(&[], pages.saturating_mul(size));
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", Kind::Gauge, "Number of open file descriptors.");
        // Less the one that they are counted by.
        out.sample(&[], descriptors.count().saturating_sub(1));
    }
    add_start(out);
}

/// Adds when it was started.
pub(super) fn add_start(out: &mut Exposition) {
    if let (Some(after), Ok(machine)) = (ticks(START_TIME), machine()) {
        let help = "Start time of the process since unix epoch in seconds.";
        out.family("process_start_time_seconds", Kind::Gauge, help);
        let booted = machine.booted_at.saturating_mul(1_000_000_000);
        out.sample(&[], Nanoseconds(booted.saturating_add(after)));
    }
}

/// A field of `/proc/self/stat` that counts ticks of the clock, in nanoseconds.
fn ticks(field: usize) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may have blanks and parentheses in it.
    let (_, fields) = text.rsplit_once(')')?;
    let count: u64 = fields.split_whitespace().nth(field)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    count.checked_mul(1_000_000_000 / per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_seen() {
        let mut out = Exposition::default();
        add(&mut out);
        let text = String::from(out);
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value: f64 = line.unwrap_or_else(|| panic!("{name}: {text}")).parse().unwrap();
            assert!(value >= 0.0, "{name}");
        }
    }
}
