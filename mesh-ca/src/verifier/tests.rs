//! Who is believed, who is not, and what the refusal says.

use super::*;
use crate::testing::{Ca, Issued, Leaf};
use proptest::prelude::*;
use rcgen::{CustomExtension, ExtendedKeyUsagePurpose, KeyUsagePurpose, SanType};
use std::time::Duration;

const ID: &str = "spiffe://td/ns/a/sa/b";

fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms
}

fn judge(
    leaf: &Issued,
    above: &[&Ca],
    bundles: &TrustBundles,
    role: Role,
) -> Result<PeerCertificate, String> {
    let above: Vec<_> = above.iter().map(|ca| ca.der.clone()).collect();
    verify_svid(&leaf.der, &above, bundles, role, &algorithms(), UnixTime::now()).map_err(|e| e.to_string())
}

#[test]
fn a_chain_to_the_bundle_of_the_claimed_domain_is_believed() {
    let ca = Ca::new("root");
    let leaf = Leaf::new(ID).issue_by(&ca);
    for role in [Role::Server, Role::Client] {
        let peer = judge(&leaf, &[], &TrustBundles::of(ca.bundle("td")), role).unwrap();
        assert_eq!(peer.spiffe_id.unwrap().as_str(), ID);
    }
}

#[test]
fn a_foreign_authority_is_refused() {
    let leaf = Leaf::new(ID).issue_by(&Ca::new("root"));
    // Same name, other key: names prove nothing.
    let error = judge(&leaf, &[], &TrustBundles::of(Ca::new("root").bundle("td")), Role::Server).unwrap_err();
    assert!(error.contains(ID), "{error}");
    let error =
        judge(&leaf, &[], &TrustBundles::of(Ca::new("other").bundle("td")), Role::Server).unwrap_err();
    assert!(error.contains(ID) && error.contains("not issued by an authority"), "{error}");
}

#[test]
fn one_domains_authority_cannot_vouch_for_another_domain() {
    let (ours, theirs) = (Ca::new("ours"), Ca::new("theirs"));
    let bundles = TrustBundles::of(ours.bundle("td")).with(theirs.bundle("other"));
    let forged = Leaf::new(ID).issue_by(&theirs);
    let error = judge(&forged, &[], &bundles, Role::Client).unwrap_err();
    assert!(error.contains("not issued by an authority"), "{error}");
    judge(&Leaf::new("spiffe://other/x").issue_by(&theirs), &[], &bundles, Role::Client).unwrap();
}

#[test]
fn an_unknown_domain_or_no_id_is_refused() {
    let ca = Ca::new("root");
    let bundles = TrustBundles::of(ca.bundle("td"));
    let error =
        judge(&Leaf::new("spiffe://td.evil/x").issue_by(&ca), &[], &bundles, Role::Client).unwrap_err();
    assert!(
        error.contains("no trust bundle for td.evil") && error.contains("known trust domains: td"),
        "{error}"
    );
    let nameless = Leaf::new(ID).with(|p| p.subject_alt_names.clear()).issue_by(&ca);
    let error = judge(&nameless, &[], &bundles, Role::Client).unwrap_err();
    assert!(error.contains("no URI name"), "{error}");
}

#[test]
fn times_outside_validity_are_refused_with_both_clocks() {
    let ca = Ca::new("root");
    let bundles = TrustBundles::of(ca.bundle("td"));
    let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let leaf = Leaf::new(ID).valid(time(1_800_000_000), time(1_800_000_060)).issue_by(&ca);
    let at = |seconds| {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verify_svid(&leaf.der, &[], &bundles, Role::Server, &algorithms(), now)
    };
    at(1_800_000_000).unwrap();
    at(1_800_000_060).unwrap();
    let early = at(1_799_999_400).unwrap_err().to_string();
    assert!(early.contains("2027-01-15T08:00:00Z") && early.contains("2027-01-15T07:50:00Z"), "{early}");
    let late = at(1_800_000_061).unwrap_err().to_string();
    assert!(late.contains("expired at 2027-01-15T08:01:00Z"), "{late}");
    assert!(late.contains("clock here says 2027-01-15T08:01:01Z"), "{late}");
}

#[test]
fn intermediates_may_sign_only_if_they_say_so() {
    let root = Ca::new("root");
    let bundles = TrustBundles::of(root.bundle("td"));
    let good = root.intermediate("good", |_| {});
    judge(&Leaf::new(ID).issue_by(&good), &[&good], &bundles, Role::Server).unwrap();
    let mute = root.intermediate("mute", |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let error = judge(&Leaf::new(ID).issue_by(&mute), &[&mute], &bundles, Role::Server).unwrap_err();
    assert!(error.contains("may not sign certificates"), "{error}");
}

#[test]
fn an_intermediate_with_uri_name_constraints_that_exclude_the_id_is_refused() {
    let root = Ca::new("root");
    let constrained = root.intermediate("constrained", |params| {
        // RUSTSEC-2026-0098: webpki once waved URI names through whatever the constraint said.
        params.custom_extensions = vec![CustomExtension::from_oid_content(
            &[2, 5, 29, 30],
            // permittedSubtrees [0] { uniformResourceIdentifier [6] "elsewhere" }
            [&[0x30, 0x0f, 0xa0, 0x0d, 0x30, 0x0b, 0x86, 0x09][..], b"elsewhere"].concat(),
        )];
    });
    let bundles = TrustBundles::of(root.bundle("td"));
    judge(&Leaf::new(ID).issue_by(&constrained), &[&constrained], &bundles, Role::Server).unwrap_err();
}

#[test]
fn a_certificate_for_one_role_is_refused_in_the_other() {
    let ca = Ca::new("root");
    let bundles = TrustBundles::of(ca.bundle("td"));
    let only = |usage| Leaf::new(ID).with(|p| p.extended_key_usages = vec![usage]).issue_by(&ca);
    let (server, client) =
        (only(ExtendedKeyUsagePurpose::ServerAuth), only(ExtendedKeyUsagePurpose::ClientAuth));
    judge(&server, &[], &bundles, Role::Server).unwrap();
    judge(&server, &[], &bundles, Role::Client).unwrap_err();
    judge(&client, &[], &bundles, Role::Client).unwrap();
    judge(&client, &[], &bundles, Role::Server).unwrap_err();
}

#[test]
fn checks_name_what_was_expected_and_what_was_found() {
    let id = |uri| SpiffeId::parse(uri).unwrap();
    let peer = PeerCertificate::from_der(&Leaf::new(ID).issue().der).unwrap();
    let says = |check: ServerCheck| check.check(&peer).map_err(|e| e.to_string());
    says(ServerCheck::exact(id(ID))).unwrap();
    says(ServerCheck::any_of([id("spiffe://td/x"), id(ID)])).unwrap();
    says(ServerCheck::trust_domain(TrustDomain::parse("td").unwrap())).unwrap();
    says(ServerCheck::custom(
        |peer: &PeerCertificate| {
            if peer.uri_sans.len() == 1 { Ok(()) } else { Err("no".to_owned()) }
        },
    ))
    .unwrap();

    let error = says(ServerCheck::exact(id("spiffe://td/x"))).unwrap_err();
    assert_eq!(error, format!("expected spiffe://td/x, found {ID}"));
    let error = says(ServerCheck::any_of([id("spiffe://td/x"), id("spiffe://td/y")])).unwrap_err();
    assert_eq!(error, format!("expected one of spiffe://td/x, spiffe://td/y, found {ID}"));
    let error = says(ServerCheck::any_of([])).unwrap_err();
    assert!(error.contains("nobody"), "{error}");
    let error = says(ServerCheck::trust_domain(TrustDomain::parse("t").unwrap())).unwrap_err();
    assert!(error.contains("trust domain t,") && error.contains(ID), "{error}");
}

#[test]
fn a_server_outside_the_mesh_is_known_by_its_dns_name_or_address() {
    let ca = Ca::new("root");
    let bundle = ca.bundle("td");
    let leaf = Leaf::new(ID).with(|params| {
        params.subject_alt_names.push(SanType::DnsName("mesh.example".try_into().unwrap()));
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    });
    let leaf = leaf.issue_by(&ca);
    let judge = |name: &str, roots: &Roots| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verify_named(&leaf.der, &[], roots, &name, &algorithms(), UnixTime::now()).map_err(|e| e.to_string())
    };
    judge("mesh.example", bundle.roots()).unwrap();
    judge("127.0.0.1", bundle.roots()).unwrap();
    let error = judge("mesh.other", bundle.roots()).unwrap_err();
    assert!(error.contains("expected a certificate for mesh.other"), "{error}");
    assert!(error.contains("mesh.example") && error.contains("127.0.0.1"), "{error}");
    judge("mesh.example", Ca::new("foreign").bundle("td").roots()).unwrap_err();
}

proptest! {
    /// Every byte of a certificate counts, and none of them makes a parser panic.
    #[test]
    fn no_changed_leaf_verifies(at: proptest::sample::Index, flip in 1_u8..) {
        static MADE: std::sync::LazyLock<(Ca, Issued)> = std::sync::LazyLock::new(|| {
            let ca = Ca::new("root");
            let leaf = Leaf::new(ID).issue_by(&ca);
            (ca, leaf)
        });
        let (ca, leaf) = &*MADE;
        let mut der = leaf.der.to_vec();
        let at = at.index(der.len());
        der[at] ^= flip;
        let bundles = TrustBundles::of(ca.bundle("td"));
        let changed = CertificateDer::from(der);
        let judged = verify_svid(&changed, &[], &bundles, Role::Server, &algorithms(), UnixTime::now());
        prop_assert!(judged.is_err(), "byte {at}");
    }

    #[test]
    fn no_bytes_make_the_certificate_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
        prop_assert!(PeerCertificate::from_der(&CertificateDer::from(bytes)).is_err());
    }
}
