//! `unsafe` stands in one crate only.

use super::rust::{Class, only};
use super::{File, Finding, words_at};

const UNSAFE_CRATE: &str = "crates/mainstay-linux/";

/// `unsafe`, and the lint against it lifted, elsewhere.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let others = files.iter().filter(|file| file.is_rust() && !file.path.starts_with(UNSAFE_CRATE));
    others
        .flat_map(|file| {
            let code = only(Class::Code, &file.text);
            let places: Vec<usize> =
                ["unsafe", "unsafe_code"].iter().flat_map(|word| words_at(&code, word)).collect();
            places.into_iter().map(|at| {
                file.at(
                    at,
                    format!("the place of unsafe code is {UNSAFE_CRATE}, behind a safe API"),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::testing::{file, lines};
    use super::*;

    #[test]
    fn unsafe_stays_where_it_is() {
        let good = "// unsafe {\nlet text = \"unsafe\";\nlet not_unsafe = 1;\n";
        let bad = "fn f() {\n    unsafe { g() }\n}\n#[expect(unsafe_code, reason = \"\")]\n";
        let findings = check(&[
            file("crates/mainstay-linux/src/lib.rs", bad),
            file("crates/mainstay-pod/src/lib.rs", good),
            file("xtask/src/main.rs", bad),
        ]);
        expect![[r#"
            xtask/src/main.rs:2: the place of unsafe code is crates/mainstay-linux/, behind a safe API
            xtask/src/main.rs:4: the place of unsafe code is crates/mainstay-linux/, behind a safe API
        "#]].assert_eq(&lines(findings));
    }
}
