//! What no file names: the machines that it was written on, and where they get packages from.

use super::{File, Finding};

/// Words, in two parts because this file is checked too; and paths, or their beginnings, in which
/// they may stand.
const WORDS: &[(&str, &[&str])] = &[
    // Folders of a machine on which somebody builds.
    (concat!("/", "work/"), &[]),
    (concat!("/root/", ".cargo"), &[]),
    (concat!("/root/", ".rustup"), &[]),
    // Hosts of package registries: where packages come from is each machine's own decision.
    (concat!("static.", "crates.io"), &[]),
    (concat!("index.", "crates.io"), &[]),
    (concat!("deb.", "debian.org"), &[]),
    (concat!("snapshot.", "debian.org"), &[]),
    (concat!("proxy.", "golang.org"), &[]),
    (concat!("registry.", "npmjs.org"), &[]),
    (concat!("pypi", ".org"), &[]),
];

/// Words that do not belong here.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    find(files, WORDS)
}

fn find(files: &[File], words: &[(&str, &[&str])]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (word, allowed) in words {
            if allowed.iter().any(|path| file.path.starts_with(path)) {
                continue;
            }
            let places = file.text.match_indices(word);
            findings.extend(places.map(|(at, _)| file.at(at, format!("names {word}"))));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::{file, lines};
    use super::*;

    #[test]
    fn words_are_found_where_they_may_not_stand() {
        let words: &[(&str, &[&str])] = &[("attic", &["docs/"])];
        let files = [file("docs/a.md", "attic\n"), file("b.rs", "// the\n// attic, attics\n")];
        expect![[r#"
            b.rs:2: names attic
            b.rs:2: names attic
        "#]]
        .assert_eq(&lines(find(&files, words)));
    }
}
