//! The keys that tokens are signed and checked with.

use std::fmt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use serde::{Deserialize, Serialize};

use super::claims::{Accepted, Audience, Claims, TokenRequest, Verified};
use crate::authority::made;
use crate::files::{self, Mode, PkiError};
use crate::pki::Note;

const PRIVATE: &str = "sa.key";
const PUBLIC: &str = "sa.pub";
/// Bytes of a token. A real one has less than two thousand.
const MAX_TOKEN: usize = 16 << 10;
/// What the DER of every P-256 public key begins with; the point follows.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// The keys that tokens are signed and checked with.
pub struct TokenKeys {
    signing: EcdsaKeyPair,
    /// The first is that of `signing`.
    checking: Vec<PublicKey>,
}

struct PublicKey {
    /// What headers name it by.
    id: String,
    /// 0x04, x and y.
    point: Vec<u8>,
}

/// Why a token does not count. The texts are those of Kubernetes where it has any.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TokenError {
    /// It is not a token of ours at all; others may know it.
    #[error("invalid bearer token")]
    NotOurs,
    /// It says that it is ours and was not signed with one of our keys.
    #[error("invalid signature")]
    Signature,
    /// What it says is not what tokens say.
    #[error("token claims cannot be read")]
    Claims,
    /// It ended.
    #[error("service account token has expired")]
    Expired,
    /// It begins later.
    #[error("service account token is not valid yet")]
    NotYetValid,
    /// It was made later.
    #[error("service account token is issued in the future")]
    IssuedInTheFuture,
    /// It is for somebody else.
    #[error("token audiences {found:?} is invalid for the target audiences {accepted:?}")]
    Audience {
        /// Whom it is for.
        found: Vec<Audience>,
        /// Whom it should be for.
        accepted: Vec<Audience>,
    },
    /// The system gave no randomness, or the key cannot sign.
    #[error("the token could not be signed")]
    Sign,
}

#[derive(Deserialize, Serialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    /// What somebody who reads the token has to understand; we understand nothing of that kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<serde_json::Value>,
}

impl TokenKeys {
    /// Reads `sa.key` and `sa.pub` of `directory`, or makes them. `sa.pub` may hold further keys, such as
    /// those of another API server, whose tokens then count too.
    pub(crate) fn open(directory: &Path, notes: &mut Vec<Note>) -> Result<Self, PkiError> {
        let (private, public) = (directory.join(PRIVATE), directory.join(PUBLIC));
        let pem = match files::read(&private)? {
            Some(pem) => {
                if files::restrict_key(&private)? {
                    notes.push(Note::opened_to_others(&private));
                }
                pem
            }
            None => {
                let key = KeyPair::generate().map_err(made("the service-account key"))?;
                let pem = key.serialize_pem();
                files::write(&private, &pem, Mode::Secret)?;
                notes.push(Note::Made { path: private.clone() });
                pem
            }
        };
        let (signing, info) = read_private(&pem).ok_or_else(|| PkiError::Broken {
            path: private.clone(),
            what: "is not an ECDSA P-256 key in PKCS#8 form (\"PRIVATE KEY\")".to_owned(),
            remedy: "restore it from a backup or convert it with `openssl pkcs8 -topk8 -nocrypt`; or \
                     remove it: a new one is made then, and pods and users need new tokens",
        })?;
        let own = PublicKey::read(&info)
            .ok_or_else(|| made("the service-account key")(rcgen::Error::CouldNotParseKeyPair))?;
        let found = files::read(&public)?;
        let mut checking = match found.as_deref().map(read_public) {
            Some(Some(keys)) => keys,
            Some(None) => {
                let text =
                    "held something else than ECDSA P-256 public keys and has been made again \
                            from sa.key; tokens of other keys do not count any more"
                        .to_owned();
                notes.push(Note::Warning { path: public.clone(), text });
                Vec::new()
            }
            None => Vec::new(),
        };
        if checking.iter().any(|key| key.id == own.id) {
            checking.retain(|key| key.id != own.id);
        } else {
            // The key that signs comes first; the others stay.
            let mut text = public_pem(&info);
            for key in &checking {
                text.push_str(&public_pem(&key.info()));
            }
            files::write(&public, &text, Mode::Public)?;
        }
        checking.insert(0, own);
        Ok(Self { signing, checking })
    }

    /// Makes a token.
    ///
    /// # Errors
    ///
    /// When the system gives no randomness.
    pub fn sign(
        &self,
        request: &TokenRequest,
        now: Timestamp,
    ) -> Result<(String, Claims), TokenError> {
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).map_err(|_| TokenError::Sign)?;
        let claims = request.claims(uuid(id), now);
        let kid = self.checking.first().map(|key| key.id.clone()).unwrap_or_default();
        let header = Header { alg: "ES256".to_owned(), kid, crit: None };
        let mut token = encode(&header)?;
        token.push('.');
        token.push_str(&encode(&claims)?);
        let signature =
            self.signing.sign(&random, token.as_bytes()).map_err(|_| TokenError::Sign)?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        Ok((token, claims))
    }

    /// Checks that a token is genuine, counts at `now` and is for one of the accepted audiences. Whether
    /// its service account, pod, node and secret are still there is not known here.
    ///
    /// # Errors
    ///
    /// [`TokenError::NotOurs`] when it is none of ours, so that others may be asked; any other when it
    /// must be refused.
    pub fn verify(
        &self,
        token: &str,
        accepted: &Accepted<'_>,
        now: Timestamp,
    ) -> Result<Verified, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::NotOurs);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::NotOurs)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::NotOurs)?;
        let payload = decode(payload)?;
        // Nothing of this is believed yet.
        let issuer: Issuer = serde_json::from_slice(&payload).map_err(|_| TokenError::NotOurs)?;
        if !accepted.issuers.contains(&issuer.iss) {
            return Err(TokenError::NotOurs);
        }
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::NotOurs)?;
        let signature = decode(signature)?;
        // The header does not choose how it is checked: there is one way only.
        let genuine = header.alg == "ES256"
            && header.crit.is_none()
            && self
                .checking
                .iter()
                .filter(|key| header.kid.is_empty() || header.kid == key.id)
                .any(|key| key.verifies(signed.as_bytes(), &signature));
        if !genuine {
            return Err(TokenError::Signature);
        }
        let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)?;
        let audiences = claims.audiences(accepted)?;
        claims.check_time(now)?;
        Ok(Verified { claims, audiences })
    }

    /// The public keys as a JSON Web Key Set, for `/openid/v1/jwks`.
    pub fn key_set(&self) -> serde_json::Value {
        let keys: Vec<_> = self.checking.iter().map(PublicKey::json).collect();
        serde_json::json!({ "keys": keys })
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").field("keys", &self.checking.len()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default)]
    iss: String,
}

impl PublicKey {
    /// From the DER of a `SubjectPublicKeyInfo`. The name is the one that Kubernetes gives to it.
    fn read(info: &[u8]) -> Option<Self> {
        let point = info.strip_prefix(&P256)?;
        let whole = point.len() == 65 && point.first() == Some(&4);
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, info));
        whole.then(|| Self { id, point: point.to_vec() })
    }

    fn info(&self) -> Vec<u8> {
        [P256.as_slice(), &self.point].concat()
    }

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point)
            .verify(message, signature)
            .is_ok()
    }

    fn json(&self) -> serde_json::Value {
        let coordinates = self.point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        serde_json::json!({
            "use": "sig",
            "kty": "EC",
            "kid": self.id,
            "crv": "P-256",
            "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
        })
    }
}

/// The key, and the DER of its public half.
fn read_private(pem: &str) -> Option<(EcdsaKeyPair, Vec<u8>)> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let info = KeyPair::try_from(&der).ok()?.subject_public_key_info();
    let key = EcdsaKeyPair::from_pkcs8(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        der.secret_pkcs8_der(),
        &SystemRandom::new(),
    );
    Some((key.ok()?, info))
}

/// All keys; `None` if there is none, or one that cannot be used.
fn read_public(pem: &str) -> Option<Vec<PublicKey>> {
    let keys: Vec<_> = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes())
        .map(|info| PublicKey::read(&info.ok()?))
        .collect::<Option<_>>()?;
    (!keys.is_empty()).then_some(keys)
}

fn public_pem(info: &[u8]) -> String {
    // Two lines of base64: a P-256 key is always as long.
    let text = STANDARD.encode(info);
    let (first, second) = text.split_at(text.len().min(64));
    format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n")
}

fn encode(part: &impl Serialize) -> Result<String, TokenError> {
    let json = serde_json::to_vec(part).map_err(|_| TokenError::Sign)?;
    Ok(URL_SAFE_NO_PAD.encode(json))
}

fn decode(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::NotOurs)
}

/// A random (version 4) UUID.
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
