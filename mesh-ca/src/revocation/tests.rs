//! What lists say of chains, and what is done where they say nothing.

use super::*;
use crate::{
    bundle::Roots,
    rustls::default_provider,
    testing::{Ca, Issued, Leaf},
    verifier::verify_outsider,
};
use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::time::{Duration, SystemTime};

const HOUR: Duration = Duration::from_secs(3600);

/// A list of this authority: these serial numbers, until then.
fn list(ca: &Ca, revoked: &[u64], ends: SystemTime) -> String {
    let revoked_certs = revoked.iter().map(|serial| RevokedCertParams {
        serial_number: SerialNumber::from(*serial),
        revocation_time: (SystemTime::now() - HOUR).into(),
        reason_code: None,
        invalidity_date: None,
    });
    let params = CertificateRevocationListParams {
        this_update: (SystemTime::now() - 2 * HOUR).into(),
        next_update: ends.into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked_certs.collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&ca.issuer).unwrap().pem().unwrap()
}

fn soon() -> SystemTime {
    SystemTime::now() + HOUR
}

fn server(ca: &Ca, serial: u64) -> Issued {
    Leaf::new("https://partner.test").with(|leaf| leaf.serial_number = Some(serial.into())).issue_by(ca)
}

fn read(pem: &str) -> RevocationLists {
    RevocationLists::from_pem(pem.as_bytes(), "/etc/crl.pem").unwrap()
}

/// The reason of a refusal, if it is one.
fn judged(root: &Ca, chain: &[CertificateDer<'static>], lists: &RevocationLists) -> Option<String> {
    let roots = Roots::new(vec![root.der.clone()]).unwrap();
    let algorithms = default_provider().signature_verification_algorithms;
    let (now, lists) = (UnixTime::now(), Some(lists));
    let verdict = verify_outsider(&chain[0], &chain[1..], &roots, lists, &algorithms, now);
    verdict.err().map(|refused| refused.to_string())
}

#[test]
fn a_certificate_that_is_listed_is_refused_and_the_file_is_named() {
    let root = Ca::new("root");
    let lists = read(&list(&root, &[7], soon()));
    assert_eq!(judged(&root, &[server(&root, 8).der], &lists), None);
    let why = judged(&root, &[server(&root, 7).der], &lists).unwrap();
    assert!(why.contains("is revoked") && why.contains("/etc/crl.pem"), "{why}");
}

#[test]
fn every_issuer_of_a_chain_needs_a_list_unless_only_the_leaf_is_looked_at() {
    let root = Ca::new("root");
    let between = root.intermediate("between", |params| params.serial_number = Some(5_u64.into()));
    let chain = [server(&between, 8).der, between.der.clone()];
    let (of_root, of_between) = (list(&root, &[], soon()), list(&between, &[], soon()));
    assert_eq!(judged(&root, &chain, &read(&format!("{of_between}{of_root}"))), None);
    let unknown = judged(&root, &chain, &read(&of_between)).unwrap();
    assert!(unknown.contains("/etc/crl.pem has no list of its issuer"), "{unknown}");
    assert_eq!(judged(&root, &chain, &read(&of_between).of_leaf()), None);
    // Who issued the leaf is revoked itself.
    let revoked = read(&format!("{of_between}{}", list(&root, &[5], soon())));
    let why = judged(&root, &chain, &revoked).unwrap();
    assert!(why.contains("is revoked"), "{why}");
    assert_eq!(judged(&root, &chain, &revoked.of_leaf()), None);
}

#[test]
fn a_list_that_has_ended_or_that_another_signed_refuses() {
    let root = Ca::new("root");
    let chain = [server(&root, 8).der];
    let ended = judged(&root, &chain, &read(&list(&root, &[], SystemTime::now() - HOUR))).unwrap();
    assert!(ended.contains("/etc/crl.pem") && ended.contains("ended at"), "{ended}");
    // Of the same name.
    let forged = judged(&root, &chain, &read(&list(&Ca::new("root"), &[], soon()))).unwrap();
    assert!(forged.contains("the list in /etc/crl.pem was not signed by the issuer"), "{forged}");
}

#[test]
fn a_text_without_lists_is_refused() {
    let fail = |pem: &str| RevocationLists::from_pem(pem.as_bytes(), "f").unwrap_err();
    assert_eq!(fail(""), InvalidLists::Empty);
    assert_eq!(fail(&Ca::new("root").pem()), InvalidLists::Empty);
    let good = list(&Ca::new("root"), &[], soon());
    // Which of the two were asked would depend on their order.
    let ca = Ca::new("other");
    let two = format!("{good}{}{}", list(&ca, &[], soon()), list(&ca, &[8], soon()));
    assert_eq!(fail(&two), InvalidLists::SameIssuer { position: 1, other: 2 });
    let broken = format!("{good}-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(matches!(fail(&broken), InvalidLists::List { position: 1, .. }));
    assert!(matches!(fail("-----BEGIN X509 CRL-----\nAAAA"), InvalidLists::Pem(_)));
}
