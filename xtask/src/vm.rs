//! `cargo xtask vm`: what users have, on the oldest kernel that is promised: Debian's, with systemd
//! and version 2 control groups, installed as users install it, rebooted, and cut off its power.
//!
//! It is no stage of `cargo xtask ci`: the machine is emulated in software, which takes minutes.

mod checks;
mod disk;
mod guest;
mod machine;
mod payload;
mod pods;

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};

use crate::debian::Scratch;
use crate::process;
use checks::{BOOT, Check, STEPS};
use guest::{Driver, Guest};

/// What is kept between runs, and what a run leaves to look at.
const DIRECTORY: &str = "target/vm";

/// What came of one step.
struct Row {
    driver: Driver,
    name: &'static str,
    time: Duration,
    /// What was seen, or that it failed.
    seen: String,
}

/// Runs all steps; their random choices follow from the seed, or from the time.
///
/// # Errors
///
/// At the first step that fails: the others stand on it.
pub(crate) fn run(options: &[&str]) -> anyhow::Result<()> {
    let (mut seed, mut only) = (now_as_seed(), None);
    for option in options {
        match option.split_once('=') {
            Some(("--seed", number)) => {
                seed = number.parse().with_context(|| format!("{number} is not a number"))?;
            }
            Some(("--driver", "systemd")) => only = Some(Driver::Systemd),
            Some(("--driver", "cgroupfs")) => only = Some(Driver::Cgroupfs),
            _ => bail!(
                "there is no option {option}; there are --seed=NUMBER and --driver=systemd|cgroupfs"
            ),
        }
    }
    ensure!(cfg!(target_arch = "x86_64"), "the machine is one for x86_64");
    process::require_root()?;
    let directory = Path::new(DIRECTORY);
    fs::create_dir_all(directory).with_context(|| format!("cannot make {DIRECTORY}"))?;
    let lock = File::create(directory.join(".lock")).context("cannot make a lock file")?;
    lock.lock().with_context(|| format!("cannot lock {DIRECTORY}"))?;

    let start = Instant::now();
    let console = directory.join("console.log");
    let disks = {
        let payload = Scratch::new(&directory.join("payload"))?;
        payload::make(payload.path())?;
        disk::make(directory, payload.path())?
    };
    File::create(&console).with_context(|| format!("cannot write {}", console.display()))?;
    println!("the disks are made: {:.1} s", start.elapsed().as_secs_f64());
    println!("--seed={seed}");

    let mut guest = Guest::new(disks, console, seed)?;
    let mut rows = Vec::new();
    let steps = STEPS.iter().filter(|(driver, _)| only.is_none_or(|only| only == *driver));
    let result = step(&mut guest, &BOOT, &mut rows).and_then(|()| {
        steps.clone().try_for_each(|(driver, check)| {
            guest.driver = *driver;
            step(&mut guest, check, &mut rows)
        })
    });
    println!();
    for row in &rows {
        println!("{}", line(row));
    }
    println!("{:42}{:7.1} s", "all", start.elapsed().as_secs_f64());
    result
}

fn step(guest: &mut Guest, check: &Check, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let start = Instant::now();
    let result = (check.check)(guest);
    let seen = match &result {
        Ok(seen) => seen.clone(),
        Err(_) => "FAILED".to_owned(),
    };
    let row = Row { driver: guest.driver, name: check.name, time: start.elapsed(), seen };
    println!("{}", line(&row));
    rows.push(row);
    if result.is_err() {
        println!("\n{}", guest.post_mortem());
    }
    result.map(drop).with_context(|| format!("{} ({:?}) failed", check.name, guest.driver))
}

fn line(row: &Row) -> String {
    let (driver, time) = (format!("{:?}", row.driver).to_lowercase(), row.time.as_secs_f64());
    format!("{driver:10}{:32}{time:7.1} s  {}", row.name, row.seen)
}

fn now_as_seed() -> u64 {
    // Before 1970 all runs are alike.
    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time.as_secs()
}
