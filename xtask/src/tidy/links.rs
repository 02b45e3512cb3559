//! Links in Markdown files lead somewhere: to a file of the project, and to a headline in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{File, Finding, markdown};

/// Links to what is not there.
pub(super) fn check(files: &[File], paths: &BTreeSet<String>) -> Vec<Finding> {
    let documents: BTreeMap<&str, String> = files
        .iter()
        .filter(|file| file.is_markdown())
        .map(|file| (file.path.as_str(), markdown::without_blocks(&file.text)))
        .collect();
    let mut findings = Vec::new();
    for file in files {
        let Some(text) = documents.get(file.path.as_str()) else { continue };
        for (offset, target) in targets(text) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if path.is_empty() { Some(file.path.clone()) } else { join(&file.path, path) };
            let Some(path) = path.filter(|path| path.is_empty() || paths.contains(path)) else {
                findings.push(file.at(offset, format!("the link to {target} leads nowhere")));
                continue;
            };
            let missing = |text: &String| !anchors(text).contains(anchor);
            if !anchor.is_empty() && documents.get(path.as_str()).is_some_and(missing) {
                findings.push(file.at(offset, format!("{path} has no headline #{anchor}")));
            }
        }
    }
    findings
}

/// What is linked to inside the project, `[text](target)` or `[label]: target`, with its place.
fn targets(text: &str) -> Vec<(usize, &str)> {
    let code = markdown::code_spans(text);
    let in_code =
        |at: usize| code.iter().any(|(start, span)| (*start..start + span.len()).contains(&at));
    let starts = text.match_indices("](").chain(text.match_indices("]: "));
    starts
        .filter(|(at, _)| !in_code(*at))
        .filter_map(|(at, mark)| {
            let rest = &text[at + mark.len()..];
            let target = rest.split([')', ' ', '\n']).next()?;
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            (!target.is_empty() && !elsewhere).then_some((at, target))
        })
        .collect()
}

/// The path that `target` means in the file `from`; none if it leads out of the project.
fn join(from: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// What can follow the `#`. Source: GitHub, "Basic writing and formatting syntax", section links.
fn anchors(text: &str) -> BTreeSet<String> {
    let headlines = text.lines().filter_map(|line| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' ')).flatten()
    });
    let anchor = |title: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let lower = title.trim().to_lowercase();
        lower.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headlines.map(anchor).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::{file, lines};
    use super::*;

    #[test]
    fn links_lead_somewhere() {
        let a = "# One two, `three`\n[good](../b.md#x), [good](#one-two-three), [good](http://x/y)\n\
                 [bad](c.md) [bad](#one) [bad](../b.md#y) [bad](../../d)\n`[code](e.md)`\n\
                 ```\n[block](f.md)\n```\n[label]: g.md\n[top](..)\n";
        let files = [file("docs/a.md", a), file("b.md", "## X\n")];
        let paths = ["docs", "docs/a.md", "b.md"].map(str::to_owned);
        expect![[r#"
            docs/a.md:3: the link to c.md leads nowhere
            docs/a.md:3: docs/a.md has no headline #one
            docs/a.md:3: b.md has no headline #y
            docs/a.md:3: the link to ../../d leads nowhere
            docs/a.md:8: the link to g.md leads nowhere
        "#]]
        .assert_eq(&lines(check(&files, &paths.into())));
    }
}
