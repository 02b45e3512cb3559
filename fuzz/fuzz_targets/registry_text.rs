//! Headers of registries, and addresses of mirrors.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_image::fuzz;

fuzz_target!(|text: &str| {
    fuzz::challenge(text);
    fuzz::endpoint(text);
});
