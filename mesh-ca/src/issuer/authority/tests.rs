//! What is signed, what is not, and what is kept on disk.

use super::*;
use crate::{
    certificate::PeerCertificate,
    csr,
    verifier::{Role, verify_svid},
};
use rustls_pki_types::{UnixTime, pem::PemObject};
use std::fs;

#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;

const START: Duration = Duration::from_secs(1_800_000_000);
const DAY: Duration = Duration::from_secs(86_400);

fn domain(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

fn id(uri: &str) -> SpiffeId {
    SpiffeId::parse(uri).unwrap()
}

fn request() -> SigningRequest {
    SigningRequest::parse(&csr::request(&PrivateKey::generate().unwrap(), None).unwrap()).unwrap()
}

fn authority(clock: Clock) -> Authority {
    Authority::in_memory_with(&domain("td"), Policy::default(), clock).unwrap()
}

fn issue(authority: &Authority, lifetime: Duration) -> Result<IssuedCertificate, IssueError> {
    authority.issue(&request(), &id("spiffe://td/ns/a/sa/b"), lifetime, &ServerNames::default())
}

fn verify(leaf: &CertificateDer<'_>, bundles: &TrustBundles, now: SystemTime) -> Result<(), String> {
    let algorithms = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    for role in [Role::Server, Role::Client] {
        verify_svid(leaf, &[], bundles, role, &algorithms, now).map_err(|e| e.to_string())?;
    }
    Ok(())
}

#[test]
fn a_leaf_has_istios_shape() {
    let now = SystemTime::UNIX_EPOCH + START;
    let authority = authority(Clock::manual(now).0);
    let issued = issue(&authority, DAY).unwrap();
    verify(&issued.leaf, &authority.bundles(), now).unwrap();

    let peer = PeerCertificate::from_der(&issued.leaf).unwrap();
    assert_eq!(peer.uri_sans, ["spiffe://td/ns/a/sa/b"]);
    assert_eq!((peer.dns_sans.len(), peer.ip_sans.len()), (0, 0));
    assert_eq!(peer.not_before, now - Duration::from_secs(120));
    assert_eq!(peer.not_after, now + DAY);

    let leaf = certificate::parse(&issued.leaf).unwrap();
    let usage = leaf.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth);
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);
    assert!(leaf.subject().iter().next().is_none());
    // RFC 5280: without a subject, the names must be critical.
    assert!(leaf.subject_alternative_name().unwrap().unwrap().critical);

    assert_eq!(issued.chain.len(), 1);
    assert_eq!(CertificateDer::from_pem_slice(issued.chain[0].as_bytes()).unwrap(), issued.leaf);
    assert_eq!(issued.roots, authority.bundle().roots().pem());
}

#[test]
fn the_request_contributes_its_key_and_nothing_else() {
    // A request for another id, a CA certificate, and a name.
    let key = PrivateKey::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.subject_alt_names = vec![
        SanType::URI("spiffe://td/ns/mesh-system/sa/mesh-server".try_into().unwrap()),
        SanType::DnsName("*.td".try_into().unwrap()),
    ];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let csr = params.serialize_request(&*key.signer().unwrap()).unwrap().pem().unwrap();

    let authority = authority(Clock::system());
    let request = SigningRequest::parse(&csr).unwrap();
    let issued = authority.issue(&request, &id("spiffe://td/x"), DAY, &ServerNames::default()).unwrap();
    let peer = PeerCertificate::from_der(&issued.leaf).unwrap();
    assert_eq!(peer.spiffe_id, Some(id("spiffe://td/x")));
    assert_eq!((peer.uri_sans.len(), peer.dns_sans.len()), (1, 0));
    assert!(certificate::parse(&issued.leaf).unwrap().subject().iter().next().is_none());
    svid::X509Svid::new(vec![issued.leaf], key).unwrap();
}

#[test]
fn serial_numbers_differ_and_are_positive() {
    let authority = authority(Clock::system());
    let request = request();
    let serial = || {
        let names = ServerNames::default();
        let leaf = authority.issue(&request, &id("spiffe://td/x"), DAY, &names).unwrap().leaf;
        certificate::parse(&leaf).unwrap().raw_serial().to_vec()
    };
    let serials: std::collections::BTreeSet<_> = (0..50).map(|_| serial()).collect();
    assert_eq!(serials.len(), 50);
    assert!(serials.iter().all(|serial| serial[0] < 0x80));
}

#[test]
fn other_domains_and_ids_without_a_path_are_not_signed_for() {
    let authority = authority(Clock::system());
    let issue = |uri| authority.issue(&request(), &id(uri), DAY, &ServerNames::default()).unwrap_err();
    assert!(matches!(issue("spiffe://td.evil/x"), IssueError::OtherTrustDomain { .. }));
    assert!(matches!(issue("spiffe://td"), IssueError::NoPath(_)));
}

#[test]
fn a_leaf_never_outlives_the_root_and_an_old_root_is_renewed_with_its_key() {
    let start = SystemTime::UNIX_EPOCH + START;
    let (clock, hand) = Clock::manual(start);
    let policy = Policy { root_lifetime: 10 * DAY, ..Policy::default() };
    let authority = Authority::in_memory_with(&domain("td"), policy, clock).unwrap();
    let old = authority.bundles();
    assert_eq!(issue(&authority, 90 * DAY).unwrap().not_after, start + 10 * DAY);

    // With a fifth of its life left the root is issued again; whoever has the old one believes the new
    // leaves, and the other way round.
    hand.advance(8 * DAY + DAY / 2);
    let leaf = issue(&authority, DAY).unwrap();
    let now = authority.clock().now();
    assert_eq!(authority.root_not_after(), now + 10 * DAY);
    verify(&leaf.leaf, &old, now).unwrap();
    verify(&leaf.leaf, &authority.bundles(), now).unwrap();

    // Even one that expired unnoticed recovers.
    hand.advance(100 * DAY);
    let leaf = issue(&authority, DAY).unwrap();
    verify(&leaf.leaf, &authority.bundles(), authority.clock().now()).unwrap();
}

#[test]
fn a_root_from_the_future_does_not_sign() {
    let start = SystemTime::UNIX_EPOCH + START;
    let (clock, hand) = Clock::manual(start);
    let authority = authority(clock);
    hand.set(start - DAY);
    let error = issue(&authority, DAY).unwrap_err().to_string();
    assert!(error.contains("one of the two clocks is wrong"), "{error}");
}

#[test]
fn an_authority_on_disk_is_the_same_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let load = || Authority::load_or_create(&path, &domain("td")).unwrap();
    let first = load();
    let leaf = issue(&first, DAY).unwrap().leaf;
    let second = load();
    assert_eq!(first.bundles(), second.bundles());
    verify(&leaf, &second.bundles(), SystemTime::now()).unwrap();
    verify(&issue(&second, DAY).unwrap().leaf, &first.bundles(), SystemTime::now()).unwrap();
    let files: Vec<_> = fs::read_dir(&path).unwrap().map(|f| f.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn an_authority_whose_root_expired_on_disk_recovers_at_its_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let load = |at: SystemTime| {
        let policy = Policy { root_lifetime: 10 * DAY, ..Policy::default() };
        Authority::load_or_create_with(directory.path(), &domain("td"), policy, Clock::manual(at).0)
    };
    let start = SystemTime::UNIX_EPOCH + START;
    tighten(directory.path());
    let old = load(start).unwrap().bundles();
    let later = start + 365 * DAY;
    let leaf = issue(&load(later).unwrap(), DAY).unwrap().leaf;
    // Workloads that pinned the old root need not be touched: same name, same key.
    verify(&leaf, &old, later).unwrap();
    // And the new root was kept.
    assert_eq!(load(later).unwrap().root_not_after(), later + 10 * DAY);
}

#[test]
fn the_directory_of_another_trust_domain_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    Authority::load_or_create(&path, &domain("one.example")).unwrap();
    let error = Authority::load_or_create(&path, &domain("two.example")).unwrap_err().to_string();
    for part in [path.to_str().unwrap(), "one.example", "two.example"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn damaged_and_mismatched_files_are_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    Authority::load_or_create(&one, &domain("td")).unwrap();
    Authority::load_or_create(&two, &domain("td")).unwrap();
    let load = || Authority::load_or_create(&one, &domain("td")).unwrap_err().to_string();

    let certificate = fs::read(one.join("root-cert.pem")).unwrap();
    fs::copy(two.join("root-cert.pem"), one.join("root-cert.pem")).unwrap();
    assert!(load().contains("not the certificate of the root key"), "{}", load());
    fs::write(one.join("root-cert.pem"), "garbage").unwrap();
    assert!(load().contains("no root certificate"), "{}", load());
    fs::write(one.join("root-cert.pem"), certificate).unwrap();

    fs::rename(one.join("root-key.pem"), one.join("kept")).unwrap();
    let error = load();
    assert!(error.contains("root-key.pem does not") && error.contains("restore the key"), "{error}");
    fs::rename(one.join("kept"), one.join("root-key.pem")).unwrap();
    Authority::load_or_create(&one, &domain("td")).unwrap();

    // A start that was killed between key and certificate is finished by the next.
    fs::remove_file(one.join("root-cert.pem")).unwrap();
    Authority::load_or_create(&one, &domain("td")).unwrap();
}

#[cfg(unix)]
fn tighten(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
}

#[cfg(not(unix))]
fn tighten(_: &Path) {}

#[cfg(unix)]
#[test]
fn keys_are_private_and_exposed_ones_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let load = || Authority::load_or_create(&path, &domain("td"));
    load().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let key = path.join("root-key.pem");
    assert_eq!((mode(&path), mode(&key)), (0o700, 0o600));
    for exposed in [0o640, 0o604, 0o620] {
        set(&key, exposed);
        let error = load().unwrap_err().to_string();
        assert!(error.contains("root-key.pem") && error.contains("chmod 600"), "{error}");
    }
    set(&key, 0o400);
    load().unwrap();
    set(&path, 0o770);
    let error = load().unwrap_err().to_string();
    assert!(error.contains("change") && error.contains("chmod 700"), "{error}");
}

#[test]
fn debug_output_shows_no_key_material() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca");
    let authority = Authority::load_or_create(&path, &domain("td")).unwrap();
    let shown = format!("{authority:?}");
    let key = fs::read_to_string(path.join("root-key.pem")).unwrap();
    for line in key.lines().filter(|line| !line.starts_with('-')) {
        assert!(!shown.contains(line), "{shown}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_control_planes_own_identity_has_its_names_and_renews_itself() {
    let clock = Clock::tokio(SystemTime::UNIX_EPOCH + START);
    let authority = Arc::new(authority(clock));
    let names = ServerNames { dns: vec!["localhost".to_owned()], ips: vec!["127.0.0.1".parse().unwrap()] };
    let identity = authority.server_identity(names.clone());
    let first = identity.ready().await.unwrap();
    assert_eq!(first.id().as_str(), "spiffe://td/ns/mesh-system/sa/mesh-server");
    let peer = PeerCertificate::from_der(&first.svid().chain()[0]).unwrap();
    assert_eq!((peer.dns_sans, peer.ip_sans), (names.dns, names.ips));
    let mut watch = identity.watch();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    assert!(identity.current().unwrap().svid().not_after() > first.svid().not_after());
}
