//! What tells one template of pods from another.
//!
//! Source: `ComputeHash` in `pkg/controller/controller_utils.go`.

use k8s_openapi::api::core::v1::PodTemplateSpec;

/// What a hash is written with: no vowels, so that it says nothing. Source:
/// `staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go`.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// The same for the same template, for ever: it names what is made for a template.
///
/// It is not the number that another implementation computes from its own form of a template, and
/// needs not to be: what is there already is found by its template.
pub(crate) fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // A template without what is not set, fields and keys in the order of the alphabet. It can be
    // written as JSON always.
    let mut bytes = serde_json::to_value(template).unwrap_or_default().to_string().into_bytes();
    if let Some(collisions) = collisions {
        bytes.extend(collisions.to_le_bytes());
        bytes.extend([0; 4]);
    }
    let digits = fnv32a(&bytes).to_string().into_bytes().into_iter();
    digits.map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
