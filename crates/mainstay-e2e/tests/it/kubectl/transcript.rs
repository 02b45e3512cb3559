//! The text of a transcript.
//!
//! ```text
//! # What is shown. A comment, as any line that begins with a hash.
//! #: recorded with Kubernetes 1.36.2, kubectl 1.20.2 and 1.32.4, 2026-11-29
//!
//! mask web-[a-z0-9]{5} => web-<random>
//! === manifest web.yaml
//! (a file of the directory of static pods; `=== file` is one where the commands run)
//! ===
//! until kubectl wait --for=condition=Ready pod/web-${NODE}
//! $ kubectl get pod web-${NODE} nothing |
//! > head -2
//! | NAME        READY  STATUS   RESTARTS  AGE
//! # mainstay: why this differs, and has to
//! -| web-<node>  1/1    Running  0         <age>
//! +| web-<node>  1/1    Running  7         <age>
//! ! Error from server (NotFound): pods "nothing" not found
//! = 1
//! take web.yaml
//! finally kubectl delete pod other
//! ```
//!
//! What a command prints stands below it: standard output after `|`, standard error after `!`, an
//! exit status other than 0 after `=`, all of it as `normal` leaves it. Where the versions of
//! kubectl differ, `@1.20` and `@1.32` stand above what each of them prints. Such a mark before a
//! command, as in `@1.32 $ kubectl events`, makes it one of this version only.
//!
//! `take` removes a manifest; the next file of this name puts it back. Commands are bash's. `until` repeats one until it succeeds and forgets what it prints; `finally`
//! is run at the end, however it comes about, and not looked at. A line `later` and a reason stands
//! in a transcript that mainstay cannot be asked to play yet. `${NODE}` is the node's name, in
//! files too.

use std::fmt;
use std::str::FromStr;

/// A version of kubectl that transcripts are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Debian 12's: streams are SPDY's.
    V1_20,
    /// Streams are WebSockets.
    V1_32,
}

/// A whole one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transcript {
    pub(crate) items: Vec<Item>,
}

/// A part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A comment or an empty line.
    Text(String),
    /// By what it was recorded.
    Recorded(String),
    /// Why mainstay cannot be asked this yet.
    Later(String),
    /// A regular expression, and what stands for what it finds.
    Mask {
        find: String,
        put: String,
    },
    File(File),
    /// A manifest that is removed.
    Take(String),
    Step(Step),
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Where a file is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the directory of static pods.
    Manifest,
    /// Where the commands run.
    File,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// All versions if none.
    pub(crate) version: Option<Version>,
    pub(crate) kind: Kind,
    pub(crate) script: String,
    pub(crate) blocks: Vec<Block>,
}

/// What is done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It is run, and what it prints compared.
    Run,
    /// It is repeated until it succeeds.
    Until,
    /// It is run at the end.
    Finally,
}

/// What a command prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// All versions if none.
    pub(crate) version: Option<Version>,
    pub(crate) lines: Vec<Line>,
}

/// A line of that, with the mark that tells where it is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Same(String),
    /// Why the next lines differ.
    Reason(String),
    Reference(String),
    Ours(String),
}

/// Whose answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Reference,
    Ours,
}

const REASON: &str = "# mainstay: ";

// === impl Version ===

impl Version {
    pub(crate) const ALL: [Self; 2] = [Self::V1_20, Self::V1_32];

    /// As people say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1_20 => "1.20",
            Self::V1_32 => "1.32",
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.name() == name)
    }
}

// === impl Step ===

impl Step {
    /// Whether it is one of this version.
    pub(crate) fn is_of(&self, version: Version) -> bool {
        self.version.is_none_or(|of| of == version)
    }

    /// What one side prints with this version.
    pub(crate) fn expected(&self, version: Version, side: Side) -> Vec<String> {
        let block = self.blocks.iter().find(|b| b.version.is_none_or(|of| of == version));
        block.map(|block| block.view(side)).unwrap_or_default()
    }
}

// === impl Block ===

impl Block {
    fn view(&self, side: Side) -> Vec<String> {
        let of_side = |line: &Line| match (line, side) {
            (Line::Same(text), _)
            | (Line::Reference(text), Side::Reference)
            | (Line::Ours(text), Side::Ours) => Some(text.clone()),
            _ => None,
        };
        self.lines.iter().filter_map(of_side).collect()
    }
}

// === impl Line ===

impl Line {
    fn parse(text: &str) -> Option<Self> {
        if let Some(reason) = text.strip_prefix(REASON) {
            return Some(Self::Reason(reason.to_owned()));
        }
        let is_marked = |text: &str| {
            ["|", "!", "="].iter().any(|mark| {
                text.strip_prefix(mark).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
            })
        };
        match text.split_at_checked(1) {
            Some(("-", rest)) if is_marked(rest) => Some(Self::Reference(rest.to_owned())),
            Some(("+", rest)) if is_marked(rest) => Some(Self::Ours(rest.to_owned())),
            _ if is_marked(text) => Some(Self::Same(text.to_owned())),
            _ => None,
        }
    }
}

// === impl Transcript ===

impl Transcript {
    /// Why mainstay cannot be asked all this yet, if so.
    pub(crate) fn later(&self) -> Option<&str> {
        self.items.iter().find_map(|item| match item {
            Item::Later(why) => Some(why.as_str()),
            _ => None,
        })
    }

    /// The commands.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.items.iter().filter_map(|item| match item {
            Item::Step(step) => Some(step),
            _ => None,
        })
    }
}

/// Errors: the number of a line, and what is wrong with it.
impl FromStr for Transcript {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut items = Vec::new();
        let mut lines = text.lines().enumerate().peekable();
        while let Some((index, line)) = lines.next() {
            let wrong = |what: &str| format!("line {}: {what}: {line:?}", index + 1);
            if let Some(by) = line.strip_prefix("#: ") {
                items.push(Item::Recorded(by.to_owned()));
            } else if line.is_empty() || (line.starts_with('#') && !line.starts_with(REASON)) {
                items.push(Item::Text(line.to_owned()));
            } else if let Some(mask) = line.strip_prefix("mask ") {
                let (find, put) = mask.split_once(" => ").ok_or_else(|| wrong("no ` => `"))?;
                items.push(Item::Mask { find: find.to_owned(), put: put.to_owned() });
            } else if let Some(why) = line.strip_prefix("later ") {
                items.push(Item::Later(why.to_owned()));
            } else if let Some(name) = line.strip_prefix("take ") {
                items.push(Item::Take(name.to_owned()));
            } else if let Some(file) = line.strip_prefix("=== ") {
                let (place, name) = file.split_once(' ').ok_or_else(|| wrong("no name"))?;
                let place = match place {
                    "manifest" => Place::Manifest,
                    "file" => Place::File,
                    _ => return Err(wrong("no such place")),
                };
                let mut text = String::new();
                loop {
                    match lines.next() {
                        Some((_, "===")) => break,
                        Some((_, line)) => text.extend([line, "\n"]),
                        None => return Err(wrong("it has no end")),
                    }
                }
                items.push(Item::File(File { place, name: name.to_owned(), text }));
            } else {
                let (version, command) = match line.strip_prefix('@') {
                    Some(rest) => {
                        let (name, rest) = rest.split_once(' ').ok_or_else(|| wrong("alone"))?;
                        let version = Version::named(name).ok_or_else(|| wrong("which version"))?;
                        (Some(version), rest)
                    }
                    None => (None, line),
                };
                let (kind, script) = Kind::ALL
                    .into_iter()
                    .find_map(|kind| Some((kind, command.strip_prefix(kind.mark())?)))
                    .ok_or_else(|| wrong("this says nothing"))?;
                let mut script = script.to_owned();
                while let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with("> ")) {
                    script.push('\n');
                    script.push_str(&next[2..]);
                }
                let mut blocks: Vec<Block> = Vec::new();
                while let Some((_, next)) = lines.peek() {
                    if let Some(version) = next.strip_prefix('@').and_then(Version::named) {
                        blocks.push(Block { version: Some(version), lines: Vec::new() });
                    } else if let Some(line) = Line::parse(next) {
                        if blocks.is_empty() {
                            blocks.push(Block { version: None, lines: Vec::new() });
                        }
                        blocks.last_mut().ok_or("a block")?.lines.push(line);
                    } else {
                        break;
                    }
                    lines.next();
                }
                items.push(Item::Step(Step { version, kind, script, blocks }));
            }
        }
        Ok(Self { items })
    }
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 3] = [Self::Run, Self::Until, Self::Finally];

    fn mark(self) -> &'static str {
        match self {
            Self::Run => "$ ",
            Self::Until => "until ",
            Self::Finally => "finally ",
        }
    }
}

// === impl Display ===

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.items.iter().try_for_each(|item| item.fmt(f))
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => writeln!(f, "{text}"),
            Self::Recorded(by) => writeln!(f, "#: {by}"),
            Self::Mask { find, put } => writeln!(f, "mask {find} => {put}"),
            Self::File(File { place, name, text }) => {
                let place = match place {
                    Place::Manifest => "manifest",
                    Place::File => "file",
                };
                writeln!(f, "=== {place} {name}\n{text}===")
            }
            Self::Later(why) => writeln!(f, "later {why}"),
            Self::Take(name) => writeln!(f, "take {name}"),
            Self::Step(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            write!(f, "@{} ", version.name())?;
        }
        writeln!(f, "{}{}", self.kind.mark(), self.script.replace('\n', "\n> "))?;
        self.blocks.iter().try_for_each(|block| block.fmt(f))
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = self.version {
            writeln!(f, "@{}", version.name())?;
        }
        self.lines.iter().try_for_each(|line| match line {
            Line::Same(text) => writeln!(f, "{text}"),
            Line::Reason(text) => writeln!(f, "{REASON}{text}"),
            Line::Reference(text) => writeln!(f, "-{text}"),
            Line::Ours(text) => writeln!(f, "+{text}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# Pods.
#: recorded with something

mask web-[a-z]+ => web
=== manifest web.yaml
kind: Pod

===
until kubectl get pods
$ kubectl get pods |
> cat
| NAME
# mainstay: for a reason
-| a
+| b
+|
! warning
= 1
$ true
@1.32 $ kubectl events
$ kubectl version
@1.20
| 1.20
@1.32
| 1.32
take web.yaml
later not yet
finally rm x
";

    #[test]
    fn what_is_read_is_written_the_same() {
        let transcript: Transcript = TEXT.parse().unwrap();
        assert_eq!(transcript.to_string(), TEXT);
    }

    #[test]
    fn each_side_and_each_version_has_what_it_prints() {
        let transcript: Transcript = TEXT.parse().unwrap();
        let steps: Vec<&Step> = transcript.steps().collect();
        let [_, pods, nothing, events, version, _] = steps[..] else { panic!("{steps:?}") };
        assert_eq!(pods.script, "kubectl get pods |\ncat");
        let of = |side| pods.expected(Version::V1_20, side);
        assert_eq!(of(Side::Reference), ["| NAME", "| a", "! warning", "= 1"]);
        assert_eq!(of(Side::Ours), ["| NAME", "| b", "|", "! warning", "= 1"]);
        assert_eq!(nothing.expected(Version::V1_20, Side::Ours), [""; 0]);
        assert!(events.is_of(Version::V1_32) && !events.is_of(Version::V1_20));
        assert_eq!(version.expected(Version::V1_20, Side::Ours), ["| 1.20"]);
        assert_eq!(version.expected(Version::V1_32, Side::Ours), ["| 1.32"]);
    }

    #[test]
    fn what_says_nothing_is_refused_with_its_line() {
        for (text, line) in [
            ("# a\nkubectl get", "line 2: this says nothing"),
            ("=== manifest a\nb\n", "line 1: it has no end"),
            ("=== elsewhere a\nb\n===\n", "line 1: no such place"),
            ("mask a b", "line 1: no ` => `"),
            ("@1.9 $ a", "line 1: which version"),
            ("| output of nothing", "line 1: this says nothing"),
        ] {
            let error = text.parse::<Transcript>().unwrap_err();
            assert!(error.starts_with(line), "{error}");
        }
    }
}
