//! Names and identities that nobody else has.

/// Letters and digits that make no words. Source:
/// `staging/src/k8s.io/apimachinery/pkg/util/rand/rand.go`.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// Source: `randomLength` and `MaxGeneratedNameLength` in `apiserver/pkg/storage/names/generate.go`.
const SUFFIX: usize = 5;
const MAX_BASE: usize = 63 - SUFFIX;

/// A name that begins with `base`.
pub(crate) fn name(base: &str) -> String {
    let end = base.floor_char_boundary(MAX_BASE);
    let mut name = base.get(..end).unwrap_or_default().to_owned();
    for byte in bytes::<SUFFIX>() {
        let at = usize::from(byte) % ALPHABET.len();
        name.extend(ALPHABET.get(at).map(|letter| char::from(*letter)));
    }
    name
}

/// A random UUID. Source: RFC 9562, section 5.4.
pub(crate) fn uid() -> String {
    let number = u128::from_be_bytes(bytes());
    let number = number & !(0xf << 76) | (0x4 << 76);
    let number = number & !(0x3 << 62) | (0x2 << 62);
    let hex = format!("{number:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// A number below a bound, which is not 0. Of no cryptographic use.
pub(crate) fn below(bound: u32) -> u32 {
    u32::from_be_bytes(bytes()) % bound.max(1)
}

/// From 0 to 1.
pub(crate) fn fraction() -> f64 {
    f64::from(u16::from_be_bytes(bytes())) / f64::from(u16::MAX)
}

fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the kernel has random bytes since it has booted");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_have_the_form_of_version_4() {
        let uid = uid();
        assert_eq!(uid.len(), 36);
        assert_eq!(uid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uid.as_bytes()[19]));
        assert_ne!(uid, super::uid());
    }

    #[test]
    fn names_stay_names() {
        assert_eq!(name(&"a".repeat(100)).len(), 63);
        assert!(name("web-").starts_with("web-"));
    }
}
