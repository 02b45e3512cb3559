//! `cargo xtask layout`: in which order the agent's functions run.
//!
//! The kernel maps a program's pages by 64 KiB around each that is touched (`fault_around_bytes`). Of the agent's
//! text a third ever runs on a usual node; scattered over all of it, that costs nearly the whole of it.
//! So the linker is told to lay that third together, in the order in which it runs first
//! (<https://lld.llvm.org/>, `--symbol-ordering-file`).
//!
//! The order is written to [`FILE`], which is part of the project, by name. Names have a hash of the toolchain, the
//! versions of dependencies and the types in them: those that are called otherwise now, and cannot be told by the rest
//! of their name, lie where they would without the file, and nothing but memory depends on it. It is to be written
//! anew when a release is made. Some names get a suffix that follows from all of the code ([`SUFFIX`]): so what rustc
//! takes for its linker is this program, which looks up how functions are called this time, and then calls the linker.
//!
//! What is laid together is as small as it can be: without what functions do when they are unwound ([`SPLIT`]).
//!
//! The linker is also told to pack what the loader adds the program's address to ([`PACKED`]): a bit each instead of
//! 24 bytes, which are read at the start and then stay mapped, all 2 MB of them.

mod direct;

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
/// How long pods only run at first: longer than the longest wait of what is done now and then.
const IDLE: Duration = Duration::from_secs(150);

/// What LLVM appends to the name of a function that becomes known to other modules, with a hash of its own.
const SUFFIX: &str = ".llvm.";
/// What comes before rustc's hash at the end of a name: the length of it, and a letter.
const HASH: &str = "17h";
/// How the part of a function is called that is away from the rest of it: what it does when it is unwound.
const AWAY: &str = ".cold";
/// Options of LLVM by which that part is away (`MachineFunctionSplitter`): it lies where nothing runs, and not inside
/// each function. rustc has none of its own for it.
const SPLIT: [&str; 2] = ["-enable-split-machine-functions", "-mfs-split-ehcode"];
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
    let mut options = vec![format!("-Clinker={}", linker.display())];
    options.extend(SPLIT.map(|option| format!("-Cllvm-args={option}")));
    Ok(options)
}

/// Links, as rustc asks for it with these arguments.
pub(crate) fn link(arguments: &[&str]) -> anyhow::Result<()> {
    let mut linker = process::command(LINKER);
    linker.args(arguments);
    // Others do not know these.
    if arguments.contains(&LLD) {
        linker.args(laid_out(arguments)?);
    }
    process::run(&mut linker)
}

/// Prepares what is to be linked, and answers with which options it is laid out.
fn laid_out(arguments: &[&str]) -> anyhow::Result<Vec<String>> {
    // They are rustc's own, which removes them when they are linked.
    let objects: Vec<&str> = arguments.iter().copied().filter(|it| it.ends_with(".o")).collect();
    for object in &objects {
        let mut content = fs::read(object).with_context(|| format!("cannot read {object}"))?;
        direct::allow(&mut content).with_context(|| format!("cannot understand {object}"))?;
        fs::write(object, content).with_context(|| format!("cannot write {object}"))?;
    }
    let mut names = process::command("nm");
    names.arg("--format=just-symbols").args(objects);
    let known = process::output(&mut names)?;
    let listed = fs::read_to_string(FILE).with_context(|| format!("cannot read {FILE}"))?;
    let output = arguments.iter().skip_while(|it| **it != "-o").nth(1);
    let order = Path::new(output.context("nothing is to be linked")?).with_extension("order");
    fs::write(&order, in_order(&listed, &known))?;
    let mut options = vec![
        "-Wl,--no-warn-symbol-ordering".to_owned(),
        format!("-Wl,--symbol-ordering-file={}", order.display()),
    ];
    options.extend(loads_packed()?.then(|| "-Wl,-z,pack-relative-relocs".to_owned()));
    Ok(options)
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

/// The functions that are `listed`, as they are called this time. What is not `known` is in an archive, or has another
/// hash by now: it is that of the same path, if there are not more of that path than are missed.
fn in_order(listed: &str, known: &str) -> String {
    let mut called: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for name in known.lines().filter(|name| !name.ends_with(AWAY)) {
        called.entry(lasting(name)).or_default().insert(name);
    }
    let successors = successors(&listed.lines().collect(), &called.keys().copied().collect());
    let names = listed.lines().flat_map(|name| {
        let name = successors.get(name).copied().unwrap_or(name);
        match called.get(name) {
            Some(names) => names.iter().copied().collect(),
            None => vec![name],
        }
    });
    names.flat_map(|name| [name, "\n"]).collect()
}

/// What is there now of the paths of what is `listed` and not there.
fn successors<'a>(
    listed: &BTreeSet<&'a str>,
    there: &BTreeSet<&'a str>,
) -> BTreeMap<&'a str, &'a str> {
    let by_path = |names: &mut dyn Iterator<Item = &&'a str>| {
        let mut all: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        names.for_each(|name| all.entry(path(name)).or_default().push(name));
        all
    };
    let missed = by_path(&mut listed.difference(there));
    let mut new = by_path(&mut there.difference(listed));
    new.retain(|path, names| missed.get(path).is_some_and(|missed| names.len() <= missed.len()));
    new.into_iter().flat_map(|(path, names)| missed[path].iter().copied().zip(names)).collect()
}

/// What stays of a name when other code changes.
fn lasting(name: &str) -> &str {
    name.split(SUFFIX).next().unwrap_or(name)
}

/// A name without the hash at its end, if it has one: rustc's, of the types in it and the versions of crates.
fn path(name: &str) -> &str {
    match name.rsplit_once(HASH) {
        Some((path, hash)) if hash.len() == "0123456789abcdefE".len() => path,
        _ => name,
    }
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
        let known = "_ZN1a17h01E\n_ZN1a17h01E.cold\n_ZN1b17h02E.llvm.77\n_ZN1b17h02E.llvm.77.cold\n\
                     _ZN1b17h02E.llvm.78\n_ZN1c17h03E\n_ZN1b17h09E\n";
        let listed = "_ZN1b17h02E\nmemcpy\n_ZN1a17h01E\n";
        let expected = "_ZN1b17h02E.llvm.77\n_ZN1b17h02E.llvm.78\nmemcpy\n_ZN1a17h01E\n";
        assert_eq!(in_order(listed, known), expected);
    }

    #[test]
    fn functions_whose_hash_is_new_lie_where_the_old_one_is_listed() {
        let named = |names: &str| names.replace('h', "17h0123456789abcde");
        let known = named("_ZN1ah9E\n_ZN1bh1E\n_ZN1bh2E\n_ZN1bh3E\n_ZN1ch8E.llvm.1\n");
        let listed = named("_ZN1ch1E\n_ZN1bh1E\n_ZN1bh7E\n_ZN1ah1E\n");
        let expected = named("_ZN1ch8E.llvm.1\n_ZN1bh1E\n_ZN1bh7E\n_ZN1ah9E\n");
        assert_eq!(in_order(&listed, &known), expected);
    }
}
