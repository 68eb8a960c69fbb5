//! Evidence, good and bad.

use super::*;
use crate::{certificate::PeerCertificate, testing::Leaf};
use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

fn domain() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

fn metadata(pairs: &[(&'static str, &str)]) -> MetadataMap {
    let mut metadata = MetadataMap::new();
    for (key, value) in pairs {
        metadata.append(*key, value.parse().unwrap());
    }
    metadata
}

fn from(address: &str) -> PeerInfo {
    PeerInfo { certificate: None, address: Some(address.parse::<SocketAddr>().unwrap()) }
}

fn with_certificate(uri: &str, not_after: SystemTime) -> PeerInfo {
    let leaf = Leaf::new(uri).valid(SystemTime::UNIX_EPOCH, not_after).issue();
    PeerInfo { certificate: Some(PeerCertificate::from_der(&leaf.der).unwrap()), address: None }
}

async fn attest(
    attestor: &impl Attestor,
    metadata: &MetadataMap,
    peer: &PeerInfo,
) -> Result<String, NotAttested> {
    attestor.attest(&Evidence { metadata, peer }).await.map(|id| id.to_string())
}

fn rejection(result: Result<String, NotAttested>) -> String {
    match result {
        Err(NotAttested::Rejected(reason)) => reason,
        other => panic!("expected a rejection, found {other:?}"),
    }
}

#[tokio::test]
async fn a_bearer_token_proves_its_id_once() {
    let tokens = JoinTokens::in_memory();
    let id = SpiffeId::parse("spiffe://td/ns/a/sa/b").unwrap();
    let token = tokens.create(&id, Duration::from_secs(60)).unwrap();
    let attestor = JoinTokenAttestor::new(tokens);
    let peer = PeerInfo::default();
    let bearer = metadata(&[("authorization", &format!("Bearer {}", *token))]);
    assert_eq!(attest(&attestor, &bearer, &peer).await.unwrap(), id.as_str());
    let reason = rejection(attest(&attestor, &bearer, &peer).await);
    assert!(reason.contains("used already") && !reason.contains(&**token), "{reason}");

    assert_eq!(attest(&attestor, &metadata(&[]), &peer).await, Err(NotAttested::Absent));
    for header in ["Basic abc", "Bearer", "Bearer hello", ""] {
        rejection(attest(&attestor, &metadata(&[("authorization", header)]), &peer).await);
    }
    let two = metadata(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
    assert!(rejection(attest(&attestor, &two, &peer).await).contains("several"));
}

#[tokio::test]
async fn a_verified_certificate_proves_its_id_while_it_is_valid() {
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (clock, hand) = Clock::manual(end);
    let attestor = CertificateAttestor::new(domain(), clock);
    let none = metadata(&[]);
    let peer = with_certificate("spiffe://td/ns/a/sa/b", end);
    assert_eq!(attest(&attestor, &none, &peer).await.unwrap(), "spiffe://td/ns/a/sa/b");
    let foreign = with_certificate("spiffe://td.evil/ns/a/sa/b", end);
    assert!(rejection(attest(&attestor, &none, &foreign).await).contains("not of trust domain td"));
    let no_svid = with_certificate("https://td/", end);
    assert!(rejection(attest(&attestor, &none, &no_svid).await).contains("not a SPIFFE id"));
    assert_eq!(attest(&attestor, &none, &from("127.0.0.1:1")).await, Err(NotAttested::Absent));
    hand.advance(Duration::from_secs(1));
    assert!(rejection(attest(&attestor, &none, &peer).await).contains("expired"));
}

#[tokio::test]
async fn a_claim_is_believed_from_loopback_only() {
    let attestor = LoopbackAttestor::new(domain());
    let claim = metadata(&[(CLAIMED_NAMESPACE, "a"), (CLAIMED_SERVICE_ACCOUNT, "b")]);
    for here in ["127.0.0.1:1", "127.8.9.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert_eq!(attest(&attestor, &claim, &from(here)).await.unwrap(), "spiffe://td/ns/a/sa/b", "{here}");
    }
    for elsewhere in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1"] {
        let reason = rejection(attest(&attestor, &claim, &from(elsewhere)).await);
        assert!(reason.contains("not a loopback address"), "{reason}");
    }
    rejection(attest(&attestor, &claim, &PeerInfo::default()).await);
    assert_eq!(attest(&attestor, &metadata(&[]), &from("127.0.0.1:1")).await, Err(NotAttested::Absent));
    for (namespace, account) in
        [("mesh-system", "mesh-server"), ("mesh-system", "x"), ("a/sa/b", "c"), ("..", "x")]
    {
        let claim = metadata(&[(CLAIMED_NAMESPACE, namespace), (CLAIMED_SERVICE_ACCOUNT, account)]);
        rejection(attest(&attestor, &claim, &from("127.0.0.1:1")).await);
    }
}

#[tokio::test]
async fn attestors_are_asked_in_order_and_a_proof_spares_the_token() {
    let tokens = JoinTokens::in_memory();
    let token_id = SpiffeId::parse("spiffe://td/ns/a/sa/token").unwrap();
    let token = tokens.create(&token_id, Duration::from_secs(60)).unwrap();
    let attestors = Attestors::none()
        .and(CertificateAttestor::new(domain(), Clock::system()))
        .and(JoinTokenAttestor::new(tokens));
    let bearer = metadata(&[("authorization", &format!("Bearer {}", *token))]);
    let peer = with_certificate("spiffe://td/ns/a/sa/cert", SystemTime::now() + Duration::from_secs(60));
    let evidence = Evidence { metadata: &bearer, peer: &peer };
    let (id, proof) = attestors.attest(&evidence).await.unwrap();
    assert_eq!((id.service_account(), proof), (Some("cert"), "client certificate"));
    let evidence = Evidence { metadata: &bearer, peer: &PeerInfo::default() };
    assert_eq!(attestors.attest(&evidence).await.unwrap().0, token_id);
    let reasons = attestors.attest(&evidence).await.unwrap_err();
    assert!(reasons.contains("client certificate: not presented; join token: "), "{reasons}");
    assert!(Attestors::none().attest(&evidence).await.unwrap_err().contains("no attestor"));
}
