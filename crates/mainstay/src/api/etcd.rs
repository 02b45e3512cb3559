//! The API's objects in an etcd, which other mainstays serve as well.
//!
//! Servers of one cluster have one authority and one key of service accounts: what one has signed, all
//! have to take. They are files, which are copied to each of them; the store only knows which they are, so
//! that a server with others is refused by name and breaks nothing.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use mainstay_pki::{KeyHash, Pki};
use mainstay_store::etcd::{EtcdStore, Options, User};
use mainstay_store::{Change, Durability, Expect, Store, StoreError, Write};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::tls::{self, Current, certified_pair};
use crate::config::{EtcdAddress, EtcdFlags};

/// What all keys are below. Source: the default of `--etcd-prefix`.
const PREFIX: &str = "/registry/";

/// The key that says which authority the cluster has.
const AUTHORITY: &str = "mainstay/authority";

/// Opens the store, and sees to it that this server belongs to the cluster in it.
pub(super) async fn open(
    address: &EtcdAddress,
    flags: &EtcdFlags,
    pki: &Pki,
) -> anyhow::Result<Arc<dyn Store>> {
    let options = options(address, flags)?;
    let store = EtcdStore::open(&options).await?;
    belong(&store, &said(pki)?).await?;
    Ok(Arc::new(store))
}

fn options(address: &EtcdAddress, flags: &EtcdFlags) -> anyhow::Result<Options> {
    let tls = match (address.tls, &flags.etcd_cafile) {
        (true, Some(authorities)) => {
            let shown = flags.etcd_certfile.as_deref().zip(flags.etcd_keyfile.as_deref());
            Some(Arc::new(client(authorities, shown)?))
        }
        (true, None) => {
            bail!("etcds:// needs --etcd-cafile: what the certificates of etcd are signed with")
        }
        (false, None) if flags.etcd_certfile.is_none() => None,
        (false, _) => {
            bail!("--etcd-cafile and --etcd-certfile are for TLS; name the store as etcds://...")
        }
    };
    let user = flags.etcd_auth_file.as_deref().map(user).transpose()?;
    let endpoints = address.endpoints.clone();
    Ok(Options { endpoints, tls, user, prefix: PREFIX.to_owned(), window: Default::default() })
}

/// TLS with those whose certificates these have signed, to whom this one is shown.
fn client(authorities: &Path, shown: Option<(&Path, &Path)>) -> anyhow::Result<ClientConfig> {
    let named = || format!("{} (--etcd-cafile) is not valid", authorities.display());
    let certificates: Vec<_> = CertificateDer::pem_file_iter(authorities)
        .and_then(Iterator::collect)
        .with_context(named)?;
    ensure!(
        !certificates.is_empty(),
        "{} (--etcd-cafile) has no certificate",
        authorities.display()
    );
    let of = |shown| tls::client::of(&certificates, shown).with_context(named);
    let Some((certificate, key)) = shown else { return of(None) };
    let named = || {
        format!(
            "{} and {} (--etcd-certfile, --etcd-keyfile) are not valid",
            certificate.display(),
            key.display()
        )
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(named)?;
    let key = PrivateKeyDer::from_pem_file(key).with_context(named)?;
    of(Some(Current::new(certified_pair(chain, &key).with_context(named)?)))
}

fn user(file: &Path) -> anyhow::Result<User> {
    let place = file.display();
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read {place} (--etcd-auth-file)"))?;
    let (name, password) = text
        .trim_end_matches(['\n', '\r'])
        .split_once(':')
        .filter(|(name, password)| !name.is_empty() && !password.contains('\n'))
        .with_context(|| format!("{place} (--etcd-auth-file) is not one line NAME:PASSWORD"))?;
    Ok(User { name: name.to_owned(), password: password.to_owned() })
}

/// Which keys a server has.
fn said(pki: &Pki) -> anyhow::Result<String> {
    let authority = pki.authority().certificates().first().and_then(KeyHash::of);
    let authority = authority.context("the authority's certificate cannot be read")?;
    let keys = pki.tokens().key_set();
    let key = &keys["keys"][0]["kid"];
    Ok(serde_json::json!({ "authority": authority.to_string(), "serviceAccountKey": key })
        .to_string())
}

/// Says which keys the cluster has, or sees that they are this server's.
async fn belong(store: &dyn Store, said: &str) -> anyhow::Result<()> {
    let write = Write {
        key: AUTHORITY.into(),
        expect: Expect::Absent,
        change: Change::Put(said.to_owned().into()),
        ttl: None,
    };
    match store.commit(vec![write], Durability::Synced).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { current: Some(current), .. }) if current.value == said => Ok(()),
        Err(StoreError::Conflict { current, .. }) => {
            let there = current.map(|it| String::from_utf8_lossy(&it.value).into_owned());
            bail!(
                "the cluster in this etcd has another authority or key of service accounts ({}) than this \
                 server ({said}): copy ca.crt, ca.key, sa.key and sa.pub from the pki directory of a server \
                 that belongs to it to this one's, and remove the other files there; or, if no such server is \
                 left, delete the key {PREFIX}{AUTHORITY}",
                there.unwrap_or_default()
            )
        }
        Err(other) => Err(other.into()),
    }
}

#[cfg(test)]
mod tests {
    use mainstay_store::embedded::{EmbeddedStore, Options};

    use super::*;

    #[tokio::test]
    async fn a_server_with_other_keys_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let store =
            EmbeddedStore::open(&directory.path().join("store"), Options::default()).unwrap();
        belong(&store, "a").await.unwrap();
        belong(&store, "a").await.unwrap();
        let error = belong(&store, "b").await.unwrap_err().to_string();
        assert!(error.contains("(a) than this server (b): copy ca.crt"), "{error}");
    }

    #[test]
    fn a_user_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("auth");
        for (text, expected) in [
            ("root:a:b\n", Some(("root", "a:b"))),
            ("root:\r\n", Some(("root", ""))),
            ("root", None),
            (":x", None),
            ("a:b\nc:d\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            let user = user(&file).ok();
            let user = user.as_ref().map(|it| (it.name.as_str(), it.password.as_str()));
            assert_eq!(user, expected, "{text:?}");
        }
    }
}
