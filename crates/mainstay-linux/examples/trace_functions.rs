//! `trace_functions SYMBOLS FOUND PROGRAM [ARGUMENT...]`: runs a program, and writes down which of its functions
//! run, in the order in which they do so first.
//!
//! SYMBOLS is what `readelf --symbols --wide` says of the program. FOUND gets a name in each line; what is in it is passed over. The
//! process that was started becomes the program, so that whoever started it can measure and end it; a child
//! of it looks on. `cargo xtask layout` uses this.

#![expect(unsafe_code, reason = "ptrace(2) has no safe interface")]

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    match x86_64::run(&std::env::args_os().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("trace_functions: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("trace_functions: knows breakpoints of x86-64 only");
    ExitCode::FAILURE
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ffi::{OsStr, OsString};
    use std::fs::{self, File};
    use std::io::{self, Read, Write};
    use std::mem::MaybeUninit;
    use std::os::unix::fs::FileExt;
    use std::os::unix::process::{CommandExt, parent_id};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::ptr;

    use libc::{c_int, c_void, pid_t, user_regs_struct};

    /// How this program names itself its own second part.
    const WATCH: &str = "--watch-parent";
    /// `int3`, which is one byte.
    const BREAKPOINT: u8 = 0xcc;
    /// The stop of a thread that has just been attached to, with `PTRACE_SEIZE`.
    const EVENT_STOP: c_int = 128;

    /// A function that has not run yet.
    struct Function {
        /// The first byte of it.
        first: u8,
        /// It may have several.
        names: BTreeSet<String>,
    }

    struct Tracer {
        pid: pid_t,
        /// Where the program lies in memory.
        base: u64,
        /// By address in the program's file.
        functions: BTreeMap<u64, Function>,
        ran: BTreeSet<u64>,
        found: File,
    }

    pub(super) fn run(arguments: &[OsString]) -> io::Result<()> {
        match arguments {
            [first, symbols, found, program] if first == WATCH => {
                watch(Path::new(symbols), Path::new(found), program)
            }
            [symbols, found, program, rest @ ..] => {
                let own = std::env::current_exe()?;
                let mut watcher = command(own);
                watcher.arg(WATCH).args([symbols, found, program]);
                let watcher = watcher.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
                let mut attached = watcher.stdout.ok_or(io::ErrorKind::BrokenPipe)?;
                attached.read_exact(&mut [0])?;
                Err(command(program).args(rest).exec())
            }
            _ => Err(io::Error::other("it is asked for with SYMBOLS FOUND PROGRAM [ARGUMENT...]")),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a tool for measuring, which no node runs")]
    fn command(program: impl AsRef<OsStr>) -> Command {
        Command::new(program)
    }

    fn watch(symbols: &Path, found: &Path, program: &OsStr) -> io::Result<()> {
        let parent = pid_t::try_from(parent_id()).map_err(io::Error::other)?;
        let before = fs::read_to_string(found).unwrap_or_default();
        let before: BTreeSet<&str> = before.lines().collect();
        let functions = read(&fs::read_to_string(symbols)?, &before);
        let options = libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK;
        ptrace(libc::PTRACE_SEIZE, parent, options.into())?;
        io::stdout().write_all(b"\n")?;
        let found = File::options().append(true).create(true).open(found)?;
        let ran = BTreeSet::new();
        let mut tracer = Tracer { pid: parent, base: 0, functions, ran, found };
        loop {
            let (thread, status) = wait()?;
            if libc::WIFSTOPPED(status) {
                match tracer.stopped(thread, status, program) {
                    // It was killed meanwhile.
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                    other => other?,
                }
            } else if thread == tracer.pid {
                return Ok(());
            }
        }
    }

    /// The functions that `readelf` names, but those that are known. Constants that lie among them are none.
    fn read(symbols: &str, known: &BTreeSet<&str>) -> BTreeMap<u64, Function> {
        let mut functions = BTreeMap::new();
        for line in symbols.lines() {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [_, address, size, "FUNC", _, _, section, name] = *columns else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if size != "0" && section != "UND" {
                let function = || Function { first: BREAKPOINT, names: BTreeSet::new() };
                let function = functions.entry(address).or_insert_with(function);
                function.names.insert(name.to_owned());
            }
        }
        functions.retain(|_, function| !function.names.iter().any(|it| known.contains(&**it)));
        functions
    }

    // === impl Tracer ===

    impl Tracer {
        /// Looks at what a thread stands still for, and lets it go on.
        fn stopped(&mut self, thread: pid_t, status: c_int, program: &OsStr) -> io::Result<()> {
            let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
            match event {
                libc::PTRACE_EVENT_EXEC if thread == self.pid => self.begin(program)?,
                // It is a program of its own now.
                libc::PTRACE_EVENT_EXEC => return ptrace(libc::PTRACE_DETACH, thread, 0),
                0 if signal == libc::SIGTRAP => self.entered(thread)?,
                0 => return ptrace(libc::PTRACE_CONT, thread, signal.into()),
                // The machine's own stops of new threads, and a stop by a signal.
                _ => debug_assert!(event <= EVENT_STOP),
            }
            ptrace(libc::PTRACE_CONT, thread, 0)
        }

        /// Puts a breakpoint at the begin of each function.
        fn begin(&mut self, program: &OsStr) -> io::Result<()> {
            let program = fs::canonicalize(program)?;
            let maps = fs::read_to_string(format!("/proc/{}/maps", self.pid))?;
            let is_own = |line: &&str| line.ends_with(&*program.to_string_lossy());
            let line = maps.lines().find(is_own);
            let base = line.and_then(|line| line.split('-').next());
            let base = base.and_then(|base| u64::from_str_radix(base, 16).ok());
            self.base = base.ok_or_else(|| io::Error::other("the program is not in memory"))?;
            let memory = memory_of(self.pid)?;
            for (address, function) in &mut self.functions {
                let mut first = [0];
                memory.read_exact_at(&mut first, self.base + address)?;
                [function.first] = first;
                memory.write_all_at(&[BREAKPOINT], self.base + address)?;
            }
            Ok(())
        }

        /// A thread has come upon a breakpoint, or, if it is none of these, has a trap of its own. A
        /// child with a copy of the memory has its own breakpoints.
        fn entered(&mut self, thread: pid_t) -> io::Result<()> {
            let mut registers = registers(thread)?;
            let Some(at) = registers.rip.checked_sub(1) else { return Ok(()) };
            let address = at.wrapping_sub(self.base);
            let Some(function) = self.functions.get(&address) else { return Ok(()) };
            memory_of(thread)?.write_all_at(&[function.first], at)?;
            registers.rip = at;
            set_registers(thread, &registers)?;
            if self.ran.insert(address) {
                let names = function.names.iter().flat_map(|name| [name, "\n"]);
                self.found.write_all(names.collect::<String>().as_bytes())?;
            }
            Ok(())
        }
    }

    fn memory_of(thread: pid_t) -> io::Result<File> {
        File::options().read(true).write(true).open(format!("/proc/{thread}/mem"))
    }

    fn wait() -> io::Result<(pid_t, c_int)> {
        let mut status = 0;
        // SAFETY: the pointer is to a variable that outlives the call.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) } {
            -1 => Err(io::Error::last_os_error()),
            thread => Ok((thread, status)),
        }
    }

    /// One of the requests that take a number for their data.
    fn ptrace(request: libc::c_uint, thread: pid_t, data: i64) -> io::Result<()> {
        let none = ptr::null_mut::<c_void>();
        // SAFETY: these requests read and write no memory of this process.
        match unsafe { libc::ptrace(request, thread, none, data) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    fn registers(thread: pid_t) -> io::Result<user_regs_struct> {
        let mut registers = MaybeUninit::<user_regs_struct>::uninit();
        let none = ptr::null_mut::<c_void>();
        // SAFETY: the kernel writes one such structure to where the pointer is to, which has room for it.
        match unsafe { libc::ptrace(libc::PTRACE_GETREGS, thread, none, registers.as_mut_ptr()) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the call has succeeded, so all of it was written.
            _ => Ok(unsafe { registers.assume_init() }),
        }
    }

    fn set_registers(thread: pid_t, registers: &user_regs_struct) -> io::Result<()> {
        let none = ptr::null_mut::<c_void>();
        // SAFETY: the kernel reads one such structure, which is there.
        match unsafe { libc::ptrace(libc::PTRACE_SETREGS, thread, none, ptr::from_ref(registers)) }
        {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}
