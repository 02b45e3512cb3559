//! Links the shim at a fixed address.
//!
//! A position-independent program pays for every address in its tables with a page of its own in
//! each process, and there is one of these processes for each pod. What the shim gives up by it is
//! the random place of its code; it has no `unsafe` of its own and reads nothing but frames from
//! the engine and bytes that it passes on.

fn main() {
    println!("cargo:rustc-link-arg-bins=-no-pie");
    println!("cargo:rerun-if-changed=build.rs");
}
