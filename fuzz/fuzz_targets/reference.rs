//! The name of an image.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| mainstay_image::fuzz::reference(text));
