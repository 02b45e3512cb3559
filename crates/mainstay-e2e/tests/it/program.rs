//! The programs under test, and others.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::SystemTime;

/// Names a directory with `mainstay` and `mainstay-shim`, absolutely; they are taken as they are.
const DIRECTORY: &str = "MAINSTAY_TEST_PROGRAMS";

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What it printed, after success.
    #[track_caller]
    pub(crate) fn success(self) -> String {
        assert!(self.status.success(), "{self:#?}");
        self.stdout
    }

    /// What it complained of, with this exit status.
    #[track_caller]
    pub(crate) fn failure(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self.stderr
    }
}

/// A command.
#[expect(clippy::disallowed_methods, reason = "tests are operators")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Runs a command to its end, without input.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Outcome { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// Writes a script and makes it a program.
pub(crate) fn write_program(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Where `mainstay` is.
///
/// # Panics
///
/// When it or the shim is missing, or older than what it is made from: cargo does not build the
/// programs of other packages for a test.
pub(crate) fn mainstay() -> PathBuf {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        return Path::new(&directory).join("mainstay");
    }
    // target/<profile>/deps/it-<hash>
    let own = std::env::current_exe().unwrap();
    let directory = own.ancestors().nth(2).unwrap();
    for name in ["mainstay", "mainstay-shim"] {
        let program = directory.join(name);
        if let Err(why) = is_current(&program) {
            panic!("{why}; `cargo build -p mainstay -p mainstay-shim` makes it");
        }
    }
    directory.join("mainstay")
}

/// Checks a program against the list that cargo leaves beside it of what it is made from.
fn is_current(program: &Path) -> Result<(), String> {
    let changed = |path: &Path| -> Result<SystemTime, String> {
        let status = path.metadata().and_then(|status| status.modified());
        status.map_err(|error| format!("{}: {error}", path.display()))
    };
    let built = changed(program)?;
    let list = program.with_extension("d");
    let list = fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    // `target: source source ...`, as make(1) has it.
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    for source in sources.split_whitespace() {
        if changed(Path::new(source))? > built {
            return Err(format!("{} is older than {source}", program.display()));
        }
    }
    Ok(())
}
