//! What is run: the same program by everybody.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::image::Image;
use crate::process;

/// Writes down what time it is, and waits. Told a number, it prints as many numbered lines first and writes
/// down the time again; told anything else, it ends.
const SOURCE: &str = r#"
use std::io::Write;
use std::time::SystemTime;
fn stamp(path: &str) {
    let now = SystemTime::now();
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let new = format!("{path}.new");
    std::fs::write(&new, since.to_string()).unwrap();
    std::fs::rename(&new, path).unwrap();
}
fn main() {
    let path = std::env::args().nth(1).unwrap();
    stamp(&path);
    if let Some(what) = std::env::args().nth(2) {
        let Ok(count) = what.parse::<u64>() else { return };
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for number in 0..count {
            writeln!(out, "{number:0100}").unwrap();
        }
        out.flush().unwrap();
        stamp(&format!("{path}.end"));
    }
    loop {
        std::thread::park();
    }
}
"#;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program, an image of it, and where it writes.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) program: PathBuf,
    /// The root directory of the image.
    pub(crate) root: PathBuf,
    pub(crate) image: PathBuf,
    /// A directory of the host, which containers see as `/out`.
    pub(crate) out: PathBuf,
}

/// What the image is called.
pub(crate) const IMAGE: &str = "local/stamp:1";

impl Payload {
    pub(crate) fn make(directory: &Path) -> anyhow::Result<Self> {
        let payload = Self {
            program: directory.join("root/stamp"),
            root: directory.join("root"),
            image: directory.join("stamp.tar"),
            out: directory.join("out"),
        };
        for path in [&payload.root, &payload.out] {
            fs::create_dir_all(path)?;
        }
        let source = directory.join("stamp.rs");
        fs::write(&source, SOURCE)?;
        let mut rustc = process::command("rustc");
        rustc.args(["--edition=2024", "-Copt-level=2", "-Cpanic=abort", "-Cstrip=symbols"]);
        // One file, so that it runs in an image of nothing else.
        rustc.args(["-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-o"]);
        process::run(rustc.arg(&payload.program).arg(&source))?;
        Image { name: IMAGE, command: &["/stamp"], stop_signal: "SIGKILL" }
            .write(&payload.root, &payload.image)?;
        Ok(payload)
    }

    /// Where the program writes down its time in this round, without what an earlier one wrote.
    pub(crate) fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.out.join(name);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        Ok(path)
    }

    /// When the program began, in milliseconds since the epoch.
    pub(crate) fn wait_for(&self, stamp: &Path) -> anyhow::Result<f64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = fs::read_to_string(stamp) {
                let nanoseconds: f64 = text.parse().context("the payload wrote nonsense")?;
                return Ok(nanoseconds / 1e6);
            }
            if Instant::now() > deadline {
                bail!("after {PATIENCE:?} there is no {}", stamp.display());
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}
