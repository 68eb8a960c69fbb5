//! The service by direct calls: rules, limits, and the order of both.

use super::*;
use crate::{
    csr,
    issuer::{JoinTokenAttestor, JoinTokens},
    key::PrivateKey,
    spiffe_id::{SpiffeId, TrustDomain},
    svid::X509Svid,
};
use prost_types::{Struct, Value};
use std::time::Duration;
use tonic::Code;

struct World {
    service: CertificateService,
    tokens: JoinTokens,
    key: PrivateKey,
}

impl World {
    fn new() -> Self {
        let authority = Authority::in_memory(&TrustDomain::parse("td").unwrap()).unwrap();
        let tokens = JoinTokens::in_memory();
        let attestors = Attestors::none().and(JoinTokenAttestor::new(tokens.clone()));
        let service = CertificateService::new(Arc::new(authority), attestors);
        Self { service, tokens, key: PrivateKey::generate().unwrap() }
    }

    /// A request by the holder of a new token for `id`.
    fn request(&self, id: &str) -> Request<IstioCertificateRequest> {
        let id = SpiffeId::parse(id).unwrap();
        let token = self.tokens.create(&id, Duration::from_secs(60)).unwrap();
        let csr = csr::request(&self.key, Some(&id)).unwrap();
        let mut request =
            Request::new(IstioCertificateRequest { csr, validity_duration: 60, metadata: None });
        request.metadata_mut().insert("authorization", format!("Bearer {}", *token).parse().unwrap());
        request
    }

    async fn call(&self, request: Request<IstioCertificateRequest>) -> Result<Vec<String>, Status> {
        self.service.create_certificate(request).await.map(|response| response.into_inner().cert_chain)
    }
}

const ID: &str = "spiffe://td/ns/a/sa/b";

#[tokio::test]
async fn an_authenticated_caller_gets_leaf_and_root_for_its_own_id() {
    let world = World::new();
    let chain = world.call(world.request(ID)).await.unwrap();
    assert_eq!(chain.len(), 2);
    let svid = X509Svid::from_pem(chain[0].as_bytes(), world.key.to_pem().as_bytes()).unwrap();
    assert_eq!(svid.id().as_str(), ID);
    assert_eq!(chain[1], world.service.authority.bundle().roots().pem());
}

#[tokio::test]
async fn nobody_is_told_why_authentication_failed() {
    let world = World::new();
    let mut request = world.request(ID);
    request.metadata_mut().remove("authorization");
    let status = world.call(request).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unauthenticated, "request authenticate failure"));
}

#[tokio::test]
async fn a_token_for_another_trust_domain_is_not_honoured() {
    let world = World::new();
    let status = world.call(world.request("spiffe://other/ns/a/sa/b")).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
}

type Change = fn(&mut Request<IstioCertificateRequest>);

#[tokio::test]
async fn a_broken_request_is_refused_and_does_not_use_the_token_up() {
    fn with_metadata(request: &mut Request<IstioCertificateRequest>, key: &str) {
        let fields = [(key.to_owned(), Value { kind: None })].into();
        request.get_mut().metadata = Some(Struct { fields });
    }
    let cases: [(Code, &str, Change); 7] = [
        (Code::InvalidArgument, "not PEM", |r| r.get_mut().csr.clear()),
        (Code::InvalidArgument, "at most", |r| r.get_mut().csr.push_str(&" ".repeat(LARGEST_CSR))),
        (Code::InvalidArgument, "well-formed", |r| {
            r.get_mut().csr =
                "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into();
        }),
        (Code::InvalidArgument, "greater than the longest", |r| r.get_mut().validity_duration = i64::MAX),
        (Code::InvalidArgument, "CertSigner", |r| with_metadata(r, "CertSigner")),
        (Code::InvalidArgument, "ImpersonatedIdentity", |r| with_metadata(r, "ImpersonatedIdentity")),
        (Code::ResourceExhausted, "headers", |r| {
            r.metadata_mut().insert("x-flood", "a".repeat(LARGEST_METADATA).parse().unwrap());
        }),
    ];
    for (code, reason, change) in cases {
        let world = World::new();
        let mut request = world.request(ID);
        let bearer = request.metadata().get("authorization").unwrap().clone();
        change(&mut request);
        let status = world.call(request).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(reason), "{status:?}");

        let mut again = world.request(ID);
        again.metadata_mut().insert("authorization", bearer);
        world.call(again).await.unwrap();
    }
}

#[tokio::test]
async fn informational_metadata_of_istios_agent_is_accepted() {
    let world = World::new();
    let mut request = world.request(ID);
    let fields = ["WorkloadName", "ClusterID"].map(|key| (key.to_owned(), Value { kind: None })).into();
    request.get_mut().metadata = Some(Struct { fields });
    world.call(request).await.unwrap();
}
