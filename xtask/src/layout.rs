//! `cargo xtask layout`: in which order the agent's functions run.
//!
//! The kernel maps a program's pages by 64 KiB around each that is touched (`fault_around_bytes`). Of the agent's
//! text a fourth ever runs on a usual node; scattered over all of it, that costs nearly the whole of it.
//! So the linker is told to lay that fourth together, in the order in which it runs first
//! (<https://lld.llvm.org/>, `--symbol-ordering-file`).
//!
//! The order is written to [`FILE`], which is part of the project, by name. Names have a hash of the toolchain, the
//! versions of dependencies and the types in them: those that are called otherwise now lie where they would without
//! the file, and nothing but memory depends on it. It is to be written anew when a release is made. Some names get
//! a suffix that follows from all of the code ([`SUFFIX`]): so what rustc takes for its linker is this
//! program, which looks up how functions are called this time, and then calls the linker.
//!
//! The linker is also told to pack what the loader adds the program's address to ([`PACKED`]): a bit each instead of
//! 24 bytes, which are read at the start and then stay mapped, all 2 MB of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::debian::Scratch;
use crate::image::digest;
use crate::{bench, install, metadata, process};

/// The names, one in each line.
const FILE: &str = "crates/mainstay/layout.txt";
/// The architecture that the names are of. Its linker is that of the toolchain, which is lld.
const ARCHITECTURE: &str = "x86_64";
/// How long nothing is done at first: longer than the longest wait of what is done now and then.
const IDLE: Duration = Duration::from_secs(150);

/// What LLVM appends to the name of a function that becomes known to other modules, with a hash of its own.
const SUFFIX: &str = ".llvm.";
/// What a C library has that can load a program whose relocations are packed: glibc 2.36 and later, and some
/// before. Others refuse such a program by this name.
const PACKED: &[u8] = b"GLIBC_ABI_DT_RELR";
/// The linker that rustc would call.
const LINKER: &str = "cc";
/// By what toolchains ask it for the one that they bring along; those without one leave it to the machine.
const LLD: &str = "-fuse-ld=lld";

/// The options of rustc by which the agent is laid out. `directory` is for what linking needs.
pub(crate) fn options(directory: &Path) -> anyhow::Result<Vec<String>> {
    if std::env::consts::ARCH != ARCHITECTURE {
        return Ok(Vec::new());
    }
    fs::create_dir_all(directory)?;
    let own = std::env::current_exe().context("this program has no place")?;
    let script = format!("#!/bin/sh\nexec '{}' link \"$@\"\n", own.display());
    // Cargo links anew when it is called otherwise.
    let listed = fs::read(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let name = format!("linker-{}", digest(&listed));
    let linker = program(&directory.join(name), &script)?;
    Ok(vec![format!("-Clinker={}", linker.display())])
}

/// Links, as rustc asks for it with these arguments.
pub(crate) fn link(arguments: &[&str]) -> anyhow::Result<()> {
    let mut names = process::command("nm");
    names.arg("--format=just-symbols").args(arguments.iter().filter(|it| it.ends_with(".o")));
    let known = process::output(&mut names)?;
    let listed = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let output = arguments.iter().skip_while(|it| **it != "-o").nth(1);
    let order = Path::new(output.context("nothing is to be linked")?).with_extension("order");
    fs::write(&order, in_order(&listed, &known))?;
    let mut linker = process::command(LINKER);
    linker.args(arguments);
    // Others do not know these.
    if arguments.contains(&LLD) {
        linker.arg("-Wl,--no-warn-symbol-ordering");
        linker.arg(format!("-Wl,--symbol-ordering-file={}", order.display()));
        if loads_packed()? {
            linker.arg("-Wl,-z,pack-relative-relocs");
        }
    }
    process::run(&mut linker)
}

/// Whether the C library that is linked against can load a program whose relocations are packed.
fn loads_packed() -> anyhow::Result<bool> {
    let mut linker = process::command(LINKER);
    let library = process::output(linker.arg("-print-file-name=libc.so.6"))?;
    let library = Path::new(library.trim());
    // Without a place it is not found: this machine has another C library.
    if !library.is_absolute() {
        return Ok(false);
    }
    let content =
        fs::read(library).with_context(|| format!("cannot read {}", library.display()))?;
    Ok(content.windows(PACKED.len()).any(|name| name == PACKED))
}

/// The functions that are `listed`, as they are called this time. What is not `known` is in an archive.
fn in_order(listed: &str, known: &str) -> String {
    let mut called: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in known.lines() {
        called.entry(lasting(name)).or_default().insert(name);
    }
    let names = listed.lines().flat_map(|name| match called.get(name) {
        Some(names) => names.iter().copied().collect(),
        None => vec![name],
    });
    names.flat_map(|name| [name, "\n"]).collect()
}

/// What stays of a name when other code changes.
fn lasting(name: &str) -> &str {
    name.split(SUFFIX).next().unwrap_or(name)
}

fn program(path: &Path, content: &str) -> anyhow::Result<PathBuf> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

/// Has the agent do a little of everything, and writes down which of its functions run.
pub(crate) fn write() -> anyhow::Result<()> {
    process::require_root()?;
    anyhow::ensure!(
        std::env::consts::ARCH == ARCHITECTURE,
        "functions are traced on {ARCHITECTURE} only"
    );
    let release = install::build_with(&["-Cstrip=none"])?;
    let client = bench::build_client(&release)?;
    let mut tracer = process::cargo();
    tracer.args(["build", "--locked", "--package=mainstay-linux", "--example", "trace_functions"]);
    process::run(&mut tracer)?;
    let tracer = metadata::read()?.target_directory.join("debug/examples/trace_functions");

    let directory = std::path::absolute("target/layout").context("there is no directory")?;
    let _scratch = Scratch::new(&directory)?;
    let copy = |from: &Path, to: &str| {
        let to = directory.join(to);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
        anyhow::Ok(to)
    };
    copy(&client, "examples/api_client")?;
    copy(&release.join("mainstay-shim"), "traced/mainstay-shim")?;
    let agent = copy(&release.join("mainstay"), "traced/mainstay")?;
    let (symbols, found) = (directory.join("symbols"), directory.join("found"));
    let mut readelf = process::command("readelf");
    readelf.args(["--symbols", "--wide"]).arg(&agent);
    fs::write(&symbols, process::output(&mut readelf)?)?;

    // Only the agent is traced, not what asks it.
    let script = format!(
        "#!/bin/sh\nfor argument; do\n  if [ \"$argument\" = run ]; then\n    exec '{}' '{}' '{}' '{agent}' \
         \"$@\"\n  fi\ndone\nexec '{agent}' \"$@\"\n",
        tracer.display(),
        symbols.display(),
        found.display(),
        agent = agent.display(),
    );
    program(&directory.join("mainstay"), &script)?;
    bench::exercise(&directory, IDLE)?;

    let found = fs::read_to_string(&found).context("nothing was traced")?;
    let mut once = BTreeSet::new();
    let found = found.lines().map(lasting).filter(|name| once.insert(*name));
    let found: String = found.flat_map(|name| [name, "\n"]).collect();
    fs::write(FILE, &found).with_context(|| format!("cannot write {FILE}"))?;
    println!("{} functions are in {FILE}", found.lines().count());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::in_order;

    #[test]
    fn functions_lie_as_listed_whatever_they_are_called_this_time() {
        let known =
            "_ZN1a17h01E\n_ZN1b17h02E.llvm.77\n_ZN1b17h02E.llvm.78\n_ZN1c17h03E\n_ZN1b17h09E\n";
        let listed = "_ZN1b17h02E\nmemcpy\n_ZN1a17h01E\n";
        let expected = "_ZN1b17h02E.llvm.77\n_ZN1b17h02E.llvm.78\nmemcpy\n_ZN1a17h01E\n";
        assert_eq!(in_order(listed, known), expected);
    }
}
