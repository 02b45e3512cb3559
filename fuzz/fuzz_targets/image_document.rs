//! The JSON documents of an image, from a registry or a file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mainstay_image::fuzz;

fuzz_target!(|bytes: &[u8]| {
    fuzz::document(bytes);
    fuzz::image_config(bytes);
    fuzz::docker_manifest(bytes);
    fuzz::credentials(bytes);
});
