//! What a bootstrap may say, and what its errors say.

use super::*;
use serde_json::json;

fn minimal() -> Value {
    json!({"xds_servers": [{"server_uri": "127.0.0.1:15010", "channel_creds": [{"type": "insecure"}]}]})
}

fn parsed(value: &Value) -> Bootstrap {
    parse(&value.to_string()).unwrap()
}

fn rejection(value: &Value) -> String {
    parse(&value.to_string()).unwrap_err()
}

#[test]
fn istios_bootstrap_is_understood() {
    let bootstrap = parsed(&json!({
        "xds_servers": [{
            "server_uri": "dns:///istiod.istio-system.svc:15010",
            "channel_creds": [{"type": "google_default"}, {"type": "insecure"}],
            "server_features": ["xds_v3", "fail_on_data_errors", 7],
        }],
        "node": {
            "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local",
            "metadata": {"GENERATOR": "grpc", "LABELS": {"app": "a"}, "N": null, "B": [true, 1]},
            "locality": {"region": "r", "zone": "z"},
        },
        "certificate_providers": {
            "default": {"plugin_name": "file_watcher", "config": {
                "certificate_file": "/c.pem", "private_key_file": "/k.pem", "ca_certificate_file": "/r.pem",
                "crl_file": "/l.pem",
                "refresh_interval": "900s"}},
            "other": {"plugin_name": "of_somebody_else", "config": 3},
        },
        "server_listener_resource_name_template": "xds.istio.io/grpc/lds/inbound/%s",
    }));
    assert_eq!(bootstrap.servers[0].address, "istiod.istio-system.svc:15010");
    assert!(bootstrap.servers[0].features.fail_on_data_errors);
    assert_eq!(&*bootstrap.node.locality.zone, "z");
    assert_eq!(bootstrap.certificate_providers.len(), 1);
    let CertificateProvider::FileWatcher(files) = &bootstrap.certificate_providers["default"] else {
        panic!()
    };
    assert_eq!(files.crl_file, Some("/l.pem".into()));
    let address = "[::]:80".parse().unwrap();
    assert_eq!(bootstrap.server_listener(&address).unwrap(), "xds.istio.io/grpc/lds/inbound/[::]:80");
    assert_eq!(bootstrap.client_listener(None, "reviews:9080").unwrap(), "reviews:9080");
    let node = bootstrap.node.to_proto(&["f"]);
    assert_eq!(node.user_agent_name, "mesh-client");
    assert_eq!(node.metadata.unwrap().fields.len(), 4);
}

#[test]
fn what_is_printed_parses_to_the_same() {
    let server = ServerConfig::new(
        "localhost:15012",
        ChannelCredentials::Tls {
            ca_certificate_file: Some("/root.pem".into()),
            spiffe_trust_bundle_map_file: Some("/bundles.json".into()),
            identity: None,
            refresh_interval: Duration::from_millis(1500),
        },
    );
    let mut server = server.unwrap();
    server.call_credentials = vec![CallCredentials::JwtTokenFile("/token".into())];
    let socket = ServerConfig::new("unix:///etc/istio/proxy/XDS", ChannelCredentials::Insecure).unwrap();
    assert_eq!(socket.socket(), Some(std::path::Path::new("/etc/istio/proxy/XDS")));
    let authority =
        Authority { servers: vec![socket], fallback_on_reachability_only: true, ..Authority::new("b") };
    server.features.delta = true;
    let ca = MeshCa {
        server_uri: Some("localhost:15012".into()),
        ca_certificate_file: Some("/root.pem".into()),
        server_id: Some("spiffe://cluster.local/ns/mesh-system/sa/mesh-server".into()),
        token_file: Some("/token".into()),
        namespace: "default".into(),
        service_account: "reviews".into(),
        lifetime: Some(Duration::from_secs(16)),
        plaintext: false,
    };
    let files = FileWatcher {
        identity: Some(("/c".into(), "/k".into())),
        ca_certificate_file: None,
        crl_file: Some("/l.pem".into()),
        spiffe_trust_bundle_map_file: Some("/map".into()),
        refresh_interval: Duration::from_secs(600),
    };
    let mut node = Node { id: "n".into(), cluster: "c".into(), ..Node::default() };
    node.metadata.insert("NAMESPACE".into(), json!("default"));
    let bootstrap = Bootstrap::new(server, node)
        .with_certificate_provider("default", CertificateProvider::MeshCa(ca))
        .with_certificate_provider("files", CertificateProvider::FileWatcher(files))
        .with_authority("a", Authority::new("a"))
        .with_authority("b", authority);
    assert_eq!(parsed(&bootstrap.to_json()), bootstrap);
}

#[test]
fn every_fault_is_named_with_its_place() {
    let cases: &[(&str, Value, &str)] = &[
        ("/xds_servers", json!(null), "xds_servers is missing or empty"),
        ("/xds_servers", json!([]), "name at least one control plane"),
        ("/xds_servers", json!("x"), "xds_servers must be a list"),
        ("/xds_servers/0/server_uri", json!(null), "xds_servers[0].server_uri is missing"),
        ("/xds_servers/0/server_uri", json!(7), "xds_servers[0].server_uri must be a string"),
        ("/xds_servers/0/server_uri", json!("localhost"), "it has no port"),
        ("/xds_servers/0/server_uri", json!("xds:///x:1"), "its scheme is not supported"),
        ("/xds_servers/0/server_uri", json!("unix://"), "it names no socket"),
        ("/xds_servers/0/server_uri", json!("https://a:1"), "contradicts channel_creds `insecure`"),
        ("/xds_servers/0/channel_creds", json!([]), "xds_servers[0].channel_creds: none of its entries"),
        (
            "/xds_servers/0/channel_creds",
            json!([{"type": "google_default"}]),
            "xds_servers[0].channel_creds: none of its entries has a supported type (found google_default): use \
             `insecure` or `tls`",
        ),
        (
            "/xds_servers/0",
            json!({"server_uri": "unix:///x", "channel_creds": [{"type": "tls"}]}),
            "a socket of this machine needs no TLS",
        ),
        (
            "/xds_servers/0",
            json!({"server_uri": "a:1", "channel_creds": [{"type": "insecure"}],
                   "call_creds": [{"type": "jwt_token_file", "config": {"jwt_token_file": "/t"}}]}),
            "xds_servers[0].call_creds: a token is sent over an encrypted connection only",
        ),
        (
            "/xds_servers/0",
            json!({"server_uri": "a:1", "channel_creds": [{"type": "tls"}],
                   "call_creds": [{"type": "of_somebody_else"}, {"type": "jwt_token_file"}]}),
            "xds_servers[0].call_creds[1].config.jwt_token_file is missing",
        ),
        (
            "/xds_servers/0/channel_creds",
            json!([{"type": "tls", "config": {"certificate_file": "/c"}}]),
            "channel_creds[0].config: certificate_file and private_key_file go together",
        ),
        ("/node", json!([]), "node must be an object"),
        ("/node", json!({"metadata": 3}), "node.metadata: must be an object"),
        ("/authorities", json!([]), "authorities must be an object"),
        ("/authorities", json!({"a": 3}), "authorities.a must be an object"),
        (
            "/authorities",
            json!({"a": {"client_listener_resource_name_template": "xdstp://b/x/%s"}}),
            "authorities.a.client_listener_resource_name_template: `xdstp://b/x/%s` must start with `xdstp://a/`",
        ),
        (
            "/authorities",
            json!({"a": {"xds_servers": [{"server_uri": "b"}]}}),
            "authorities.a.xds_servers[0].channel_creds: none of its entries",
        ),
        (
            "/authorities",
            json!({"a": {"fallback_on_reachability_only": 1}}),
            "authorities.a.fallback_on_reachability_only must be true or false",
        ),
        (
            "/certificate_providers",
            json!({"default": {"plugin_name": "file_watcher", "config": {}}}),
            "certificate_providers.default.config: file_watcher names no file",
        ),
        (
            "/certificate_providers",
            json!({"d": {"plugin_name": "mesh_ca", "config": {"namespace": "n", "service_account": "s"}}}),
            "needs ca_certificate_file",
        ),
        (
            "/certificate_providers",
            json!({"d": {"plugin_name": "file_watcher",
                         "config": {"ca_certificate_file": "/c", "refresh_interval": "10"}}}),
            "refresh_interval: `10` is not a duration like \"600s\"",
        ),
    ];
    for (pointer, value, expected) in cases {
        let mut bootstrap = minimal();
        match bootstrap.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => bootstrap[pointer.trim_start_matches('/')] = value.clone(),
        }
        let text = rejection(&bootstrap);
        assert!(text.contains(expected), "{pointer} = {value}: {text}");
    }
}

#[test]
fn the_file_takes_precedence_and_its_absence_is_explained() {
    let missing = Bootstrap::from_values(None, Some("".into())).unwrap_err().to_string();
    assert!(missing.contains("GRPC_XDS_BOOTSTRAP_CONFIG"), "{missing}");
    let unreadable = Bootstrap::from_values(Some("/no/such/file".into()), Some("{}".into())).unwrap_err();
    assert!(unreadable.to_string().contains("/no/such/file"), "{unreadable}");
    let invalid = Bootstrap::from_values(None, Some("{".into())).unwrap_err().to_string();
    assert!(invalid.starts_with("GRPC_XDS_BOOTSTRAP_CONFIG is not a valid bootstrap: not JSON"), "{invalid}");
    assert!(Bootstrap::from_values(None, Some(minimal().to_string().into())).is_ok());
}

#[test]
fn listener_names_follow_the_template_of_the_authority() {
    let mut value = minimal();
    value["client_default_listener_resource_name_template"] =
        json!("xdstp://d/envoy.config.listener.v3.Listener/%s/%s");
    value["server_listener_resource_name_template"] =
        json!("xdstp://d/envoy.config.listener.v3.Listener/in/%s?x=1");
    value["authorities"] = json!({
        "a": {},
        "b": {"client_listener_resource_name_template": "xdstp://b/envoy.config.listener.v3.Listener/c/%s"},
    });
    let bootstrap = parsed(&value);
    let name = |authority: Option<&str>| bootstrap.client_listener(authority, "a b/c:80");
    assert_eq!(name(None).unwrap(), "xdstp://d/envoy.config.listener.v3.Listener/a%20b/c:80/a%20b/c:80");
    assert_eq!(name(Some("a")).unwrap(), "xdstp://a/envoy.config.listener.v3.Listener/a%20b/c:80");
    assert_eq!(name(Some("b")).unwrap(), "xdstp://b/envoy.config.listener.v3.Listener/c/a%20b/c:80");
    let error = name(Some("c")).unwrap_err().to_string();
    assert!(error.contains("`c` is not configured (known: a, b)"), "{error}");
    let server = bootstrap.server_listener(&"[::]:80".parse().unwrap()).unwrap();
    assert_eq!(server, "xdstp://d/envoy.config.listener.v3.Listener/in/%5B::%5D:80?x=1");
}

#[test]
fn what_comes_over_tls_or_from_this_machine_is_read_by_nobody_else() {
    let tls = ChannelCredentials::Tls {
        ca_certificate_file: None,
        spiffe_trust_bundle_map_file: None,
        identity: None,
        refresh_interval: Duration::from_secs(600),
    };
    assert!(ServerConfig::new("cp.test:1", tls).unwrap().is_private());
    for (uri, private) in [
        ("unix:///run/xds", true),
        ("127.0.0.1:1", true),
        ("[::1]:1", true),
        ("localhost:1", true),
        ("10.0.0.1:1", false),
        ("cp.test:1", false),
        ("127.0.0.1.test:1", false),
        ("[::]:1", false),
    ] {
        let server = ServerConfig::new(uri, ChannelCredentials::Insecure).unwrap();
        assert_eq!(server.is_private(), private, "{uri}");
    }
}
