//! Secrets on the wire and in memory: asked for by clusters, rejected alone, and shown to nobody.

use super::*;
use crate::{
    client::{ResourceState, store::Kept},
    resource::{
        Feature, Secret, Support,
        secret::{SecretContent, SecretFault},
    },
};
use ResourceType::{Cluster, ClusterLoadAssignment, Secret as SDS};
use std::time::Duration;

/// What a data path that knows cryptography might say.
fn check(content: &SecretContent) -> Result<(), SecretFault> {
    match content {
        SecretContent::Certificate(certificate)
            if certificate.key.pem().windows(5).any(|at| at == b"wrong") =>
        {
            Err(SecretFault { field: "private_key", reason: "it is another certificate's".to_owned() })
        }
        _ => Ok(()),
    }
}

fn parser() -> Resources {
    let support = Support::of(&[Feature::Sds]);
    Resources { context: ParseContext { support, secrets: check, ..ParseContext::default() } }
}

fn core(stored: Stored<AnyResource>) -> Core<Resources> {
    let settings = Settings { max_resource_bytes: 1 << 20, ..testing::settings(Variant::Sotw) };
    let server = ServerConfig::new("cp:1", ChannelCredentials::Insecure).unwrap();
    let plan = Plan::new(&Bootstrap::new(server, Node::default()));
    let machine = |_: &ServerConfig| Machine::new(parser(), settings.clone());
    Core::new(Federation::new(plan, stored, machine))
}

type Published = crate::client::slot::Reader<ClusterConfig>;

/// The cluster `a` is watched, and there, with endpoints.
fn watched() -> (Core<Resources>, Published) {
    let mut core = core(Stored::none());
    let now = Instant::now();
    let (slot, receiver) = Slot::new();
    let receiver = receiver.reader();
    core.command(now, [Command::WatchCluster { id: 1, cluster: "a".into(), slot }]);
    core.on(now, 0, Input::Opened);
    let outputs = core.on(now, 0, response(Cluster, &[secured("a", "own", "roots")]));
    assert_eq!(asked(&outputs), [(Cluster, 1), (ClusterLoadAssignment, 1), (SDS, 2)], "over the same stream");
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("a", 1)]));
    assert!(receiver.borrow().is_none(), "it waits for its secrets");
    (core, receiver)
}

fn key(published: &Published) -> String {
    let config = published.borrow().clone().unwrap().unwrap();
    let SecretContent::Certificate(certificate) = &config.secrets.identity.as_ref().unwrap().content else {
        panic!("no certificate")
    };
    String::from_utf8(certificate.key.pem().to_vec()).unwrap()
}

#[test]
fn a_secret_that_cannot_be_used_is_rejected_and_the_earlier_one_stays() {
    let (mut core, mut published) = watched();
    let now = Instant::now();
    let nack = |actions: &Actions| {
        actions.io.iter().find_map(|(_, action)| match action {
            Action::Send(Request::Sotw(request)) => request.error_detail.clone(),
            _ => None,
        })
    };
    let outputs = core.on(now, 0, response(SDS, &[key_pair("own", "first"), secret_roots("roots", "one")]));
    assert_eq!(nack(&outputs), None);
    assert!(key(&published).contains("first"));

    let outputs = core.on(now, 0, response(SDS, &[key_pair("own", "wrong"), secret_roots("roots", "two")]));
    let said = nack(&outputs).unwrap().message;
    assert_eq!(said, "Secret own: tls_certificate.private_key: it is another certificate's");
    let config = published.borrow_and_update().clone().unwrap().unwrap();
    assert!(key(&published).contains("first"), "the earlier one stays");
    assert!(config.note.as_ref().unwrap().contains("another certificate's"), "{:?}", config.note);
    let AnyResource::Secret(second) = secret_roots("roots", "two") else { unreachable!() };
    assert_eq!(config.secrets.roots, Some(second), "its neighbour is taken");

    core.on(now, 0, response(SDS, &[key_pair("own", "second")]));
    assert!(key(&published).contains("second"));
    assert_eq!(published.borrow().clone().unwrap().unwrap().note, None);
}

#[test]
fn a_key_is_neither_shown_nor_printed_nor_kept() {
    let (mut core, _published) = watched();
    let now = Instant::now();
    core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN"), secret_roots("roots", "one")]));
    core.on(now, 0, response(SDS, &[key_pair("own", "wrongHIDDEN")]));

    let status = core.federation.status(|_| 0.0);
    let own = status.iter().find(|status| &*status.name == "own").unwrap();
    assert_eq!((own.kind, own.state), ("SDS", ResourceState::Nacked));
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"HIDDEN");
    let body = own.body.clone().unwrap();
    assert!(!holds(&body) && body.windows(10).any(|window| window == b"[redacted]"), "{body:?}");
    assert!(!format!("{status:?}").contains("HIDDEN"));
    let known = core.federation.known(SDS, "own");
    assert!(!format!("{known:?}").contains("HIDDEN") && format!("{known:?}").contains("redacted"));

    // Of the bytes that came a mark is left, by which they are known again.
    let (_, machine) = core.federation.machines().next().unwrap();
    let (_, mark, resource) = machine.good(SDS, "own").unwrap();
    assert_eq!(mark.len(), 16);
    assert!(holds(&resource.to_proto()));
    let again = core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN")]));
    assert!(again.changed.contains(&(SDS, "own".into())), "the fault is over");
    let again = core.on(now, 0, response(SDS, &[key_pair("own", "HIDDEN")]));
    assert!(again.changed.is_empty(), "it is known again");

    let kept: Vec<_> = core.federation.accepted().into_iter().map(|accepted| accepted.key).collect();
    assert!(kept.iter().any(|(kind, _)| *kind == Cluster) && kept.iter().all(|(kind, _)| *kind != SDS));
}

/// gRPC ignores certificates beside the name of a provider (gRFC A29), and filters that are optional; both may come with
/// keys, which are for nobody then. What is rejected is not shown, and no reason quotes it.
#[test]
fn a_key_in_what_a_parser_ignores_or_rejects_is_not_shown() {
    use envoy_types::pb::{
        envoy::{
            config::{
                cluster::v3::Cluster as ClusterProto,
                core::v3::{
                    DataSource, TransportSocket, data_source::Specifier, transport_socket::ConfigType,
                },
                listener::v3::Listener as ListenerProto,
            },
            extensions::{
                filters::network::http_connection_manager::v3::{
                    HttpConnectionManager, HttpFilter, http_filter::ConfigType as FilterConfig,
                },
                transport_sockets::tls::v3::{
                    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext,
                    TlsCertificate, UpstreamTlsContext, common_tls_context::ValidationContextType,
                },
            },
        },
        google::protobuf::Any,
    };
    use prost::{Message, Name};
    const CDS: ResourceType = Cluster;
    const LDS: ResourceType = ResourceType::Listener;
    let holds = |bytes: &[u8]| bytes.windows(6).any(|window| window == b"HIDDEN");
    let inline = |specifier| Some(DataSource { specifier: Some(specifier), ..DataSource::default() });
    let provider =
        CertificateProviderPluginInstance { instance_name: "default".into(), ..Default::default() };
    // With a provider it is ignored, without one rejected.
    let cluster = |provider: Option<CertificateProviderPluginInstance>| {
        let certificate = TlsCertificate {
            private_key: inline(Specifier::InlineBytes(b"HIDDEN".to_vec())),
            password: inline(Specifier::InlineString("HIDDEN".into())),
            ..TlsCertificate::default()
        };
        let validation = CertificateValidationContext {
            ca_certificate_provider_instance: Some(CertificateProviderPluginInstance {
                instance_name: "default".into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let context = UpstreamTlsContext {
            common_tls_context: Some(CommonTlsContext {
                tls_certificate_provider_instance: provider,
                tls_certificates: vec![certificate],
                validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
                ..Default::default()
            }),
            ..Default::default()
        };
        let any = Any { type_url: UpstreamTlsContext::type_url(), value: context.encode_to_vec() };
        let mut message = ClusterProto::decode(crate::config::testing::cluster("a").to_proto()).unwrap();
        message.transport_socket = Some(TransportSocket {
            name: "envoy.transport_sockets.tls".into(),
            config_type: Some(ConfigType::TypedConfig(any)),
        });
        message.encode_to_vec()
    };
    let mut message = ListenerProto::decode(listener("t", "r").to_proto()).unwrap();
    let manager = message.api_listener.as_mut().unwrap().api_listener.as_mut().unwrap();
    let mut inner = HttpConnectionManager::decode(manager.value.as_slice()).unwrap();
    let unknown = Any { type_url: "type.googleapis.com/some.Filter".into(), value: b"HIDDEN".to_vec() };
    let filter = HttpFilter {
        name: "some".into(),
        is_optional: true,
        config_type: Some(FilterConfig::TypedConfig(unknown)),
        ..HttpFilter::default()
    };
    inner.http_filters.insert(0, filter);
    manager.value = inner.encode_to_vec();
    let listener = message.encode_to_vec();
    let send = |kind: ResourceType, body: Vec<u8>| {
        assert!(holds(&body));
        Input::Response(Response::Sotw(proto::DiscoveryResponse {
            version_info: "1".into(),
            nonce: "1".into(),
            type_url: kind.url().into(),
            resources: vec![proto::Any { type_url: kind.url().into(), value: body.into() }],
            ..Default::default()
        }))
    };

    let settings = Settings { max_resource_bytes: 1 << 20, ..testing::settings(Variant::Sotw) };
    let context = || ParseContext {
        certificate_providers: ["default".into()].into_iter().collect(),
        ..ParseContext::default()
    };
    let server = ServerConfig::new("cp:1", ChannelCredentials::Insecure).unwrap();
    let plan = Plan::new(&Bootstrap::new(server, Node::default()));
    let machine = |_: &ServerConfig| Machine::new(Resources { context: context() }, settings.clone());
    let mut core = Core::new(Federation::new(plan, Stored::none(), machine));
    let now = Instant::now();
    let (clusters, _cluster) = Slot::new();
    let (configs, _config) = Slot::new();
    let client = Command::WatchClient { id: 2, listener: "t".into(), authority: "t".into(), slot: configs };
    core.command(now, [Command::WatchCluster { id: 1, cluster: "a".into(), slot: clusters }, client]);
    core.on(now, 0, Input::Opened);
    core.on(now, 0, send(CDS, cluster(Some(provider))));
    core.on(now, 0, send(LDS, listener));
    let shown = |core: &Core<Resources>, state| {
        let status = core.federation.status(|_| 0.0);
        assert!(!format!("{status:?}").contains("HIDDEN"));
        for name in ["a", "t"] {
            let one = status.iter().find(|one| &*one.name == name && one.body.is_some()).unwrap();
            assert!(!holds(one.body.as_ref().unwrap()), "{name}");
        }
        let one = status.iter().find(|one| one.resource_type == CDS).unwrap();
        assert_eq!(one.state, state);
    };
    shown(&core, ResourceState::Acked);
    for kind in [CDS, LDS] {
        let (_, machine) = core.federation.machines().next().unwrap();
        let (_, mark, _) = machine.good(kind, if kind == CDS { "a" } else { "t" }).unwrap();
        assert_eq!(mark.len(), 16, "nor do the bytes stay");
    }

    let outputs = core.on(now, 0, send(CDS, cluster(None)));
    let said = outputs.io.iter().find_map(|(_, action)| match action {
        Action::Send(Request::Sotw(request)) => request.error_detail.clone(),
        _ => None,
    });
    let said = said.unwrap().message;
    assert!(said.contains("tls_certificates[0]") && !said.contains("HIDDEN"), "{said}");
    shown(&core, ResourceState::Nacked);
}

/// A cluster from disk needs a secret, which is never there: it is an error at once, and costs no other cluster.
#[test]
fn a_cluster_from_disk_waits_for_its_secrets() {
    let kept = |resource: AnyResource| {
        let key = (resource.resource_type(), resource.name().clone());
        let body = resource.to_proto();
        (key, Kept { resource, version: "old".into(), body, server: "cp:1".into(), confirmed: 0.0 })
    };
    let disk = [
        listener("t", "r"),
        crate::config::testing::routes("r", &[("t", &["a", "b"])]),
        secured("a", "own", "roots"),
        endpoints("a", 1),
        cluster("b"),
        endpoints("b", 2),
    ];
    let mut core = core(Stored::of(disk.into_iter().map(kept).collect(), "/cache", 1));
    let mut now = Instant::now();
    let (slot, published) = Slot::new();
    let published = published.reader();
    core.command(now, [Command::WatchClient { id: 1, listener: "t".into(), authority: "t".into(), slot }]);
    core.on(now, 0, Input::Closed("refused".into()));
    let config = published.borrow().clone().unwrap().unwrap();
    assert!(config.clusters["b"].is_ok());
    let error = config.clusters["a"].as_ref().unwrap_err().to_string();
    assert!(error.contains("Secret own is not known: control plane unreachable: refused"), "{error}");

    // It answers: what it says replaces the view from disk once it is complete.
    now += Duration::from_secs(60);
    core.tick(now);
    core.on(now, 0, Input::Opened);
    core.on(now, 0, response(ResourceType::Listener, &[listener("t", "r")]));
    let routes = crate::config::testing::routes("r", &[("t", &["a"])]);
    core.on(now, 0, response(ResourceType::RouteConfiguration, &[routes]));
    core.on(now, 0, response(Cluster, &[secured("a", "own", "roots")]));
    core.on(now, 0, response(ClusterLoadAssignment, &[endpoints("a", 1)]));
    core.on(now, 0, response(SDS, &[key_pair("own", "first"), secret_roots("roots", "one")]));
    let config = published.borrow().clone().unwrap().unwrap();
    assert!(config.clusters["a"].as_ref().unwrap().secrets.identity.is_some());
}

/// A control plane that is connected and silent is not waited for either.
#[test]
fn a_silent_control_plane_delays_nothing_of_a_view_from_disk() {
    let AnyResource::Secret(own) = key_pair("own", "x") else { unreachable!() };
    let secret: &Secret = &own;
    let kept = |resource: AnyResource| {
        let key = (resource.resource_type(), resource.name().clone());
        let body = resource.to_proto();
        (key, Kept { resource, version: "old".into(), body, server: "cp:1".into(), confirmed: 0.0 })
    };
    let disk = [secured("a", &secret.name, "roots"), endpoints("a", 1)];
    let mut core = core(Stored::of(disk.into_iter().map(kept).collect(), "/cache", 1));
    let now = Instant::now();
    let (slot, published) = Slot::new();
    let published = published.reader();
    core.command(now, [Command::WatchCluster { id: 1, cluster: "a".into(), slot }]);
    core.on(now, 0, Input::Opened);
    core.tick(now + Duration::from_secs(15));
    let error = published.borrow().clone().unwrap().unwrap_err().to_string();
    assert!(error.contains("no control plane has sent it, and secrets are not kept on disk"), "{error}");
}
