//! What a node joins another machine's API with: `ID.SECRET.HASH`.
//!
//! `ID.SECRET` is a bootstrap token of Kubernetes, as a Secret of `kube-system` has it. `HASH` is the SHA-256
//! of the public key of the authority that the API's certificate is signed by, in hex, as kubeadm's
//! `--discovery-token-ca-cert-hash` has it: whoever has the token knows whom to trust, and goes on doing so
//! when the authority's certificate is renewed.
//!
//! Source: `staging/src/k8s.io/cluster-bootstrap/token/{api,util}` and `pkg/util/pubkeypin` of kubeadm.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

/// What the names of the Secrets begin with. Source: `BootstrapTokenSecretPrefix`.
pub const BOOTSTRAP_SECRET_PREFIX: &str = "bootstrap-token-";
/// Their type. Source: `SecretTypeBootstrapToken`.
pub const BOOTSTRAP_SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Characters of the parts.
const ID: usize = 6;
const SECRET: usize = 16;
const HASH: usize = 32;

/// What the first two parts are made of. Source: `validBootstrapTokenChars`.
const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// What a node joins with. Not shown by `Debug`.
#[derive(Clone, Eq, PartialEq)]
pub struct JoinToken {
    id: String,
    secret: String,
    authority: KeyHash,
}

/// The SHA-256 of an authority's public key.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct KeyHash([u8; HASH]);

/// A text that is no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "not a join token, which is ID.SECRET.HASH with 6, 16 and 64 characters, lower case; \
     `mainstay token create`, on the machine with the API, makes one"
)]
pub struct NotAToken;

/// There are no random bytes, or the authority's certificate cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a join token cannot be made: the authority's certificate cannot be read")]
pub struct NoToken;

impl JoinToken {
    /// A new one, for a server whose certificate this authority signs.
    ///
    /// # Errors
    ///
    /// When the authority's certificate cannot be read.
    pub fn generate(authority: &CertificateDer<'_>) -> Result<Self, NoToken> {
        let authority = KeyHash::of(authority).ok_or(NoToken)?;
        let (id, secret) = (random(ID)?, random(SECRET)?);
        Ok(Self { id, secret, authority })
    }

    /// The part that is no secret.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The part that is.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whom to trust.
    pub fn authority(&self) -> KeyHash {
        self.authority
    }

    /// What is shown to the server: `ID.SECRET`.
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }
}

impl FromStr for JoinToken {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        let (bearer, hash) = text.trim().rsplit_once('.').ok_or(NotAToken)?;
        let (id, secret) = bootstrap_token(bearer).ok_or(NotAToken)?;
        Ok(Self { id: id.to_owned(), secret: secret.to_owned(), authority: hash.parse()? })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.authority)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl KeyHash {
    /// Of the key in a certificate; `None` if that cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let hash = digest(&SHA256, parsed.public_key().raw);
        hash.as_ref().try_into().ok().map(Self)
    }
}

impl FromStr for KeyHash {
    type Err = NotAToken;

    fn from_str(text: &str) -> Result<Self, NotAToken> {
        if !is_word(text, 2 * HASH) {
            return Err(NotAToken);
        }
        let mut hash = [0; HASH];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotAToken)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotAToken)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether two secrets are the same. How long it takes tells nothing of where they differ.
pub fn same_secret(one: &[u8], other: &[u8]) -> bool {
    digest(&SHA256, one).as_ref() == digest(&SHA256, other).as_ref()
}

/// The ID and the secret of a bootstrap token, `ID.SECRET`; `None` if a text does not have the form of one.
/// Source: `BootstrapTokenPattern`.
pub fn bootstrap_token(text: &str) -> Option<(&str, &str)> {
    let (id, secret) = text.split_once('.')?;
    (is_word(id, ID) && is_word(secret, SECRET)).then_some((id, secret))
}

/// Whether a text has so many characters of [`ALPHABET`].
fn is_word(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn random(length: usize) -> Result<String, NoToken> {
    let random = SystemRandom::new();
    let mut word = String::with_capacity(length);
    while word.len() < length {
        let mut byte = [0];
        random.fill(&mut byte).map_err(|_| NoToken)?;
        // The upper ones would make some characters more likely. Source: `randBytes`.
        let [byte] = byte;
        let at = usize::from(byte);
        if at < ALPHABET.len() * 7 {
            word.extend(ALPHABET.get(at % ALPHABET.len()).map(|letter| char::from(*letter)));
        }
    }
    Ok(word)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_token_names_the_key_and_not_the_certificate() {
        let key = KeyPair::generate().unwrap();
        let first = CertificateParams::default().self_signed(&key).unwrap();
        let mut renewed = CertificateParams::default();
        renewed.serial_number = Some(7u64.into());
        let renewed = renewed.self_signed(&key).unwrap();
        assert_ne!(first.der(), renewed.der());
        let token = JoinToken::generate(first.der()).unwrap();
        assert_eq!(KeyHash::of(renewed.der()), Some(token.authority()));
        let read: JoinToken = format!(" {token}\n").parse().unwrap();
        assert_eq!(read, token);
        assert!(!format!("{token:?}").contains(token.secret()));
        assert_ne!(JoinToken::generate(first.der()).unwrap().bearer(), token.bearer());
    }

    #[test]
    fn what_is_no_token() {
        let hash = "0".repeat(64);
        let good = format!("abcdef.0123456789abcdef.{hash}");
        assert!(good.parse::<JoinToken>().is_ok());
        for bad in [
            "",
            "abcdef.0123456789abcdef",
            &format!("abcdef.0123456789abcdef.{hash}.x"),
            &format!("abcde.0123456789abcdef.{hash}"),
            &format!("ABCDEF.0123456789abcdef.{hash}"),
            &format!("abcdef.0123456789abcde/.{hash}"),
            &format!("abcdef.0123456789abcdef.g{}", &hash[1..]),
            &format!("abcdef.0123456789abcdef.{}", &hash[2..]),
        ] {
            assert_eq!(bad.parse::<JoinToken>(), Err(NotAToken), "{bad:?}");
        }
    }
}
