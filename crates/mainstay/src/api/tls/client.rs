//! TLS towards servers, by whom they are believed.

use std::sync::Arc;

use anyhow::{Context, ensure};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::Current;

/// Of these authorities.
///
/// # Errors
///
/// When one of them is of no use.
pub(in crate::api) fn of(
    authorities: &[CertificateDer<'static>],
    shown: Option<Arc<Current>>,
) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).context("a certificate of an authority is of no use")?;
    }
    Ok(verified(roots, shown))
}

/// Of the authorities that the machine trusts.
///
/// # Errors
///
/// When there are none.
pub(in crate::api) fn of_machine(shown: Option<Arc<Current>>) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    ensure!(
        !roots.is_empty(),
        "this machine has no certificate authorities, and the kubeconfig names none: it needs \
         certificate-authority, or the package ca-certificates"
    );
    Ok(verified(roots, shown))
}

/// Of anybody.
///
/// # Errors
///
/// When the cryptography of this program has no version of TLS.
pub(in crate::api) fn unverified(shown: Option<Arc<Current>>) -> anyhow::Result<ClientConfig> {
    Ok(showing(mainstay_pki::unverified_client()?, shown))
}

fn verified(roots: RootCertStore, shown: Option<Arc<Current>>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has all versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    showing(config, shown)
}

fn showing(mut config: ClientConfig, shown: Option<Arc<Current>>) -> ClientConfig {
    if let Some(shown) = shown {
        config.client_auth_cert_resolver = shown;
    }
    config
}
