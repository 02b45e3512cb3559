use std::net::IpAddr;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, DnType, KeyPair, PublicKeyData};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::certificate::facts;
use crate::pki::{Pki, Wanted};
use crate::renewal::{AUTHORITY_LIFE, EARLIEST_PLAUSIBLE, LEAF_LIFE};

const NOW: &str = "2027-03-04T05:06:07Z";
const CLIENT: [&str; 2] = ["digital signature", "client auth"];
const SERVING: [&str; 3] = ["digital signature", "key encipherment", "server auth"];

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn usages(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn pki() -> (tempfile::TempDir, Pki) {
    let directory = tempfile::tempdir().unwrap();
    let (pki, _) = Pki::open(directory.path(), &Wanted::default(), now()).unwrap();
    (directory, pki)
}

fn params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, "system:node:n1");
    params
}

fn pem(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().pem().unwrap().into_bytes()
}

#[test]
fn what_is_signed_is_what_was_asked_and_approved() {
    let (_directory, pki) = pki();
    let key = KeyPair::generate().unwrap();
    let mut wanted = params();
    // What a request says of itself does not count.
    wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    wanted.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    wanted.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    wanted.subject_alt_names = vec![
        SanType::DnsName(Ia5String::try_from("N1.example").unwrap()),
        SanType::IpAddress("10.0.0.7".parse().unwrap()),
    ];
    let request = pem(&wanted, &key);
    let names = ["n1.example".parse().unwrap(), IpAddr::from([10, 0, 0, 7]).into()];
    assert_eq!(RequestFacts::read(&request).unwrap().names, BTreeSet::from(names));
    for (words, client) in [(&CLIENT[..], true), (&SERVING[..], false)] {
        let life = SignedDuration::from_hours(24);
        let signed = pki.authority().sign(&request, &usages(words), life, now()).unwrap();
        let certificate = CertificateDer::from_pem_slice(signed.as_bytes()).unwrap();
        let own = pki.authority().own();
        let facts = facts(&certificate, Some(&own), &key.subject_public_key_info()).unwrap();
        assert!(facts.by_authority && facts.key_matches && !facts.is_authority);
        assert_eq!((facts.client_auth, facts.server_auth), (client, !client));
        assert_eq!(facts.common_name, "system:node:n1");
        assert_eq!(facts.organizations, ["system:nodes"]);
        assert_eq!(facts.not_before, now() - SignedDuration::from_hours(2));
        assert_eq!(facts.not_after, now() + life);
    }
}

#[test]
fn lives_end_with_the_authority_and_begin_in_proportion() {
    let hour = SignedDuration::from_hours(1);
    let (from, to) = signed_validity(hour, now());
    assert_eq!((from, to), (now() - hour / 12, now() + hour));
    let (from, _) = signed_validity(LEAF_LIFE, now());
    assert_eq!(from, now() - SignedDuration::from_hours(24 * 30));
    // While the clock is not set they are good now, and once it is set.
    let (from, to) = signed_validity(hour, Timestamp::UNIX_EPOCH);
    assert!(from == Timestamp::UNIX_EPOCH && to > EARLIEST_PLAUSIBLE);
    let (_directory, pki) = pki();
    let (key, usages) = (KeyPair::generate().unwrap(), usages(&CLIENT));
    let signed = pki.authority().sign(&pem(&params(), &key), &usages, AUTHORITY_LIFE * 2, now());
    let certificate = CertificateDer::from_pem_slice(signed.unwrap().as_bytes()).unwrap();
    let ends = facts(&certificate, None, &key.subject_public_key_info()).unwrap().not_after;
    assert_eq!(ends, pki.authority().not_after());
    let late = pki.authority().not_after() + hour;
    let refused = pki.authority().sign(&pem(&params(), &key), &usages, hour, late);
    assert_eq!(refused.unwrap_err().to_string(), "the authority's certificate has ended");
}

#[test]
fn what_cannot_be_written_is_not_signed() {
    let (_directory, pki) = pki();
    let key = KeyPair::generate().unwrap();
    let mut mail = params();
    mail.subject_alt_names = vec![SanType::Rfc822Name(Ia5String::try_from("a@b").unwrap())];
    assert!(RequestFacts::read(&pem(&mail, &key)).unwrap().other_names);
    let good = pem(&params(), &key);
    let mut forged = good.clone();
    // Another letter of the signature's base64.
    let at = forged.len() - 40;
    forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
    for (request, words) in [
        (pem(&mail, &key), &CLIENT[..]),
        (good.clone(), &["cert sign"][..]),
        (forged, &CLIENT[..]),
        (b"none".to_vec(), &CLIENT[..]),
    ] {
        let life = SignedDuration::from_hours(1);
        let signed = pki.authority().sign(&request, &usages(words), life, now());
        assert!(matches!(signed, Err(SignError::Unfit(_))), "{signed:?}");
    }
    // Several organizations, in DER: rcgen makes none, so one name is written over another.
    let mut twice = params();
    twice.distinguished_name.push(DnType::OrganizationalUnitName, "masters");
    let der = twice.serialize_request(&key).unwrap().der().to_vec();
    let unit = [0x55, 0x04, 0x0b];
    let at = der.windows(3).position(|it| it == unit).unwrap();
    let mut doubled = der.clone();
    doubled[at + 2] = 0x0a;
    let error = one_of_each(&doubled).unwrap_err().to_string();
    assert!(error.contains("several organizations"), "{error}");
    assert!(one_of_each(&der).is_ok());
}
