//! TLS contexts become configurations: who believes whom, in real handshakes.

use super::*;
use crate::testing::{authority, id, identity};
use mesh_ca::{
    issuer::{Authority, ServerNames},
    spiffe_id::TrustDomain,
};
use mesh_xds::{matcher::StringMatcher, resource::tls::SanKind};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn upstream(sans: Vec<StringMatcher>) -> UpstreamTls {
    UpstreamTls {
        identity: Some(Identity::Provider("default".into())),
        roots: Roots::Provider("default".into()),
        sans: sans.into_iter().map(Into::into).collect(),
        sni: None,
        auto_host_sni: false,
        auto_sni_san_validation: false,
        only_mesh_endpoints: false,
    }
}

fn downstream(roots: Option<&str>, required: bool) -> DownstreamTls {
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
async fn handshake(
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
        let tls = client.client_tls(&upstream(sans.clone()), None).unwrap();
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
        let tls = client.client_tls(&UpstreamTls { sans, ..upstream(vec![]) }, None).unwrap();
        let (connected, _) = handshake(&tls, server.clone()).await;
        assert_eq!(connected.is_ok(), believed, "{kind:?}: {connected:?}");
    }
}

#[tokio::test]
async fn a_refused_server_is_named_with_what_was_expected() {
    let authority = authority();
    let server = providers(&authority, "reviews").await.server_tls(&downstream(None, false)).unwrap();
    let wanted = upstream(vec![StringMatcher::exact(&id("ratings"), false)]);
    let tls = providers(&authority, "productpage").await.client_tls(&wanted, None).unwrap();
    let (connected, _) = handshake(&tls, server).await;
    let why = connected.unwrap_err();
    assert!(why.contains(&id("ratings")) && why.contains(&id("reviews")), "{why}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_never_believed() {
    let server = providers(&authority(), "reviews").await.server_tls(&downstream(None, false)).unwrap();
    let tls = providers(&authority(), "productpage").await.client_tls(&upstream(vec![]), None).unwrap();
    assert!(handshake(&tls, server).await.0.is_err());
}

#[tokio::test]
async fn a_client_without_certificate_is_refused_only_where_one_is_required() {
    let authority = authority();
    let server = providers(&authority, "reviews").await;
    let mut anonymous = upstream(vec![]);
    anonymous.identity = None;
    let tls = providers(&authority, "productpage").await.client_tls(&anonymous, None).unwrap();
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
    assert_eq!(client.client_tls(&context, Some("reviews.test")).err(), Some(TlsError::NoName));
    context.auto_host_sni = true;
    let tls = client.client_tls(&context, Some("reviews.test")).unwrap();
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
    let text = providers.client_tls(&system, None).unwrap_err().to_string();
    assert!(text.contains("`system_root_certs`: there are none"), "{text}");
    let mut unknown = upstream(vec![]);
    unknown.identity = Some(Identity::Provider("nowhere".into()));
    let text = providers.client_tls(&unknown, None).unwrap_err().to_string();
    assert!(text.contains("`nowhere`") && text.contains("known: default"), "{text}");
    let mut bad = upstream(vec![]);
    bad.sni = Some("not a name".into());
    assert_eq!(providers.client_tls(&bad, None).err(), Some(TlsError::BadName("not a name".into())));
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
    let refused = providers.client_tls(&upstream(vec![]), None).unwrap_err().to_string();
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
        client.client_tls(&context, None).unwrap()
    };
    let good = client(roots);
    handshake(&tls(&good, "reviews.test"), server.clone()).await.0.unwrap();
    let why = handshake(&tls(&good, "ratings.test"), server.clone()).await.0.unwrap_err();
    assert!(why.contains("expected ratings.test, found "), "{why}");

    let strange = crate::testing::authority();
    let strange = strange.bundles().roots(&TrustDomain::parse("cluster.local").unwrap()).unwrap().clone();
    assert!(handshake(&tls(&client(strange), "reviews.test"), server).await.0.is_err());
}
