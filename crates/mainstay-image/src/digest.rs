//! Content digests: `sha256:<hex>` and `sha512:<hex>`.
//!
//! Source: OCI image-spec v1.1, `descriptor.md`, section "Digests" and "Registered algorithms".

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A hash function that a digest may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, which practically every image uses.
    Sha256,
    /// SHA-512, the other one that the specification registers.
    Sha512,
}

/// The digest of some content: the algorithm and the lower-case hexadecimal hash.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// There is no `:` between algorithm and hash.
    #[error("digest {0:?} has no algorithm: it should look like sha256:<64 hexadecimal digits>")]
    NoAlgorithm(String),
    /// An algorithm that the OCI specification does not register.
    #[error("digest algorithm {0:?} is not supported: sha256 and sha512 are")]
    UnknownAlgorithm(String),
    /// The hash is too short, too long, or not lower-case hexadecimal.
    #[error(
        "digest {text:?} should have {expected} lower-case hexadecimal digits after {algorithm}:"
    )]
    Hash {
        /// The whole digest as it was given.
        text: String,
        /// The algorithm it names.
        algorithm: &'static str,
        /// How many digits that algorithm has.
        expected: usize,
    },
}

/// A running hash of either algorithm.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

/// A reader that counts everything that is read through it, and hashes it if asked to.
pub(crate) struct HashingReader<R> {
    inner: R,
    hasher: Option<Hasher>,
    read: u64,
}

// === impl Algorithm ===

impl Algorithm {
    /// The name as it stands in a digest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// How many hexadecimal digits a hash has.
    fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

// === impl Digest ===

impl Digest {
    /// The SHA-256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash: lower-case hexadecimal digits, safe as a file name.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Whether `bytes` are the content that this digest names.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        hasher.finish() == *self
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let Some((name, hex)) = text.split_once(':') else {
            return Err(DigestError::NoAlgorithm(text.into()));
        };
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            other => return Err(DigestError::UnknownAlgorithm(other.into())),
        };
        let digits_only = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.digits() || !digits_only {
            return Err(DigestError::Hash {
                text: text.into(),
                algorithm: algorithm.name(),
                expected: algorithm.digits(),
            });
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

// === impl Hasher ===

impl Hasher {
    /// An empty hash of `algorithm`.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => State::Sha512(sha2::Sha512::new()),
        })
    }

    /// Adds `bytes` to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything added.
    pub fn finish(self) -> Digest {
        let (algorithm, hash) = match self.0 {
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        let mut hex = String::with_capacity(algorithm.digits());
        for byte in hash {
            for nibble in [byte >> 4, byte & 0xf] {
                hex.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Digest { algorithm, hex }
    }
}

// === impl HashingReader ===

impl<R> HashingReader<R> {
    pub(crate) fn new(inner: R, algorithm: Option<Algorithm>) -> Self {
        Self { inner, hasher: algorithm.map(Hasher::new), read: 0 }
    }

    /// How many bytes were read so far.
    pub(crate) fn count(&self) -> u64 {
        self.read
    }

    /// The digest of everything read, if it was hashed.
    pub(crate) fn finish(self) -> Option<Digest> {
        self.hasher.map(Hasher::finish)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&buffer[..n]);
        }
        self.read += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: &Expect) {
        expected.assert_eq(&match text.parse::<Digest>() {
            Ok(digest) => format!("{} {}", digest.algorithm().name(), digest.hex().len()),
            Err(error) => error.to_string(),
        });
    }

    #[test]
    fn digests_name_an_algorithm_and_a_hash() {
        check(&format!("sha256:{}", "a".repeat(64)), &expect!["sha256 64"]);
        check(&format!("sha512:{}", "0".repeat(128)), &expect!["sha512 128"]);
        check(
            "",
            &expect![[
                r#"digest "" has no algorithm: it should look like sha256:<64 hexadecimal digits>"#
            ]],
        );
        check(
            "md5:00",
            &expect![[r#"digest algorithm "md5" is not supported: sha256 and sha512 are"#]],
        );
        check(
            "sha256:00",
            &expect![[
                r#"digest "sha256:00" should have 64 lower-case hexadecimal digits after sha256:"#
            ]],
        );
        check(
            &format!("sha256:{}", "A".repeat(64)),
            &expect![[
                r#"digest "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" should have 64 lower-case hexadecimal digits after sha256:"#
            ]],
        );
        check(
            &format!("sha256:../{}", "a".repeat(61)),
            &expect![[
                r#"digest "sha256:../aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" should have 64 lower-case hexadecimal digits after sha256:"#
            ]],
        );
    }

    #[test]
    fn hashes_are_those_of_sha256sum_and_sha512sum() {
        expect!["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
            .assert_eq(&Digest::of(b"abc").to_string());
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"abc");
        let digest = hasher.finish();
        expect!["sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"].assert_eq(&digest.to_string());
        assert!(digest.matches(b"abc") && !digest.matches(b"abd"));
    }
}
