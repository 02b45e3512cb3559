//! What no file contains: unfinished code, traces of a merge, blanks at the end of a line.

use super::rust::{Class, classes, only};
use super::{File, Finding, words_at};

/// Macros that stand for code which is not there, or only there for a moment.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "dbg!"];
/// Marks of what is still to be done, said in two parts because this file is checked too.
const MARKS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];
/// The middle one is also a headline in Markdown, and does not come alone.
const MERGE_MARKERS: &[&str] = &["<<<<<<< ", ">>>>>>> "];

/// What should not be committed.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    files.iter().filter(|file| !is_data(&file.path)).flat_map(one).collect()
}

/// Inputs of fuzz targets are as they are.
fn is_data(path: &str) -> bool {
    path.starts_with("fuzz/seeds/")
}

fn one(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    let rust = file.is_rust();
    if rust {
        let code = only(Class::Code, &file.text);
        for name in UNFINISHED {
            let at = words_at(&code, name.trim_end_matches('!'));
            let macros = at.filter(|at| code[*at..].starts_with(name));
            findings.extend(macros.map(|at| file.at(at, format!("{name}() is not for keeps"))));
        }
    }
    // A literal is data, and may talk about anything.
    let prose = if rust { only(Class::Comment, &file.text) } else { file.text.clone() };
    for mark in MARKS {
        let message = format!("{mark}: do it, or say what is missing where it is looked for");
        findings.extend(words_at(&prose, mark).map(|at| file.at(at, message.clone())));
    }
    let classes = if rust { classes(&file.text) } else { Vec::new() };
    let mut offset = 0;
    for line in file.text.split_inclusive('\n') {
        let end = offset + line.trim_end_matches('\n').len();
        let literal = classes.get(end) == Some(&Class::Literal);
        if file.text[offset..end].ends_with([' ', '\t', '\r']) && !literal {
            findings.push(file.at(offset, "blanks at the end of the line"));
        }
        if MERGE_MARKERS.iter().any(|marker| line.starts_with(marker)) {
            findings.push(file.at(offset, "what is left of a merge"));
        }
        offset += line.len();
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        findings.push(file.whole("does not end with a line end"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::super::testing::{file, lines};

    fn check(path: &str, text: &str, expected: &Expect) {
        expected.assert_eq(&lines(super::check(&[file(path, text)])));
    }

    #[test]
    fn unfinished_code() {
        check(
            "a.rs",
            "todo!()\nnot_todo!()\n\"todo!()\"; // todo!()\nx(dbg!(1));\n",
            &expect![[r#"
            a.rs:1: todo!() is not for keeps
            a.rs:4: dbg!() is not for keeps
        "#]],
        );
        check("a.md", "`todo!()`\n", &expect![""]);
    }

    #[test]
    fn marks() {
        let text = format!("// {0}: x\nlet a = \"{0}\";\nlet {0}S = 1;\n", super::MARKS[0]);
        check(
            "a.rs",
            &text,
            &expect![[r#"
            a.rs:1: TODO: do it, or say what is missing where it is looked for
        "#]],
        );
        check(
            "a.yaml",
            &format!("# {}\n", super::MARKS[1]),
            &expect![[r#"
            a.yaml:1: FIXME: do it, or say what is missing where it is looked for
        "#]],
        );
    }

    #[test]
    fn merges_and_blanks() {
        check(
            "a.md",
            "a\n<<<<<<< ours\nb \n=======\nc\t\n>>>>>>> theirs\nd",
            &expect![[r#"
            a.md:2: what is left of a merge
            a.md:3: blanks at the end of the line
            a.md:5: blanks at the end of the line
            a.md:6: what is left of a merge
            a.md: does not end with a line end
        "#]],
        );
        check(
            "a.rs",
            "let a = \"b \n\"; \n",
            &expect![[r#"
            a.rs:2: blanks at the end of the line
        "#]],
        );
        check("fuzz/seeds/a", "a ", &expect![""]);
        check("empty", "", &expect![""]);
    }
}
