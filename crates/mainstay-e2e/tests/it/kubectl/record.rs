//! Recording transcripts with the real thing.
//!
//! ```text
//! MAINSTAY_RECORD_KUBECONFIG=... MAINSTAY_RECORD_MANIFESTS=... MAINSTAY_RECORD_NODE=... \
//!     cargo test -p mainstay-e2e -- --ignored kubectl::record::record
//! ```
//!
//! `MAINSTAY_RECORD_MANIFESTS` is the directory of static pods of a kubelet, which has the image
//! `local/busybox:1` of `cargo xtask test-tools`. `MAINSTAY_RECORD` names the transcripts to record,
//! with blanks between; else it is all of them. Nobody else should change pods or the node
//! meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::play::{Played, Target, play};
use super::transcript::{Block, Item, Kind, Line, Side, Step, Transcript, Version};
use super::{client, directory, kubectl};
use crate::node::wait_for;
use crate::program::{command, run};

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("${name} is not set"))
}

#[test]
#[ignore = "writes the transcripts, with a real kube-apiserver and kubelet"]
fn record() {
    let target = Target {
        kubeconfig: PathBuf::from(variable("MAINSTAY_RECORD_KUBECONFIG")),
        manifests: PathBuf::from(variable("MAINSTAY_RECORD_MANIFESTS")),
        prefix: String::new(),
        node: variable("MAINSTAY_RECORD_NODE"),
        // A kubelet takes up to 90 seconds to make a mirror again that was deleted by force.
        patience: Duration::from_secs(150),
    };
    let wanted = std::env::var("MAINSTAY_RECORD").unwrap_or_default();
    let wanted: Vec<&str> = wanted.split_whitespace().collect();
    let mut failed = Vec::new();
    for path in paths() {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if wanted.is_empty() || wanted.contains(&name.as_str()) {
            println!("=== {name}");
            if let Err(error) = record_one(&path, &target) {
                println!("{error}");
                failed.push(name);
            }
        }
    }
    assert!(failed.is_empty(), "these are not recorded: {failed:?}");
}

/// The transcripts there are.
pub(super) fn paths() -> BTreeSet<PathBuf> {
    let listed = fs::read_dir(directory()).unwrap();
    listed.map(|entry| entry.unwrap().path()).collect()
}

fn record_one(path: &Path, target: &Target) -> Result<(), String> {
    let text = fs::read_to_string(path).unwrap();
    let transcript: Transcript = text.parse().map_err(|e| format!("{}: {e}", path.display()))?;
    let mut all = Vec::new();
    for version in Version::ALL {
        let kubectl = kubectl(version).ok_or(format!("there is no kubectl {}", version.name()))?;
        let before = pods(target);
        let number = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let target = &Target { prefix: format!("{number}-"), ..target.clone() };
        let (played, result) = play(&transcript, &kubectl, version, target);
        clear(target, &before);
        if let Err(error) = result {
            let last = played.last().map(|played| played.lines.join("\n")).unwrap_or_default();
            return Err(format!("with kubectl {}: {error}\nafter: {last}", version.name()));
        }
        all.push((version, played));
    }
    let recorded = merge(&transcript, &all, &by(target));
    fs::write(path, recorded.to_string()).unwrap();
    Ok(())
}

/// The transcript with what was played.
fn merge(transcript: &Transcript, all: &[(Version, Vec<Played<'_>>)], by: &str) -> Transcript {
    let mut items: Vec<Item> = Vec::new();
    for item in &transcript.items {
        items.push(match item {
            Item::Recorded(_) => Item::Recorded(by.to_owned()),
            Item::Step(step) if step.kind == Kind::Run => {
                let played: Vec<(Version, &[String])> = all
                    .iter()
                    .filter_map(|(version, played)| {
                        let found = played.iter().find(|played| std::ptr::eq(played.step, step));
                        Some((*version, found?.lines.as_slice()))
                    })
                    .collect();
                Item::Step(recorded(step, &played))
            }
            other => other.clone(),
        });
    }
    if !items.iter().any(|item| matches!(item, Item::Recorded(_))) {
        let comments =
            items.iter().take_while(|item| matches!(item, Item::Text(text) if !text.is_empty()));
        items.insert(comments.count(), Item::Recorded(by.to_owned()));
    }
    Transcript { items }
}

/// A step with what was played. What it says already, and what it says of differences, stays if it
/// is still so.
fn recorded(step: &Step, played: &[(Version, &[String])]) -> Step {
    let is = |version, lines: &[String]| step.expected(version, Side::Reference) == lines;
    if played.iter().all(|(version, lines)| is(*version, lines)) {
        return step.clone();
    }
    let differences = step.blocks.iter().flat_map(|block| &block.lines);
    let lost: Vec<&Line> = differences.filter(|line| !matches!(line, Line::Same(_))).collect();
    if !lost.is_empty() {
        println!("of {}\nthese differences are lost: {lost:#?}", step.script);
    }
    let same = |lines: &[String]| lines.iter().cloned().map(Line::Same).collect::<Vec<_>>();
    let all_same = played.windows(2).all(|pair| pair[0].1 == pair[1].1);
    let blocks = match played {
        [(_, lines), ..] if all_same && lines.is_empty() => Vec::new(),
        [(_, lines), ..] if all_same => vec![Block { version: None, lines: same(lines) }],
        _ => played
            .iter()
            .map(|(version, lines)| Block { version: Some(*version), lines: same(lines) })
            .collect(),
    };
    Step { blocks, ..step.clone() }
}

/// By what it is recorded.
fn by(target: &Target) -> String {
    let mut versions = Vec::new();
    for version in Version::ALL {
        let kubectl = kubectl(version).unwrap();
        versions.push(client(&kubectl));
    }
    let kubectl = kubectl(Version::V1_32).unwrap();
    let server = run(command(kubectl)
        .args(["version", "-o", "json", "--kubeconfig"])
        .arg(&target.kubeconfig))
    .success();
    let server: serde_json::Value = serde_json::from_str(&server).unwrap();
    let server = server["serverVersion"]["gitVersion"].as_str().unwrap_or("v?").to_owned();
    let date = run(command("date").args(["-u", "+%F"])).success();
    format!(
        "recorded with Kubernetes {}, kubectl {}, {}",
        server.trim_start_matches('v'),
        versions.join(" and "),
        date.trim()
    )
}

fn on(target: &Target, arguments: &[&str]) -> String {
    let kubectl = kubectl(Version::V1_32).unwrap();
    run(command(kubectl).arg("--kubeconfig").arg(&target.kubeconfig).args(arguments)).stdout
}

/// The pods there are, as `namespace/name`.
fn pods(target: &Target) -> BTreeSet<String> {
    let path = r#"jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}"#;
    on(target, &["get", "pods", "-A", "-o", path]).lines().map(str::to_owned).collect()
}

/// Waits until what a transcript made is gone; what does not go by itself is deleted.
fn clear(target: &Target, before: &BTreeSet<String>) {
    on(target, &["uncordon", &target.node]);
    let gone = wait_for(|| {
        let more: Vec<String> = pods(target).difference(before).cloned().collect();
        for pod in &more {
            let (namespace, name) = pod.split_once('/').unwrap();
            if !name.ends_with(&format!("-{}", target.node)) {
                on(target, &["delete", "pod", name, "-n", namespace, "--grace-period=1"]);
            }
        }
        more.is_empty().then_some(())
    });
    assert!(gone.is_some(), "what a transcript made does not go away: {:?}", pods(target));
    on(target, &["delete", "events", "--field-selector=involvedObject.kind=Pod"]);
}
