//! What is left of an output when all is taken out that differs from run to run.
//!
//! Names, times and numbers become `<kind>`; those that can be compared within one output are
//! numbered in the order that they come in, `<uid-1>` and `<uid-2>`. Of blanks that align columns
//! two stay, but for tables, which are aligned anew.

use std::collections::HashMap;

use regex::{Captures, Regex};

/// What there is to know about where an output comes from.
#[derive(Debug)]
pub(crate) struct Normal {
    node: Regex,
    /// In their order: what to find, and what stands for it.
    literal: Vec<(String, &'static str)>,
    masks: Vec<(Regex, String)>,
    rules: Vec<Rule>,
    age: Regex,
    ago: Regex,
    header: Regex,
}

/// Something that differs from run to run.
#[derive(Debug)]
struct Rule {
    /// The group 1, if there is one, is what is replaced; else the whole.
    find: Regex,
    put: &'static str,
    numbered: bool,
}

/// An age or two, as in `5m (x3 over 2h)`.
const AGE: &str = r"(?:<invalid>|[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|y)(?:[0-9]+(?:s|m|h|d))?)";

const RULES: &[(&str, &str, bool)] = &[
    // kubectl says so when it has not opened all of its streams before the first one brings something.
    (r"(?m)^E[0-9]{4} .*Unknown stream id [0-9]+, discarding message\n", "", false),
    (r"https?://[0-9.\[\]:a-z-]+:[0-9]+", "<server>", false),
    // Of RFC 3339, of RFC 1123 and of Go.
    (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}:[0-9]{2})",
        "<time>",
        false,
    ),
    (
        r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} [+-][0-9]{4}",
        "<time>",
        false,
    ),
    (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)? [+-][0-9]{4} [A-Z]+",
        "<time>",
        false,
    ),
    // Heads of kubectl's own log lines.
    (r"[EIW][0-9]{4} [0-9:.]{15} +[0-9]+ [a-z_]+\.go:[0-9]+\]", "<log>", false),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "uid", true),
    // The server's and the node's.
    (r"(?-u:\b)v(1\.36\.[0-9]+(?:\+[0-9A-Za-z.-]+)?)", "<1.36>", false),
    // Of containerd, and ours.
    (r"[a-z]+://(?:[0-9a-f]{64}|[0-9a-f]{32})", "container", true),
    (r"sha256:[0-9a-f]{64}", "digest", true),
    (r"(?-u:\b)[0-9a-f]{64}(?-u:\b)", "id", true),
    (r"(?-u:\b)[0-9a-f]{32}(?-u:\b)", "hash", true),
    // Names of events.
    (r"\.([0-9a-f]{16})(?-u:\b)", "<event>", false),
    (r#"resourceVersion"?: ?"([0-9]+)"#, "<version>", false),
    // Of the node.
    (r#"(?-u:\b)Port"?: ?([0-9]{4,5})(?-u:\b)"#, "<port>", false),
    (r"(?-u:\b)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?-u:\b)", "ip", true),
    (r"<ip-[0-9]+>:([0-9]{4,5})(?-u:\b)", "<port>", false),
    (r"\[::1\]:([0-9]{4,5})(?-u:\b)", "<port>", false),
    (r"kubectl-edit-([0-9a-z]+)", "<random>", false),
    (r"(?-u:\b)in ([0-9.]+m?s)(?-u:\b)", "<duration>", false),
    (r"kube-api-access-([a-z0-9]{5})", "<random>", false),
];

impl Normal {
    /// For a node of this name, with texts that stand for what is known, and a transcript's masks.
    pub(crate) fn new(
        node: &str,
        literal: Vec<(String, &'static str)>,
        masks: &[(&str, &str)],
    ) -> Result<Self, regex::Error> {
        let masks = masks.iter().map(|(find, put)| Ok((Regex::new(find)?, (*put).to_owned())));
        let rules = RULES
            .iter()
            .map(|&(find, put, numbered)| Ok(Rule { find: Regex::new(find)?, put, numbered }));
        Ok(Self {
            // An underscore ends it, and is a part of a word to `\b`.
            node: Regex::new(&format!("(^|[^A-Za-z0-9]){}([^A-Za-z0-9]|$)", regex::escape(node)))?,
            literal,
            masks: masks.collect::<Result<_, _>>()?,
            rules: rules.collect::<Result<_, _>>()?,
            age: Regex::new(&format!(r"^{AGE}(?: \(x[0-9]+ over {AGE}\))?$"))?,
            ago: Regex::new(&format!(r"{AGE} ago"))?,
            header: Regex::new(
                r"^[A-Z][A-Z()-]*(?: [A-Z()-]+)*(?:  [A-Z][A-Z()%-]*(?: [A-Z()%-]+)*)+$",
            )?,
        })
    }

    /// The lines of an output.
    pub(crate) fn lines(&self, text: &str) -> Vec<String> {
        let mut text = text.to_owned();
        for (literal, put) in &self.literal {
            text = text.replace(literal.as_str(), put);
        }
        for (find, put) in &self.masks {
            text = find.replace_all(&text, put.as_str()).into_owned();
        }
        for rule in &self.rules {
            text = rule.apply(&text);
        }
        text = self.node.replace_all(&text, "${1}<node>${2}").into_owned();
        text = self.ago.replace_all(&text, "<age> ago").into_owned();
        let lines: Vec<String> = text.lines().map(|line| self.line(line)).collect();
        self.align(&lines)
    }

    /// Without blanks that align, and without ages that are alone between such.
    fn line(&self, line: &str) -> String {
        let line = line.trim_end().replace('\t', "  ");
        let start = line.len() - line.trim_start().len();
        let (indent, rest) = line.split_at(start);
        let mut cells: Vec<&str> = rest.split("  ").map(str::trim).collect();
        cells.retain(|cell| !cell.is_empty());
        let of_key = |index: usize| index.checked_sub(1).is_some_and(|i| cells[i].ends_with(':'));
        let is_age =
            |index: usize, cell: &str| cells.len() > 1 && !of_key(index) && self.age.is_match(cell);
        let cells: Vec<&str> = cells
            .iter()
            .enumerate()
            .map(|(index, cell)| if is_age(index, cell) { "<age>" } else { cell })
            .collect();
        format!("{indent}{}", cells.join("  "))
    }

    /// With the columns of tables aligned: a line of capitals, and the lines below it that have as
    /// many cells.
    fn align(&self, lines: &[String]) -> Vec<String> {
        let mut lines = lines.to_vec();
        let mut from = 0;
        while from < lines.len() {
            if !self.header.is_match(&lines[from]) {
                from += 1;
                continue;
            }
            let count = lines[from].split("  ").count();
            let rows = lines[from..].iter().take_while(|line| line.split("  ").count() == count);
            let to = from + rows.count();
            let mut widths = vec![0; count];
            for line in &lines[from..to] {
                for (width, cell) in widths.iter_mut().zip(line.split("  ")) {
                    *width = cell.chars().count().max(*width);
                }
            }
            for line in &mut lines[from..to] {
                let cells = line.split("  ").zip(&widths);
                let cells: Vec<String> =
                    cells.map(|(cell, width)| format!("{cell:width$}")).collect();
                *line = cells.join("  ").trim_end().to_owned();
            }
            from = to;
        }
        lines
    }
}

// === impl Rule ===

impl Rule {
    fn apply(&self, text: &str) -> String {
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let put = |captures: &Captures<'_>| {
            let whole = &captures[0];
            let found = captures.get(1).map_or(whole, |group| group.as_str());
            let put = if self.numbered {
                let next = numbers.len() + 1;
                let number = *numbers.entry(found.to_owned()).or_insert(next);
                format!("<{}-{number}>", self.put)
            } else {
                self.put.to_owned()
            };
            // What is found stands at the end, if it is not the whole.
            format!("{}{put}", &whole[..whole.len() - found.len()])
        };
        self.find.replace_all(text, put).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal() -> Normal {
        Normal::new("n1", vec![("/tmp/x".to_owned(), "<work>")], &[("web-[a-z]{2}", "web")])
            .unwrap()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(normal().lines(text).join("\n"), expected);
    }

    #[test]
    fn what_differs_from_run_to_run_is_taken_out() {
        for (text, expected) in [
            ("web-n1 web-ab n10 Node/n1.", "web-<node> web n10 Node/<node>."),
            (
                "E1129 07:33:56.510806  22931 websocket.go:296] Unknown stream id 1, discarding message\na",
                "a",
            ),
            ("W1129 07:33:56.510806  22931 helpers.go:702] a", "<log> a"),
            ("n1 in web-n1_default", "<node> in web-<node>_default"),
            ("a /tmp/x/f", "a <work>/f"),
            ("seen: \"2026-11-29T06:57:57.123456789+01:00\"", "seen: \"<time>\""),
            ("Start Time:   Sun, 29 Nov 2026 06:57:57 +0000", "Start Time:  <time>"),
            ("resourceVersion: \"17\"", "resourceVersion: \"<version>\""),
            ("\"resourceVersion\":\"17\",", "\"resourceVersion\":\"<version>\","),
            ("10.0.0.1 10.0.0.2 10.0.0.1:4321", "<ip-1> <ip-2> <ip-1>:<port>"),
            ("web-n1.1890aabbccddeeff", "web-<node>.<event>"),
            ("https://127.0.0.1:6443 refused", "<server> refused"),
        ] {
            check(text, expected);
        }
        let (a, b) = ("0".repeat(32), "1".repeat(32));
        check(&format!("{a} {b} {a}"), "<hash-1> <hash-2> <hash-1>");
        check(&format!("containerd://{a}{b}"), "<container-1>");
        check(&format!("sha256:{a}{b}"), "<digest-1>");
    }

    #[test]
    fn ages_are_those_that_stand_alone_in_a_table() {
        check("12s   Normal   Pulled", "<age>  Normal  Pulled");
        check("  Normal  Pulled  4m10s (x3 over 5m)  kubelet", "  Normal  Pulled  <age>  kubelet");
        check("Running   3 (12s ago)   5d", "Running  3 (<age> ago)  <age>");
        check("Termination Grace Period:  30s", "Termination Grace Period:  30s");
        check("back-off 10s restarting", "back-off 10s restarting");
        check("10s", "10s");
    }

    #[test]
    fn tables_are_aligned_anew() {
        check(
            "NAME     READY   AGE\na        1/1     3s\nlonger   1/1     300s   \n",
            "NAME    READY  AGE\na       1/1    <age>\nlonger  1/1    <age>",
        );
    }
}
