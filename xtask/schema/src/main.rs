//! Writes a generated table to standard output: `schema-codegen types`, `schema-codegen text` or
//! `schema-codegen protobuf`.
//!
//! `cargo xtask codegen` runs this crate with
//! `cargo run --quiet --locked --manifest-path xtask/schema/Cargo.toml` and writes what it prints to
//! the table's file; `cargo xtask codegen --check` compares the two byte for byte and fails if they
//! differ.

mod facts;
mod protobuf;
mod shapes;
mod table;
mod text;

fn main() {
    let which = std::env::args().nth(1);
    let text = match which.as_deref() {
        Some("types") => table::table(),
        Some("text") => text::text(),
        Some("protobuf") => protobuf::numbers(),
        other => panic!("types, text or protobuf, not {other:?}"),
    };
    print!("{text}");
}
