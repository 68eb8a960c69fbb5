//! The leaf rules, each broken alone; and what a certificate says of itself.

use super::*;
use crate::testing::Leaf;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyUsagePurpose, SanType};
use std::time::Duration;

const ID: &str = "spiffe://td/ns/a/sa/b";

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

fn email(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

fn checked(change: impl FnOnce(&mut CertificateParams)) -> Result<SpiffeId, InvalidCertificate> {
    let leaf = Leaf::new(ID).with(change).issue();
    svid_id(&parse(&leaf.der).unwrap())
}

type Mutation = Box<dyn FnOnce(&mut CertificateParams)>;

fn mutation(change: impl FnOnce(&mut CertificateParams) + 'static) -> Mutation {
    Box::new(change)
}

#[test]
fn a_sound_leaf_gives_its_id() {
    assert_eq!(checked(|_| {}).unwrap().as_str(), ID);
    // Names of other kinds do not matter.
    let with_dns = |params: &mut CertificateParams| {
        params.subject_alt_names.push(SanType::DnsName("b.a.svc".try_into().unwrap()));
    };
    assert_eq!(checked(with_dns).unwrap().as_str(), ID);
}

#[test]
fn each_rule_of_a_leaf_is_enforced_alone() {
    use KeyUsagePurpose as Usage;
    let cases: Vec<(&str, Mutation)> = vec![
        ("no URI name", mutation(|p| p.subject_alt_names.clear())),
        (
            "no URI name",
            mutation(|p| {
                p.subject_alt_names = vec![SanType::DnsName("b.a.svc".try_into().unwrap())];
            }),
        ),
        ("2 URI names", mutation(|p| p.subject_alt_names.push(uri("spiffe://td/other")))),
        ("2 URI names", mutation(|p| p.subject_alt_names.push(uri("https://td/")))),
        ("40 URI names", mutation(|p| p.subject_alt_names = vec![uri(ID); 40])),
        ("begin with", mutation(|p| p.subject_alt_names = vec![uri("https://td/ns/a/sa/b")])),
        ("a-z", mutation(|p| p.subject_alt_names = vec![uri("spiffe://TD/a")])),
        ("no path", mutation(|p| p.subject_alt_names = vec![uri("spiffe://td")])),
        ("whether it is a CA", mutation(|p| p.is_ca = IsCa::NoCa)),
        ("is a CA", mutation(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("no key usage", mutation(|p| p.key_usages.clear())),
        ("sign certificates", mutation(|p| p.key_usages.push(Usage::KeyCertSign))),
        ("revocation lists", mutation(|p| p.key_usages.push(Usage::CrlSign))),
        ("digitalSignature", mutation(|p| p.key_usages = vec![Usage::KeyEncipherment])),
        // keyUsage of digitalSignature, but not critical.
        (
            "not marked critical",
            mutation(|p| {
                p.key_usages.clear();
                p.custom_extensions =
                    vec![CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0x03, 0x02, 0x07, 0x80])];
            }),
        ),
        // A second subjectAltName, with another id.
        (
            "subject alternative name extension",
            mutation(|p| {
                let name = b"spiffe://td/evil";
                let mut content = vec![0x30, name.len() as u8 + 2, 0x86, name.len() as u8];
                content.extend_from_slice(name);
                p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
            }),
        ),
        // A second basicConstraints, saying CA.
        (
            "basic constraints extension",
            mutation(|p| {
                let content = vec![0x30, 0x03, 0x01, 0x01, 0xff];
                p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], content)];
            }),
        ),
        // A second keyUsage.
        (
            "key usage extension",
            mutation(|p| {
                let content = vec![0x03, 0x02, 0x07, 0x80];
                p.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 15], content)];
            }),
        ),
    ];
    for (reason, change) in cases {
        let error = checked(change).expect_err(reason).to_string();
        assert!(error.contains(reason), "expected `{reason}`, got `{error}`");
    }
}

#[test]
fn names_and_times_are_read() {
    let from = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let leaf = Leaf::new(ID).valid(from, from + Duration::from_secs(60)).with(|params| {
        params.subject_alt_names.push(SanType::DnsName("b.a.svc".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.subject_alt_names.push(SanType::IpAddress([0, 0, 0, 0, 0, 0, 0, 1].into()));
        params.subject_alt_names.push(email("ops@td"));
    });
    let peer = PeerCertificate::from_der(&leaf.issue().der).unwrap();
    assert_eq!(peer.spiffe_id.as_ref().unwrap().as_str(), ID);
    assert_eq!(peer.uri_sans, [ID]);
    assert_eq!(peer.dns_sans, ["b.a.svc"]);
    assert_eq!(peer.ip_sans, ["10.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
    assert_eq!(peer.email_sans, ["ops@td"]);
    assert_eq!((peer.not_before, peer.not_after), (from, from + Duration::from_secs(60)));
    assert_eq!(peer.names(), ID);
}

#[test]
fn a_certificate_that_is_no_svid_has_names_but_no_spiffe_id() {
    let leaf = Leaf::new(ID).with(|params| params.subject_alt_names.push(uri("spiffe://td/other"))).issue();
    let peer = PeerCertificate::from_der(&leaf.der).unwrap();
    assert_eq!(peer.spiffe_id, None);
    assert_eq!(peer.names(), format!("{ID}, spiffe://td/other"));
    let others = Leaf::new(ID)
        .with(|params| {
            let address = SanType::IpAddress([10, 0, 0, 1].into());
            params.subject_alt_names = vec![email("ops@td"), address];
        })
        .issue();
    assert_eq!(PeerCertificate::from_der(&others.der).unwrap().names(), "10.0.0.1, ops@td");
    let none = Leaf::new(ID).with(|params| params.subject_alt_names.clear()).issue();
    assert_eq!(PeerCertificate::from_der(&none.der).unwrap().names(), "no name at all");
}

#[test]
fn bytes_after_or_instead_of_a_certificate_are_refused() {
    let mut der = Leaf::new(ID).issue().der.to_vec();
    der.push(0);
    assert!(parse(&der).unwrap_err().to_string().contains("bytes follow"));
    assert!(matches!(parse(b"hello").unwrap_err(), InvalidCertificate::Malformed(_)));
    assert!(matches!(parse(b"").unwrap_err(), InvalidCertificate::Malformed(_)));
}
