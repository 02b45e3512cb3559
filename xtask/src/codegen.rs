//! `cargo xtask codegen`: sources that a program writes.

use std::fs;

use anyhow::{Context, bail};

use crate::process;

/// What is generated, by which package and which of its parts. Each package is a workspace of its own, so
/// that the features that only it needs do not reach the product.
const GENERATED: &[(&str, &str, &str)] = &[
    ("crates/mainstay-schema/src/types/table.rs", "xtask/schema/Cargo.toml", "types"),
    ("crates/mainstay-schema/src/openapi/text.tsv", "xtask/schema/Cargo.toml", "text"),
    ("crates/mainstay-schema/src/protobuf/numbers.rs", "xtask/schema/Cargo.toml", "protobuf"),
];

/// What a test compares, and writes if it is told to: it has to know what nothing else needs.
const PAGES: &[(&str, &str)] = &[
    ("mainstay-pod", "unsupported::tests::page"),
    ("mainstay", "config::fields::tests::the_page"),
];

/// Writes the sources, and the pages of documentation.
pub(crate) fn write() -> anyhow::Result<()> {
    for (path, generator, part) in GENERATED {
        fs::write(path, generate(generator, part)?)
            .with_context(|| format!("cannot write {path}"))?;
    }
    for (package, test) in PAGES {
        let mut command = process::cargo();
        command.args(["test", "--quiet", "--locked", "--package", package, test]);
        process::run(command.env("UPDATE_EXPECT", "1"))?;
    }
    Ok(())
}

/// Compares the sources with what would be written. Pages are compared by their tests.
///
/// # Errors
///
/// When they differ.
pub(crate) fn check() -> anyhow::Result<()> {
    for (path, generator, part) in GENERATED {
        let there = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
        if there != generate(generator, part)? {
            bail!("{path} is not what {generator} writes; `cargo xtask codegen` writes it");
        }
    }
    Ok(())
}

fn generate(manifest: &str, part: &str) -> anyhow::Result<String> {
    let mut command = process::cargo();
    command.args(["run", "--quiet", "--locked", "--manifest-path", manifest]);
    process::output(command.args(["--target-dir", "target/codegen", "--", part]))
}
