//! ARCHITECTURE.md is a map: every path that it names exists.
//!
//! A path is a code span with a slash in it, or with the end `.rs` or `.md`, relative to the top
//! directory. None are those with a placeholder or a pattern, absolute ones, which are of the
//! machine that mainstay runs on, and names that begin with a domain, such as annotations.

use std::collections::BTreeSet;

use super::{ARCHITECTURE, File, Finding, markdown};

/// Paths that are not there.
pub(super) fn check(files: &[File], paths: &BTreeSet<String>) -> Vec<Finding> {
    let Some(file) = files.iter().find(|file| file.path == ARCHITECTURE) else { return Vec::new() };
    let text = markdown::without_blocks(&file.text);
    let spans = markdown::code_spans(&text).into_iter();
    let named = spans.filter(|(_, span)| is_path(span));
    named
        .filter(|(_, path)| !paths.contains(path.trim_end_matches('/')))
        .map(|(offset, path)| file.at(offset, format!("there is no {path}")))
        .collect()
}

fn is_path(span: &str) -> bool {
    let looks = span.contains('/') || span.ends_with(".rs") || span.ends_with(".md");
    let other = span.starts_with('/')
        || span.contains(|c: char| c.is_whitespace() || "<>*{}$~:=#".contains(c))
        || is_domain(span.split('/').next().unwrap_or_default());
    looks && !other
}

/// Whether the first part of what has a slash is a domain and no file or folder.
fn is_domain(first: &str) -> bool {
    let file = [".md", ".rs", ".toml"].iter().any(|end| first.ends_with(end));
    !file && first.trim_start_matches('.').contains('.')
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::{file, lines};
    use super::*;

    #[test]
    fn paths_exist() {
        let text = "\
`crates/a/src/lib.rs`, `crates/a/` and `README.md` are there,\n\
`crates/a/src/main.rs`, `.ci/run` and `STYLE.md` are not.\n\
`/etc/mainstay`, `<root-dir>/x`, `crates/*/src`, `kubernetes.io/a`, `a::b/c`, `cargo a/b`\n\
```\n`not/a/path`\n```\n";
        let paths = ["crates/a/src/lib.rs", "crates/a", "README.md"].map(str::to_owned);
        let findings = check(&[file(ARCHITECTURE, text)], &paths.into());
        expect![[r#"
            ARCHITECTURE.md:2: there is no crates/a/src/main.rs
            ARCHITECTURE.md:2: there is no .ci/run
            ARCHITECTURE.md:2: there is no STYLE.md
        "#]]
        .assert_eq(&lines(findings));
    }
}
