//! What kubectl shows and does, as transcripts that were recorded with a real kube-apiserver and
//! kubelet; `kubectl/transcript.rs` says how they read.
//!
//! Where mainstay differs for a reason, the transcript has both answers and the reason:
//! `grep -r '^# mainstay: ' transcripts` lists them.

mod normal;
mod play;
mod record;
mod transcript;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay_testkit::tools;

use crate::node::{Node, wait_for};
use crate::program::{command, run};
use play::{Target, play};
use transcript::{Side, Transcript, Version};

/// Where the transcripts are.
fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/transcripts"))
}

/// The version of a kubectl, as it says it.
fn client(kubectl: &Path) -> String {
    let printed = run(command(kubectl).args(["version", "--client", "-o", "json"])).success();
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let version = printed["clientVersion"]["gitVersion"].as_str().unwrap();
    let version = version.trim_start_matches('v');
    version.split('-').next().unwrap().to_owned()
}

/// The kubectl of a version, if there is one: that on the path, or Debian's.
fn kubectl(version: Version) -> Option<PathBuf> {
    let path = match version {
        Version::V1_20 => tools::program("kubectl"),
        Version::V1_32 => tools::kubectl(),
    };
    client(&path).starts_with(&format!("{}.", version.name())).then_some(path)
}

/// Plays a transcript on an instance of its own.
#[track_caller]
fn check(name: &str, version: Version) {
    let Some(kubectl) = kubectl(version) else {
        println!("skipped: needs kubectl {} on the path", version.name());
        return;
    };
    let path = directory().join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&path).unwrap();
    let transcript: Transcript =
        text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if let Some(why) = transcript.later() {
        println!("skipped: {name}.txt: {why}");
        return;
    }
    let Some(mut node) = Node::prepare() else { return };
    // One address, whatever the machine has.
    node.arguments.push("--node-ip=127.0.0.1".to_owned());
    node.launch();
    let kubeconfig = node.path("root/kubeconfig");
    let ready = || {
        let mut command = command(&kubectl);
        command.args(["get", "--raw=/readyz", "--kubeconfig"]).arg(&kubeconfig);
        (kubeconfig.exists() && run(&mut command).status.success()).then_some(())
    };
    assert!(wait_for(ready).is_some(), "the API does not become ready");
    let target = Target {
        kubeconfig,
        manifests: node.manifests(),
        prefix: String::new(),
        node: "n1".to_owned(),
        patience: Duration::from_secs(45),
    };
    let (played, result) = play(&transcript, &kubectl, version, &target);
    let mut wrong = String::new();
    for played in &played {
        let expected = played.step.expected(version, Side::Ours);
        if expected != played.lines {
            writeln!(wrong, "$ {}", played.step.script).unwrap();
            wrong.push_str(&difference(&expected, &played.lines));
        }
    }
    if let Err(error) = result {
        writeln!(wrong, "{error}").unwrap();
    }
    assert!(wrong.is_empty(), "{name}.txt, kubectl {}:\n{wrong}", version.name());
}

/// What of the expected lines is not there, and what is there instead, as transcripts have it.
fn difference(expected: &[String], found: &[String]) -> String {
    // The longest common subsequence, from the end.
    let mut common = vec![vec![0_usize; found.len() + 1]; expected.len() + 1];
    for i in (0..expected.len()).rev() {
        for j in (0..found.len()).rev() {
            common[i][j] = if expected[i] == found[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut text) = (0, 0, String::new());
    while i < expected.len() || j < found.len() {
        let (mark, line) = if i < expected.len() && j < found.len() && expected[i] == found[j] {
            (i, j) = (i + 1, j + 1);
            ("", &expected[i - 1])
        } else if j == found.len() || (i < expected.len() && common[i + 1][j] >= common[i][j + 1]) {
            i += 1;
            ("-", &expected[i - 1])
        } else {
            j += 1;
            ("+", &found[j - 1])
        };
        writeln!(text, "{mark}{line}").unwrap();
    }
    text
}

/// A test of each transcript with each version. Those that await something are not played unless they are
/// asked for: what mainstay does not do yet is no difference that it means to keep.
macro_rules! transcripts {
    ($($name:ident $((awaits $reason:literal))?)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            mod $name {
                $(#[ignore = $reason])?
                #[test]
                fn with_kubectl_1_20() {
                    super::check(stringify!($name), super::Version::V1_20);
                }

                $(#[ignore = $reason])?
                #[test]
                fn with_kubectl_1_32() {
                    super::check(stringify!($name), super::Version::V1_32);
                }
            }
        )*
    };
}

transcripts! {
    api_resources
    apply
    apply_server_side
    attach
    auth
    bound
    bound_deadline
    bound_ends
    cordon
    cordon_refused
    cp
    create_replace
    debug
    debug_pod
    delete
    delete_cascade
    describe_failing
    describe_node
    describe_pod
    describe_pod_spec
    drain
    drain_budget
    drain_daemonset
    drain_pods
    drain_several
    edit
    events
    exec
    exec_terminal
    explain
    get
    get_node
    get_watch
    init
    label_annotate
    logs
    logs_init
    logs_waiting
    mirror
    mirror_change
    mirror_create
    mirror_evict
    mirror_forged
    namespace
    patch
    port_forward
    resize
    run
    taint
    top
    version
    wait
}

#[test]
fn every_transcript_is_played() {
    let names: Vec<String> = NAMES.iter().map(|name| format!("{name}.txt")).collect();
    let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
    names.sort_unstable();
    let paths = record::paths();
    let paths: Vec<_> =
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, paths);
}

#[test]
fn every_transcript_is_recorded() {
    for path in record::paths() {
        let text = std::fs::read_to_string(&path).unwrap();
        let transcript: Transcript = text.parse().unwrap();
        let is = transcript.items.iter().any(|item| matches!(item, transcript::Item::Recorded(_)));
        assert!(is, "{}", path.display());
        assert_eq!(transcript.to_string(), text, "{}", path.display());
    }
}
