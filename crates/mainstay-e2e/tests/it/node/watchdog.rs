//! Cleaning up after a test that was killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};

use crate::program::command;

/// Waits for a word; when its input ends without one, it does what the test cannot do any more.
///
/// `$1` is mainstay, `$2` the directory of the instance.
const SCRIPT: &str = r#"
read -r word && exit
"$1" --root-dir "$2/root" --run-dir "$2/run" down --purge
while read -r _ point _; do
    case $point in "$2"/*) umount -l "$point" ;; esac
done < /proc/mounts
rm -rf --one-file-system "$2"
"#;

/// A process outside the test's group, which outlives the test when that is killed.
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Watches over an instance in `directory`.
    pub(super) fn start(program: &Path, directory: &Path) -> Self {
        let mut command = command("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(program).arg(directory);
        // What it says would keep the test's output open.
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.process_group(0).spawn().unwrap())
    }

    /// The test has cleaned up.
    pub(super) fn dismiss(&mut self) {
        let mut input = self.0.stdin.take().unwrap();
        input.write_all(b"done\n").unwrap();
        self.0.wait().unwrap();
    }
}
