//! `cargo xtask tidy`: the project's own rules, checked on the text of its files.
//!
//! Each rule is a function from files to findings, in a module of its own.

mod budget;
mod layers;
mod links;
mod manifests;
mod map;
mod markdown;
mod rust;
mod safety;
mod text;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, bail};

use crate::{metadata, process};

/// The document whose table of crates and whose paths are checked.
const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// What breaks a rule.
    Findings,
    /// Also the files that are larger than they should be, and may be.
    LargeFilesToo,
}

/// One file of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    /// Relative to the top directory.
    path: String,
    text: String,
}

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1, if it is about a line.
    line: Option<usize>,
    message: String,
}

/// Checks all rules.
///
/// # Errors
///
/// When a rule is broken; the findings are printed, all of them.
pub(crate) fn run(report: Report) -> anyhow::Result<()> {
    let (files, paths) = files()?;
    let crates = layers::crates(&metadata::read()?)?;
    let mut findings = BTreeSet::new();
    findings.extend(layers::check(&files, &crates));
    findings.extend(budget::check(&files, budget::EXCEPTIONS));
    findings.extend(map::check(&files, &paths));
    findings.extend(safety::check(&files));
    findings.extend(manifests::check(&files));
    findings.extend(text::check(&files));
    findings.extend(words::check(&files));
    findings.extend(links::check(&files, &paths));
    if report == Report::LargeFilesToo {
        for (path, lines) in budget::large(&files) {
            println!("{path}: {lines} lines, {} are aimed at", budget::AIM);
        }
    }
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        1 => bail!("one thing is not tidy"),
        several => bail!("{several} things are not tidy"),
    }
}

/// The files that are or could be committed, and the paths of all of them, those that are no text
/// too, with the directories that they lie in.
fn files() -> anyhow::Result<(Vec<File>, BTreeSet<String>)> {
    let mut git = process::command("git");
    // The checkout may belong to somebody else, such as a container's user.
    git.args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]);
    git.arg("--exclude-standard");
    let listed = process::output(&mut git)?;
    let mut files = Vec::new();
    let mut paths = BTreeSet::new();
    for path in listed.split_terminator('\0') {
        // One that is deleted and not yet committed as such is still listed.
        let Ok(kind) = Path::new(path).symlink_metadata() else { continue };
        let directories = Path::new(path).ancestors().filter_map(Path::to_str);
        paths.extend(directories.map(str::to_owned));
        if !kind.is_file() {
            continue;
        }
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok((files, paths))
}

// === impl File ===

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_markdown(&self) -> bool {
        self.path.ends_with(".md")
    }

    /// A finding about the line at `offset`.
    fn at(&self, offset: usize, message: impl Into<String>) -> Finding {
        let line = self.text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count() + 1;
        Finding { path: self.path.clone(), line: Some(line), message: message.into() }
    }

    /// A finding about the file.
    fn whole(&self, message: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line: None, message: message.into() }
    }
}

// === impl Finding ===

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.message),
            None => write!(f, "{}: {}", self.path, self.message),
        }
    }
}

/// Where `word` stands in `text` as a word of its own, by byte offset.
fn words_at<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(offset, _)| offset).filter(move |offset| {
        !text[..*offset].ends_with(inside) && !text[offset + word.len()..].starts_with(inside)
    })
}

#[cfg(test)]
mod testing {
    //! How the rules are tested: a few files in, the findings as lines out.

    use super::{File, Finding};

    pub(super) fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    pub(super) fn lines(findings: impl IntoIterator<Item = Finding>) -> String {
        findings.into_iter().map(|finding| format!("{finding}\n")).collect()
    }
}
