//! Writes a generated table to standard output: `schema-codegen types` or `schema-codegen text`.
//!
//! `cargo xtask codegen` runs this crate with
//! `cargo run --quiet --locked --manifest-path xtask/schema/Cargo.toml` and writes what it prints to
//! the table's file; `cargo xtask codegen --check` compares the two byte for byte and fails if they
//! differ.

mod facts;
mod pod;
mod shapes;
mod table;
mod text;

fn main() {
    let which = std::env::args().nth(1);
    let text = match which.as_deref() {
        Some("pod") => pod::table(),
        Some("types") => table::table(),
        Some("text") => text::text(),
        other => panic!("pod, types or text, not {other:?}"),
    };
    print!("{text}");
}
