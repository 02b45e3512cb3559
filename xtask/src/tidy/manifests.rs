//! What every crate's manifest and clippy.toml say.

use super::{File, Finding};

const SHARED: &str = "clippy.toml";
/// Crates to which time is an argument.
const WITHOUT_CLOCK: &[&str] = &["mainstay-plan", "mainstay-pod"];
const CLOCKS: &[&str] =
    &["std::time::Instant::now", "std::time::SystemTime::now", "jiff::Timestamp::now"];

/// Crates that do not share the lints, or lose them.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |it| &it.text);
    let shared = bans(text(SHARED));
    for file in files {
        let Some(directory) = crate_of(&file.path) else { continue };
        if file.path.ends_with("/Cargo.toml") {
            if !file.text.contains("\n[lints]\nworkspace = true\n") {
                findings.push(file.whole("does not share the lints: [lints] workspace = true"));
            }
            let own = format!("{directory}/clippy.toml");
            let name = directory.rsplit('/').next().unwrap_or(directory);
            if WITHOUT_CLOCK.contains(&name) {
                let banned = bans(text(&own));
                findings.extend(lacks(&own, &banned, CLOCKS, "reads no clock"));
            }
        }
        if file.path.ends_with("/clippy.toml") {
            // Source: clippy, `book/src/configuration.md`: one file is used, none is merged.
            let why = "replaces the shared bans and has to repeat them";
            findings.extend(lacks(&file.path, &bans(&file.text), &shared, why));
        }
    }
    findings
}

/// The folder of the crate that a file lies in, if it is a crate of the workspace.
fn crate_of(path: &str) -> Option<&str> {
    let directory = path.rsplit_once('/')?.0;
    let folder = directory.strip_prefix("crates/").unwrap_or_default();
    let member = directory == "xtask" || (!folder.is_empty() && !folder.contains('/'));
    member.then_some(directory)
}

/// The methods that a clippy.toml bans.
fn bans(text: &str) -> Vec<&str> {
    let entries = text.split("path = \"").skip(1);
    entries.filter_map(|entry| entry.split('"').next()).collect()
}

fn lacks(path: &str, banned: &[&str], wanted: &[&str], why: &str) -> Vec<Finding> {
    let missing = wanted.iter().filter(|method| !banned.contains(method));
    missing
        .map(|method| Finding {
            path: path.to_owned(),
            line: None,
            message: format!("does not ban {method}; it {why}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::{file, lines};
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n";

    #[test]
    fn lints_are_shared() {
        let bad = "[package]\nname = \"a\"\n\n[lints.rust]\nunsafe_code = \"allow\"\n";
        let findings = check(&[
            file("crates/mainstay-image/Cargo.toml", GOOD),
            file("crates/mainstay-cri/Cargo.toml", bad),
            file("xtask/Cargo.toml", bad),
            file("xtask/schema/Cargo.toml", bad),
            file("Cargo.toml", bad),
        ]);
        expect![[r#"
            crates/mainstay-cri/Cargo.toml: does not share the lints: [lints] workspace = true
            xtask/Cargo.toml: does not share the lints: [lints] workspace = true
        "#]]
        .assert_eq(&lines(findings));
    }

    #[test]
    fn bans_are_repeated() {
        let shared = file("clippy.toml", "methods = [{ path = \"a::b\" }, { path = \"c::d\" }]");
        let plan = file("crates/mainstay-plan/Cargo.toml", GOOD);
        let own = "methods = [{ path = \"a::b\" }, { path = \"jiff::Timestamp::now\" }]";
        let own = file("crates/mainstay-plan/clippy.toml", own);
        expect![[r#"
            crates/mainstay-plan/clippy.toml: does not ban std::time::Instant::now; it reads no clock
            crates/mainstay-plan/clippy.toml: does not ban std::time::SystemTime::now; it reads no clock
            crates/mainstay-plan/clippy.toml: does not ban c::d; it replaces the shared bans and has to repeat them
        "#]].assert_eq(&lines(check(&[shared, plan, own])));
    }
}
