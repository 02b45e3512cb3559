//! `docs/tutorial/README.md`, played as it stands there.
//!
//! A block of `sh` is run as a whole and has to succeed. In a block of `console` each line that begins with
//! `$ ` is run, and what it prints has to be what follows, where `...` stands for anything and blanks for
//! any number of blanks. What only looks is looked at again until it is so, as a reader does.
//!
//! The nodes have another name than on the page, and so other directories, since a reader may be at it too.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use mainstay_engine::network::Names;
use mainstay_testkit::tools;
use regex::Regex;

use crate::machines::{Space, enter};
use crate::node::{left_of, wait_for};
use crate::program::{self, run};

/// What the page has the nodes called.
const SET: &str = "three-nodes";
const NODES: [&str; 3] = ["control", "node1", "node2"];

/// Takes the nodes down when its input ends without a word, which is when the test was killed.
const WATCHDOG: &str = r#"read -r word || exec docs/tutorial/three-nodes down"#;

/// Runs `$2` until something in it fails, with what `$1` has exported, and writes there what it exports.
const SHELL: &str = r#"trap 's=$?; export -p > "$1"; exit $s' EXIT; . "$1"; set -e; eval "$2""#;

/// One thing to do.
#[derive(Debug, PartialEq)]
enum Step {
    /// A script.
    Script(String),
    /// A command, and what it prints.
    Command(String, Vec<String>),
}

/// What a page has the reader do.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        match kind {
            "sh" => steps.push(Step::Script(block.join("\n"))),
            "console" => {
                for line in block {
                    match (line.strip_prefix("$ "), steps.last_mut()) {
                        (Some(command), _) => {
                            steps.push(Step::Command(command.to_owned(), Vec::new()));
                        }
                        (None, Some(Step::Command(_, printed))) => printed.push(line.to_owned()),
                        (None, _) => panic!("no command before {line:?}"),
                    }
                }
            }
            "text" => {}
            other => panic!("a block of {other:?}, which is nothing that can be played"),
        }
    }
    steps
}

/// Whether a command printed what it should.
fn fits(expected: &[String], printed: &str) -> bool {
    let line = |expected: &str, found: &str| {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let parts: Vec<String> = words(expected).split("...").map(regex::escape).collect();
        Regex::new(&format!("^{}$", parts.join(".*"))).unwrap().is_match(&words(found))
    };
    let found: Vec<&str> = printed.lines().collect();
    found.len() == expected.len() && expected.iter().zip(found).all(|(it, found)| line(it, found))
}

/// The nodes of the page, under a name of the test's own.
struct Reader {
    set: String,
    space: Space,
    directory: tempfile::TempDir,
    watchdog: Child,
}

impl Reader {
    fn new() -> Self {
        let set = format!("tn{}", std::process::id());
        let space = Space::new();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("env"), "").unwrap();
        let mut watchdog = enter(&space.path(), "sh");
        watchdog.args(["-c", WATCHDOG]).current_dir(top()).env("THREE_NODES", &set);
        watchdog.env("MAINSTAY", program::mainstay()).process_group(0);
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let watchdog = watchdog.spawn().unwrap();
        Self { set, space, directory, watchdog }
    }

    /// Runs a script in a shell that goes on with what the last one has exported. What it prints, and whether
    /// it succeeded.
    fn shell(&self, script: &str) -> (String, bool) {
        let env = self.directory.path().join("env");
        let kubectl = tools::kubectl();
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", kubectl.parent().unwrap().display());
        let mut shell = enter(&self.space.path(), "bash");
        shell.args(["-c", SHELL, "bash"]);
        shell.arg(&env).arg(format!("exec 2>&1\n{script}"));
        shell.current_dir(top()).env("PATH", path);
        shell.env("THREE_NODES", &self.set).env("MAINSTAY", program::mainstay());
        let outcome = run(&mut shell);
        (outcome.stdout, outcome.status.success())
    }

    /// A page with the places of this reader in it.
    fn read(&self, page: &str) -> String {
        let image = tools::image("busybox");
        page.replace("/tmp/", &format!("{}/", self.directory.path().display()))
            .replace(&format!("/var/lib/{SET}/"), &format!("/var/lib/{}/", self.set))
            .replace("target/test-tools/images/busybox.tar", image.to_str().unwrap())
    }

    fn state(&self) -> PathBuf {
        format!("/var/lib/{}", self.set).into()
    }

    fn logs(&self) -> String {
        let log = |node: &&str| {
            let log = fs::read_to_string(self.state().join(node).join("log")).unwrap_or_default();
            format!("=== {node}\n{log}")
        };
        NODES.iter().map(log).collect()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let mut down = enter(&self.space.path(), "docs/tutorial/three-nodes");
        down.arg("down").current_dir(top());
        down.env("THREE_NODES", &self.set).env("MAINSTAY", program::mainstay());
        let down = run(&mut down);
        if let Some(mut input) = self.watchdog.stdin.take() {
            // It may be gone, and then nothing is left to be done.
            let _ = input.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:#?}");
        }
    }
}

/// The top of the sources.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

#[test]
fn the_page_is_true() {
    if !tools::is_root() {
        return;
    }
    let page = fs::read_to_string(top().join("docs/tutorial/README.md")).unwrap();
    let reader = Reader::new();
    for step in steps(&reader.read(&page)) {
        match step {
            Step::Script(script) => {
                let (printed, succeeded) = reader.shell(&script);
                assert!(succeeded, "{script}\n{printed}");
            }
            Step::Command(command, expected) => {
                let looks =
                    ["kubectl get", "kubectl logs"].iter().any(|it| command.starts_with(it));
                let mut last = String::new();
                let mut play = || {
                    last = reader.shell(&command).0;
                    fits(&expected, &last).then_some(())
                };
                let played = if looks { wait_for(&mut play) } else { play() };
                assert!(
                    played.is_some(),
                    "$ {command}\n{last}\ninstead of\n{}",
                    expected.join("\n")
                );
            }
        }
    }
    // The last thing that the page does is to take everything away.
    for node in NODES {
        let names = Names::of(&reader.state().join(node).join("root"));
        let left = left_of(&reader.state(), &names);
        assert!(left.is_empty(), "{node}: {left:#?}");
        assert!(!Path::new(&format!("/run/netns/{}-{node}", reader.set)).exists());
    }
    for left in [reader.state(), format!("/run/{}", reader.set).into()] {
        assert!(!left.exists(), "{}", left.display());
    }
    let links = run(enter(&reader.space.path(), "ip").args(["-o", "link"])).success();
    assert!(!links.contains(&reader.set), "{links}");
}

#[test]
fn how_a_page_is_read() {
    let page = "# A\n```text\nno\n```\n```sh\na\nb\n```\n```console\n$ c\nd ...\n$ e\n```\n";
    let expected = [
        Step::Script("a\nb".to_owned()),
        Step::Command("c".to_owned(), vec!["d ...".to_owned()]),
        Step::Command("e".to_owned(), Vec::new()),
    ];
    assert_eq!(steps(page), expected);
    let fits = |expected: &str, printed| {
        super::tutorial::fits(&expected.lines().map(str::to_owned).collect::<Vec<_>>(), printed)
    };
    assert!(fits("NAME AGE\na-... ...", "NAME     AGE\na-1x2   3m5s\n"));
    assert!(fits("", ""));
    assert!(!fits("NAME AGE", "NAME AGE\na 1s\n"));
    assert!(!fits("a.b", "a-b\n"));
    assert!(!fits("a", "b a\n"));
}
