//! TLS contexts become configurations: who believes whom, in real handshakes.

use super::*;
use crate::testing::{authority, id, identity};
use mesh_ca::{
    issuer::{Authority, ServerNames},
    spiffe_id::TrustDomain,
};
use mesh_xds::{
    matcher::StringMatcher,
    resource::{
        Secret,
        secret::{PrivateKey, SecretContent, TlsCertificate, ValidationContext},
        tls::SanKind,
    },
};
use std::time::Duration;
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub(super) fn upstream(sans: Vec<StringMatcher>) -> UpstreamTls {
    UpstreamTls {
        identity: Some(Identity::Provider("default".into())),
        roots: Roots::Provider("default".into()),
        sans: sans.into_iter().map(Into::into).collect(),
        sni: None,
        crl: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    }
}

pub(super) fn downstream(roots: Option<&str>, required: bool) -> DownstreamTls {
    DownstreamTls {
        identity: "default".into(),
        client_roots: roots.map(Into::into),
        require_client_certificate: required,
    }
}

async fn providers(authority: &Arc<Authority>, account: &str) -> Providers {
    Providers::new([("default".into(), identity(authority, account).await)])
}

/// A handshake in memory: what each side makes of the other.
pub(super) async fn handshake(
    client: &ClientTls,
    server: Arc<rustls::ServerConfig>,
) -> (Result<(), String>, Result<(), String>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let connect = TlsConnector::from(client.config.clone()).connect(client.server_name.clone(), near);
    let accept = TlsAcceptor::from(server).accept(far);
    let (connected, accepted) = tokio::join!(connect, accept);
    let text = |error: std::io::Error| error.to_string();
    (connected.map(drop).map_err(text), accepted.map(drop).map_err(text))
}

#[tokio::test]
async fn a_server_is_believed_when_any_of_its_names_satisfies_any_matcher() {
    let authority = authority();
    let server =
        providers(&authority, "reviews").await.server_tls(&downstream(Some("default"), true)).unwrap();
    let client = providers(&authority, "productpage").await;
    let exact = |account: &str| StringMatcher::exact(&id(account), false);
    for (sans, believed) in [
        (vec![], true),
        (vec![exact("reviews")], true),
        (vec![exact("ratings"), exact("reviews")], true),
        (vec![exact("ratings")], false),
        (vec![StringMatcher::prefix("spiffe://cluster.local/ns/default/", false).unwrap()], true),
        (vec![StringMatcher::suffix("/sa/ratings", false).unwrap()], false),
        (vec![StringMatcher::exact("", false)], false),
    ] {
        let tls = client.client_tls(&upstream(sans.clone()), &ClusterSecrets::default(), None).unwrap();
        let (connected, _) = handshake(&tls, server.clone()).await;
        assert_eq!(connected.is_ok(), believed, "{sans:?}: {connected:?}");
    }
}

#[tokio::test]
async fn a_matcher_of_one_kind_is_not_satisfied_by_a_name_of_another() {
    let authority = authority();
    let server =
        providers(&authority, "reviews").await.server_tls(&downstream(Some("default"), true)).unwrap();
    let client = providers(&authority, "productpage").await;
    for (kind, believed) in
        [(SanKind::Uri, true), (SanKind::Dns, false), (SanKind::Email, false), (SanKind::Ip, false)]
    {
        let name = StringMatcher::suffix("reviews", false).unwrap();
        let sans = vec![SanMatcher { kind: Some(kind), name }];
        let tls = client
            .client_tls(&UpstreamTls { sans, ..upstream(vec![]) }, &ClusterSecrets::default(), None)
            .unwrap();
        let (connected, _) = handshake(&tls, server.clone()).await;
        assert_eq!(connected.is_ok(), believed, "{kind:?}: {connected:?}");
    }
}

#[tokio::test]
async fn a_refused_server_is_named_with_what_was_expected() {
    let authority = authority();
    let server = providers(&authority, "reviews").await.server_tls(&downstream(None, false)).unwrap();
    let wanted = upstream(vec![StringMatcher::exact(&id("ratings"), false)]);
    let tls = providers(&authority, "productpage")
        .await
        .client_tls(&wanted, &ClusterSecrets::default(), None)
        .unwrap();
    let (connected, _) = handshake(&tls, server).await;
    let why = connected.unwrap_err();
    assert!(why.contains(&id("ratings")) && why.contains(&id("reviews")), "{why}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_never_believed() {
    let server = providers(&authority(), "reviews").await.server_tls(&downstream(None, false)).unwrap();
    let tls = providers(&authority(), "productpage")
        .await
        .client_tls(&upstream(vec![]), &ClusterSecrets::default(), None)
        .unwrap();
    assert!(handshake(&tls, server).await.0.is_err());
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_only_where_one_is_required() {
    let authority = authority();
    let server = providers(&authority, "reviews").await;
    let mut anonymous = upstream(vec![]);
    anonymous.identity = None;
    let tls = providers(&authority, "productpage")
        .await
        .client_tls(&anonymous, &ClusterSecrets::default(), None)
        .unwrap();
    assert!(tls.reconnect_before.is_none());
    for (context, welcome) in [
        (downstream(None, false), true),
        (downstream(Some("default"), false), true),
        (downstream(Some("default"), true), false),
    ] {
        let (_, accepted) = handshake(&tls, server.server_tls(&context).unwrap()).await;
        assert_eq!(accepted.is_ok(), welcome, "{context:?}");
    }
}

#[tokio::test]
async fn the_peer_must_have_the_name_that_was_sent_when_that_is_asked_for() {
    let authority = authority();
    let client = providers(&authority, "productpage").await;
    let server = providers(&authority, "reviews").await.server_tls(&downstream(None, false)).unwrap();
    let mut context = upstream(vec![]);
    context.auto_sni_san_validation = true;
    assert_eq!(
        client.client_tls(&context, &ClusterSecrets::default(), Some("reviews.test")).err(),
        Some(TlsError::NoName)
    );
    context.auto_host_sni = true;
    let tls = client.client_tls(&context, &ClusterSecrets::default(), Some("reviews.test")).unwrap();
    assert_eq!(tls.server_name.to_str(), "reviews.test");
    // The server has a SPIFFE id and no DNS name.
    let why = handshake(&tls, server).await.0.unwrap_err();
    assert!(why.contains("expected DNS name reviews.test"), "{why}");
}

#[tokio::test]
async fn what_cannot_be_honoured_is_refused_with_the_reason() {
    let providers = providers(&authority(), "productpage").await;
    let mut system = upstream(vec![]);
    system.roots = Roots::System;
    providers.system_roots.set(Err(TlsError::SystemRoots("there are none".into()))).unwrap();
    let text = providers.client_tls(&system, &ClusterSecrets::default(), None).unwrap_err().to_string();
    assert!(text.contains("`system_root_certs`: there are none"), "{text}");
    let mut unknown = upstream(vec![]);
    unknown.identity = Some(Identity::Provider("nowhere".into()));
    let text = providers.client_tls(&unknown, &ClusterSecrets::default(), None).unwrap_err().to_string();
    assert!(text.contains("`nowhere`") && text.contains("known: default"), "{text}");
    let mut bad = upstream(vec![]);
    bad.sni = Some("not a name".into());
    assert_eq!(
        providers.client_tls(&bad, &ClusterSecrets::default(), None).err(),
        Some(TlsError::BadName("not a name".into()))
    );
    assert!(matches!(
        providers.server_tls(&downstream(Some("nowhere"), true)),
        Err(TlsError::UnknownProvider { .. })
    ));
}

#[tokio::test]
async fn a_provider_that_has_not_delivered_is_named_and_never_replaced_by_plaintext() {
    struct Broken;
    impl mesh_ca::source::Source for Broken {
        fn origin(&self) -> String {
            "a broken source".to_owned()
        }
        fn schedule(&self) -> mesh_ca::rotation::Schedule {
            mesh_ca::rotation::Schedule::Never
        }
        async fn fetch(
            &mut self,
            _: Option<&Arc<mesh_ca::workload::Identity>>,
        ) -> Result<Arc<mesh_ca::workload::Identity>, mesh_ca::source::SourceError> {
            Err(mesh_ca::source::SourceError::unavailable("no file"))
        }
    }
    let identity = WorkloadIdentity::start(Broken);
    identity.ready().await.unwrap_err();
    let providers = Providers::new([("default".into(), identity)]);
    let refused =
        providers.client_tls(&upstream(vec![]), &ClusterSecrets::default(), None).unwrap_err().to_string();
    assert!(refused.contains("no file"), "{refused}");
}

#[tokio::test]
async fn a_server_has_its_certificate_and_its_roots_from_one_provider() {
    let authority = authority();
    let providers = Providers::new([
        ("default".into(), identity(&authority, "reviews").await),
        ("other".into(), identity(&authority, "reviews").await),
    ]);
    let refused = providers.server_tls(&downstream(Some("other"), true));
    assert!(matches!(refused, Err(TlsError::SplitProviders { .. })));
}

#[tokio::test]
async fn the_systems_roots_vouch_for_a_server_of_the_right_name_only() {
    let authority = authority();
    let own = authority.server_identity(ServerNames { dns: vec!["reviews.test".into()], ips: vec![] });
    own.ready().await.unwrap();
    let server = Providers::new([("default".into(), own)]).server_tls(&downstream(None, false)).unwrap();
    let roots = authority.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().clone();
    let client = |roots| {
        let client = Providers::new([]);
        client.system_roots.set(Ok(roots)).unwrap();
        client
    };
    let tls = |client: &Providers, name: &str| {
        let sans = vec![StringMatcher::exact(name, false)];
        let context = UpstreamTls { identity: None, roots: Roots::System, ..upstream(sans) };
        client.client_tls(&context, &ClusterSecrets::default(), None).unwrap()
    };
    let good = client(roots);
    handshake(&tls(&good, "reviews.test"), server.clone()).await.0.unwrap();
    let why = handshake(&tls(&good, "ratings.test"), server.clone()).await.0.unwrap_err();
    assert!(why.contains("expected ratings.test, found "), "{why}");

    let strange = crate::testing::authority();
    let strange = strange.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().clone();
    assert!(handshake(&tls(&client(strange), "reviews.test"), server).await.0.is_err());
}

/// What a cluster has of secrets: the certificate of an account, perhaps with the key of another, and roots.
fn secrets(authority: &Authority, own: &WorkloadIdentity, sans: Vec<SanMatcher>) -> ClusterSecrets {
    let svid = own.current().unwrap().svid().clone();
    let chain = svid.chain_pem().into_bytes().into();
    let key = PrivateKey::new(svid.key().to_pem().as_bytes());
    let roots = authority.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().pem();
    let secret = |name: &str, content| Some(Arc::new(Secret { name: name.into(), content }));
    ClusterSecrets {
        identity: secret("own", SecretContent::Certificate(TlsCertificate { chain, key })),
        roots: secret(
            "roots",
            SecretContent::Validation(ValidationContext { roots: roots.into_bytes().into(), sans }),
        ),
    }
}

fn by_secrets(sans: Vec<StringMatcher>) -> UpstreamTls {
    UpstreamTls {
        identity: Some(Identity::Secret("own".into())),
        roots: Roots::Secret("roots".into()),
        ..upstream(sans)
    }
}

#[tokio::test]
async fn names_of_the_cluster_and_of_the_secret_count_together() {
    let authority = authority();
    let server =
        providers(&authority, "reviews").await.server_tls(&downstream(Some("default"), true)).unwrap();
    let own = identity(&authority, "productpage").await;
    let exact = |account: &str| StringMatcher::exact(&id(account), false);
    for (of_cluster, of_secret, believed) in [
        (vec![], vec![], true),
        (vec![exact("reviews")], vec![], true),
        (vec![], vec![exact("reviews")], true),
        (vec![], vec![exact("ratings")], false),
        (vec![exact("ratings")], vec![exact("reviews")], true),
        (vec![exact("ratings")], vec![exact("details")], false),
    ] {
        let shown = format!("{of_cluster:?} {of_secret:?}");
        let secrets = secrets(&authority, &own, of_secret.into_iter().map(SanMatcher::from).collect());
        let tls = Providers::new([]).client_tls(&by_secrets(of_cluster), &secrets, None).unwrap();
        let (connected, _) = handshake(&tls, server.clone()).await;
        assert_eq!(connected.is_ok(), believed, "{shown}: {connected:?}");
    }
}

#[tokio::test]
async fn a_secret_that_does_not_fit_fails_the_connection_and_is_named() {
    let authority = authority();
    let own = identity(&authority, "productpage").await;
    let providers = Providers::new([]);
    let refused = |secrets: &ClusterSecrets| {
        providers.client_tls(&by_secrets(vec![]), secrets, None).unwrap_err().to_string()
    };
    let good = secrets(&authority, &own, vec![]);
    assert!(providers.client_tls(&by_secrets(vec![]), &good, None).unwrap().reconnect_before.is_some());
    let text = refused(&ClusterSecrets { identity: None, ..good.clone() });
    assert!(text.contains("secret `own` of the TLS context has not come"), "{text}");
    let text = refused(&ClusterSecrets { roots: None, ..good.clone() });
    assert!(text.contains("secret `roots` of the TLS context has not come"), "{text}");

    // One for another: of another name, or of the wrong kind.
    let renamed = Secret { name: "other".into(), ..Secret::clone(good.identity.as_ref().unwrap()) };
    let text = refused(&ClusterSecrets { identity: Some(Arc::new(renamed)), ..good.clone() });
    assert!(text.contains("secret `own` of the TLS context has not come"), "{text}");
    let roots = Secret { name: "own".into(), ..Secret::clone(good.roots.as_ref().unwrap()) };
    let text = refused(&ClusterSecrets { identity: Some(Arc::new(roots)), ..good.clone() });
    assert!(text.contains("it is a validation_context, not a tls_certificate"), "{text}");

    // Its time is over.
    let ended = crate::testing::ending(&authority, "productpage", Duration::from_secs(1));
    let ended = secrets(&authority, &ended, vec![]);
    let SecretContent::Certificate(_) = &ended.identity.as_ref().unwrap().content else { unreachable!() };
    let now = std::time::SystemTime::now() + Duration::from_secs(3600);
    let error = secret::key_pair(&ended, &"own".into(), now, &default_provider()).unwrap_err().to_string();
    assert!(error.contains("secret `own` of the TLS context cannot be used: its certificate"), "{error}");
}

#[tokio::test]
async fn a_secret_of_no_use_is_rejected_by_its_field() {
    let authority = authority();
    let (own, other) = (identity(&authority, "productpage").await, identity(&authority, "reviews").await);
    let (good, other) = (secrets(&authority, &own, vec![]), secrets(&authority, &other, vec![]));
    let content = |secret: &Option<Arc<Secret>>| secret.as_ref().unwrap().content.clone();
    assert_eq!(check_secret(&content(&good.identity)), Ok(()));
    assert_eq!(check_secret(&content(&good.roots)), Ok(()));
    let (SecretContent::Certificate(one), SecretContent::Certificate(two)) =
        (content(&good.identity), content(&other.identity))
    else {
        panic!("no certificates")
    };
    let pem =
        |label: &str| format!("-----BEGIN {label}-----\nc2VjcmV0\n-----END {label}-----\n").into_bytes();
    let certificate = |chain: &[u8], key: PrivateKey| {
        SecretContent::Certificate(TlsCertificate { chain: chain.into(), key })
    };
    let roots =
        |roots: Vec<u8>| SecretContent::Validation(ValidationContext { roots: roots.into(), sans: vec![] });
    for (content, field, reason) in [
        (certificate(&one.chain, two.key.clone()), "private_key", "is not the one of the certificate"),
        (certificate(&one.chain, PrivateKey::new(&pem("PRIVATE KEY"))), "private_key", "cannot be used"),
        (certificate(&pem("CERTIFICATE"), one.key.clone()), "certificate_chain", "cannot be read"),
        (certificate(b"", one.key.clone()), "certificate_chain", "is empty"),
        (roots(pem("CERTIFICATE")), "trusted_ca", "root certificate 0 cannot be used"),
        (roots(Vec::new()), "trusted_ca", "no root certificate"),
        (roots(one.chain.to_vec()), "trusted_ca", "not a CA"),
    ] {
        let fault = check_secret(&content).unwrap_err();
        assert_eq!(fault.field, field, "{fault:?}");
        assert!(fault.reason.contains(reason) && !fault.reason.contains("c2VjcmV0"), "{fault:?}");
    }
}
