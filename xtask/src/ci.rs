//! `cargo xtask ci`: what a change has to pass, here and on the machine that judges it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::{codegen, metadata, process, test_tools, tidy};

const WORKSPACE: &str = "Cargo.toml";
/// What has dependencies of its own, outside of the workspace.
const SCHEMA: &str = "xtask/schema/Cargo.toml";
const FUZZERS: &str = "fuzz/Cargo.toml";
const MANIFESTS: [&str; 3] = [WORKSPACE, SCHEMA, FUZZERS];

/// One thing to pass.
struct Stage {
    name: &'static str,
    pass: fn() -> anyhow::Result<()>,
}

/// What fails fast stands before what takes long. All that compiles the workspace does it with the
/// features of all its crates, their tests included, so that nothing is compiled twice.
const STAGES: &[Stage] = &[
    Stage { name: "format", pass: format },
    Stage { name: "tidy", pass: || tidy::run(tidy::Report::Findings) },
    Stage { name: "dependencies", pass: dependencies },
    Stage { name: "test-tools", pass: test_tools::bring },
    Stage { name: "codegen", pass: codegen::check },
    Stage { name: "clippy", pass: clippy },
    Stage { name: "fuzzers", pass: fuzzers },
    Stage { name: "build", pass: build },
    Stage { name: "test", pass: test },
    Stage { name: "member", pass: || shape("member") },
    Stage { name: "containerd", pass: || shape("containerd") },
    Stage { name: "documentation", pass: documentation },
];

/// Passes the stages with these names, or all of them, in their order.
///
/// # Errors
///
/// At the first one that fails.
pub(crate) fn run(names: &[&str]) -> anyhow::Result<()> {
    if let Some(name) = names.iter().find(|name| STAGES.iter().all(|it| it.name != **name)) {
        let known: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        bail!("there is no stage {name}; there are {}", known.join(", "));
    }
    let mut times = Vec::new();
    let mut failure = Ok(());
    for stage in STAGES.iter().filter(|it| names.is_empty() || names.contains(&it.name)) {
        println!("=== {}", stage.name);
        let start = Instant::now();
        failure = (stage.pass)().with_context(|| format!("stage {} failed", stage.name));
        times.push((stage.name, start.elapsed()));
        if failure.is_err() {
            break;
        }
    }
    println!("===");
    for (name, time) in &times {
        println!("{}", line(name, *time));
    }
    println!("{}", line("all", times.iter().map(|(_, time)| time).sum()));
    failure
}

fn line(name: &str, time: Duration) -> String {
    format!("{name:14}{:7.1} s", time.as_secs_f64())
}

fn format() -> anyhow::Result<()> {
    for manifest in MANIFESTS {
        let mut command = process::cargo();
        process::run(command.args(["fmt", "--all", "--check", "--manifest-path", manifest]))?;
    }
    Ok(())
}

/// Licences, banned and doubled packages, and where they come from; advisories are for a machine
/// that may ask for them.
fn dependencies() -> anyhow::Result<()> {
    let deny = Tool { name: "cargo-deny", version: "0.20.2", features: &[] }.bring()?;
    for manifest in MANIFESTS {
        let mut fetch = process::cargo();
        process::run(fetch.args(["fetch", "--locked", "--manifest-path", manifest]))?;
        let mut command = process::command(&deny);
        command.args(["--offline", "--locked", "--manifest-path", manifest]);
        command.args(["check", "--hide-inclusion-graph"]);
        // What is let in for one of them need not be in the others.
        command.args(["--allow", "license-exception-not-encountered"]);
        if manifest != WORKSPACE {
            for unused in ["license-not-encountered", "unmatched-skip", "unnecessary-skip"] {
                command.args(["--allow", unused]);
            }
        }
        process::run(command.args(["licenses", "bans", "sources"]))?;
    }
    Ok(())
}

fn clippy() -> anyhow::Result<()> {
    process::run(whole("clippy").arg("--all-targets").args(["--", "--deny=warnings"]))
}

/// That they compile: to run them takes another toolchain, and as long as one likes. With what clippy
/// has left, this takes seconds.
fn fuzzers() -> anyhow::Result<()> {
    let mut command = process::cargo();
    command.args(["check", "--locked", "--no-default-features", "--manifest-path", FUZZERS]);
    process::run(command.arg("--target-dir").arg(metadata::read()?.target_directory))
}

/// Also the programs that the end-to-end tests start.
fn build() -> anyhow::Result<()> {
    process::run(whole("build").arg("--all-targets"))
}

fn test() -> anyhow::Result<()> {
    tested(nextest()?.args(["--workspace", "--profile=ci"]), "ci")
}

/// A part of the end-to-end tests once more, in another shape: `member` has every node be one of another
/// instance's API, in another network namespace, and `containerd` has Debian's containerd run its pods.
fn shape(name: &str) -> anyhow::Result<()> {
    let mut command = nextest()?;
    command.args(["--package=mainstay-e2e", "--profile", name]);
    tested(command.env("MAINSTAY_TEST_SHAPE", name), name)
}

/// Runs tests with a profile that has a report, and prints what they skipped.
fn tested(command: &mut Command, profile: &str) -> anyhow::Result<()> {
    let result = process::run(command);
    // What was printed by a test that passed is in the report only. Where cargo builds has no
    // influence on where nextest writes.
    let report = format!("target/nextest/{profile}/junit.xml");
    let text = std::fs::read_to_string(&report).with_context(|| format!("cannot read {report}"));
    for (reason, times) in skipped(&result.and(text)?) {
        println!("{times} × {reason}");
    }
    Ok(())
}

fn nextest() -> anyhow::Result<Command> {
    let tool = Tool { name: "cargo-nextest", version: "0.9.143", features: &["default-no-update"] };
    let mut command = process::command(tool.bring()?);
    command.args(["nextest", "run", "--locked"]);
    Ok(command)
}

/// The reasons why tests were skipped, as they printed them, and how often.
fn skipped(report: &str) -> BTreeMap<String, usize> {
    let mut reasons = BTreeMap::new();
    for line in report.lines() {
        let Some((_, reason)) = line.split_once("skipped: ") else { continue };
        let reason = reason.split('<').next().unwrap_or_default();
        let reason = reason.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"");
        *reasons.entry(format!("skipped: {}", reason.replace("&amp;", "&"))).or_default() += 1;
    }
    reasons
}

/// Private items too: it is for those who work on them, and may lead from public ones to them.
fn documentation() -> anyhow::Result<()> {
    let mut command = whole("doc");
    command.args(["--no-deps", "--document-private-items"]);
    let flags = "--deny=warnings --allow=rustdoc::private-intra-doc-links";
    process::run(command.env("RUSTDOCFLAGS", flags))
}

/// A command of cargo on the whole workspace.
fn whole(name: &str) -> Command {
    let mut command = process::cargo();
    command.args([name, "--workspace", "--locked"]);
    command
}

/// A command of cargo that does not come with it.
struct Tool {
    name: &'static str,
    version: &'static str,
    features: &'static [&'static str],
}

impl Tool {
    /// Where it is: on the path, or where it is built now, for this project alone and without
    /// optimizing, which halves the time until it has done its work.
    fn bring(&self) -> anyhow::Result<PathBuf> {
        let built = Path::new("target/tools/bin").join(self.name);
        if let Some(path) = process::find(self.name).or_else(|| built.exists().then_some(built)) {
            return Ok(path);
        }
        let package = format!("{}@{}", self.name, self.version);
        let mut command = process::cargo();
        command.args(["install", "--quiet", "--locked", "--debug", "--root=target/tools"]);
        command.args(["--target-dir=target/tools/build", "--no-default-features"]);
        command.arg(format!("--features={}", self.features.join(",")));
        command.env("CARGO_PROFILE_DEV_DEBUG", "false");
        process::run(command.arg(package))?;
        crate::debian::remove(Path::new("target/tools/build"))?;
        Ok(Path::new("target/tools/bin").join(self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted() {
        let report = "<testcase>\n<system-out>\nrunning 1 test\nskipped: needs root\n\
                      </system-out><system-err>skipped: a &lt;b&gt;</system-err>\nskipped: needs root\n";
        let reasons = skipped(report).into_iter().collect::<Vec<_>>();
        assert_eq!(reasons, [("skipped: a <b>".into(), 1), ("skipped: needs root".into(), 2)]);
    }
}
