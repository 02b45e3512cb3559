//! What a container sends to the resolver, and what a server says to it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| mainstay_shim::dns::fuzz(bytes));
