//! DestinationRule: validation, and how policies override each other.

use proptest::prelude::*;

use super::*;
use crate::model::Object;
use crate::model::fixture::{assert_refused, lines, object, parsed};

fn read(spec: &str) -> std::sync::Arc<DestinationRule> {
    let parsed = parsed(&object("DestinationRule", spec));
    match parsed.objects.as_slice() {
        [Object::DestinationRule(object)] => object.clone(),
        _ => panic!("refused: {:#?}", lines(&parsed)),
    }
}

fn policy(fields: &str) -> String {
    format!("host: a\ntrafficPolicy: {fields}")
}

#[test]
fn every_field_of_a_policy_is_read() {
    let rule = read(
        "
host: reviews
exportTo: [.]
workloadSelector: {matchLabels: {app: productpage}}
trafficPolicy:
  loadBalancer:
    simple: LEAST_REQUEST
    localityLbSetting:
      failover: [{from: eu, to: us}]
      failoverPriority: [rack, 'tier=gold']
  connectionPool:
    tcp: {maxConnections: 0, connectTimeout: 1s, idleTimeout: 0s, tcpKeepalive: {probes: 3, time: 60s, interval: 5s}}
    http:
      http1MaxPendingRequests: 7
      http2MaxRequests: 10
      maxRequestsPerConnection: 100
      maxRetries: 2
      idleTimeout: 30s
      maxConcurrentStreams: 50
      http2KeepAlive: {interval: 10s, timeout: 2s}
  outlierDetection:
    consecutive5xxErrors: 0
    consecutiveGatewayErrors: 4
    splitExternalLocalOriginErrors: true
    consecutiveLocalOriginFailures: 6
    interval: 1s
    baseEjectionTime: 3s
    maxEjectionPercent: 100
    minHealthPercent: 50
  tls: {mode: ISTIO_MUTUAL, subjectAltNames: [spiffe://a/b], sni: x}
  retryBudget: {percent: 30, minRetryConcurrency: 5, budgetInterval: 10s}
  portLevelSettings:
  - port: {number: 9080}
    loadBalancer: {simple: RANDOM}
subsets:
- name: v1
  labels: {version: v1}
",
    );
    let policy = rule.policy.as_ref().expect("policy");
    let pool = policy.blocks.connection_pool.as_ref().expect("pool");
    assert_eq!(pool.max_connections, None, "zero is not said");
    assert_eq!(
        (pool.max_requests, pool.max_pending_requests, pool.max_retries),
        (Some(10), Some(7), Some(2))
    );
    assert_eq!(pool.tcp_idle_timeout, Some(Duration::ZERO));
    let outlier = policy.blocks.outlier_detection.as_ref().expect("outlier detection");
    assert_eq!(outlier.consecutive_5xx_errors, Some(0), "zero switches it off");
    assert_eq!((outlier.consecutive_local_origin_failures, outlier.min_health_percent), (Some(6), 50));
    let balancer = policy.blocks.load_balancer.as_ref().expect("load balancer");
    assert_eq!(balancer.algorithm, Some(Algorithm::LeastRequest));
    let locality = balancer.locality.as_ref().expect("locality");
    assert_eq!(locality.failover, [("eu".to_owned(), "us".to_owned())]);
    assert_eq!(locality.failover_priority[1].value.as_deref(), Some("gold"));
    assert_eq!(policy.blocks.tls.as_ref().map(|tls| tls.mode), Some(TlsMode::IstioMutual));
    assert_eq!(policy.retry_budget.map(|budget| budget.percent), Some(30.0));
    assert_eq!(
        policy.ports[&9080].load_balancer.as_ref().and_then(|balancer| balancer.algorithm),
        Some(Algorithm::Random)
    );
    assert_eq!(rule.subset("v1").map(|subset| subset.labels["version"].as_str()), Some("v1"));
}

#[test]
fn what_clients_do_not_follow_is_said_and_the_rest_is_served() {
    let keepalive = policy("{connectionPool: {tcp: {tcpKeepalive: {probes: 3, time: 60s}}}}");
    let budget = policy("{retryBudget: {percent: 30, budgetInterval: 10s}}");
    let cases = [
        (keepalive, vec![]),
        (policy("{connectionPool: {tcp: {tcpKeepalive: {}}}}"), vec![]),
        (policy("{retryBudget: {budgetInterval: 0s}}"), vec![]),
        (policy("{outlierDetection: {outlierDetectionHttpErrorCodes: []}}"), vec![]),
        (budget, vec!["MESH0001 warning 6:46 not supported by this version: `budgetInterval`"]),
    ];
    for (spec, expected) in cases {
        let parsed = parsed(&object("DestinationRule", &spec));
        let found = lines(&parsed);
        let same = found.iter().zip(&expected).all(|(found, expected)| found.starts_with(expected));
        assert!(same && found.len() == expected.len(), "{found:#?}");
        assert_eq!(parsed.objects.len(), 1);
    }
}

#[test]
fn invalid_rules_are_refused_where_they_are_wrong() {
    let cases: &[(&str, &str)] = &[
        ("subsets: []", "5:3 a DestinationRule needs `host`"),
        ("host: a\nsubsets: [{name: v1}, {name: v1}]", "6:32 subset `v1` is defined twice"),
        ("host: a\nsubsets: [{labels: {a: b}}]", "6:13 a subset needs `name`"),
        ("host: a\nsubsets: [{name: v1, labels: {version: 1}}]", "6:42 expected a text, found the number 1"),
        (
            "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: ['*']",
            "7:3 a rule with `workloadSelector`",
        ),
        (&policy("{}"), "6:18 trafficPolicy must say something"),
        (&policy("{loadBalancer: {simple: ROUNDROBIN}}"), "6:42 `ROUNDROBIN` is no load balancer"),
        (&policy("{connectionPool: {}}"), "6:35 connectionPool needs `tcp` or `http`"),
        (
            &policy("{connectionPool: {http: {http2KeepAlive: {interval: 1s}}}}"),
            "6:59 http2KeepAlive needs `timeout`",
        ),
        (&policy("{connectionPool: {tcp: {connectTimeout: 0s}}}"), "6:58 must be at least 1ms"),
        (
            &policy("{outlierDetection: {consecutiveLocalOriginFailures: 1}}"),
            "6:38 `consecutiveLocalOriginFailures` needs",
        ),
        (&policy("{outlierDetection: {maxEjectionPercent: 101}}"), "6:58 101 is out of range"),
        (
            &policy("{outlierDetection: {outlierDetectionHttpErrorCodes: [600]}}"),
            "6:71 600 is out of range: 100 to 599",
        ),
        (
            &policy("{tls: {mode: ISTIO_MUTUAL, privateKey: a}}"),
            "6:45 ISTIO_MUTUAL uses the mesh's identity: remove `privateKey`",
        ),
        (
            &policy("{tls: {mode: MUTUAL, privateKey: a, caCertificates: b}}"),
            "6:25 MUTUAL needs `clientCertificate`",
        ),
        (
            &policy("{tls: {mode: MUTUAL, clientCertificate: a, caCertificates: b}}"),
            "6:25 MUTUAL needs `privateKey`",
        ),
        (
            &policy("{tls: {mode: SIMPLE, privateKey: a}}"),
            "6:39 SIMPLE shows no certificate: remove `privateKey`",
        ),
        (
            &policy("{portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]}"),
            "6:61 port 1 has two portLevelSettings",
        ),
        (&policy("{portLevelSettings: [{tls: {mode: DISABLE}}]}"), "6:39 portLevelSettings needs `port`"),
        (&policy("{proxyProtocol: {version: v2}}"), "6:44 `v2` is no version of the PROXY protocol"),
        (&policy("{proxyProtocol: V1}"), "6:34 "),
        (
            &policy("{proxyProtocol: {version: V1}, tunnel: {targetHost: a, targetPort: 1}}"),
            "6:19 `proxyProtocol` excludes `tunnel`",
        ),
        (
            &policy("{portLevelSettings: [{port: {number: 1}, proxyProtocol: {version: V1}}]}"),
            "6:59 unknown field `proxyProtocol`",
        ),
        (
            &policy("{loadBalancer: {localityLbSetting: {distribute: [{from: 'a/*', to: {a: 50}}]}}}"),
            "6:85 the weights of a distribution must sum to 100, not 50",
        ),
        (
            &policy("{loadBalancer: {localityLbSetting: {distribute: [{from: 'a/*/c', to: {a: 100}}]}}}"),
            "6:74 locality \"a/*/c\": `*` may stand only for the last part",
        ),
        (
            &policy("{loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}"),
            "6:65 region `a` fails over to itself",
        ),
        (
            &policy("{loadBalancer: {localityLbSetting: {failover: [], distribute: []}}}"),
            "6:54 `failover` excludes `distribute`",
        ),
    ];
    assert_refused("DestinationRule", cases);
}

#[test]
fn what_this_version_does_not_do_is_refused_or_reported() {
    let cases: &[(&str, &str)] = &[
        (
            "{tls: {mode: MUTUAL, credentialName: a}}",
            "error 6:39 not supported by this version: `credentialName`: there are no secrets",
        ),
        (
            "{tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /r}}",
            "info 6:25 not supported by this version: files, for gRPC clients",
        ),
        (
            "{tls: {mode: SIMPLE, caCertificates: /etc/a}}",
            "info 6:25 not supported by this version: files, for gRPC clients",
        ),
        (
            "{tls: {mode: SIMPLE, credentialName: a}}",
            "error 6:39 not supported by this version: `credentialName`",
        ),
        (
            "{tls: {mode: SIMPLE, caCrl: /l}}",
            "info 6:25 not supported by this version: files, for gRPC clients",
        ),
        (
            "{tls: {mode: SIMPLE, insecureSkipVerify: true}}",
            "error 6:39 not supported by this version: `insecureSkipVerify`",
        ),
        ("{tls: {mode: SIMPLE}}", "info 6:25 not supported by this version: `SIMPLE` without"),
        (
            "{tls: {mode: SIMPLE, caCertificates: system}}",
            "info 6:25 not supported by this version: `SIMPLE`",
        ),
        (
            "{tls: {caCertificates: a}}",
            "warning 6:25 not supported by this version: `caCertificates`, without",
        ),
        ("{tls: {mode: DISABLE, sni: a}}", "warning 6:40 not supported by this version: `sni`, without"),
        (
            "{tunnel: {targetHost: a, targetPort: 1}}",
            "error 6:19 not supported by this version: `tunnel`: Istio has it for TCP and TLS routes only",
        ),
        (
            "{proxyProtocol: {version: V1}}",
            "info 6:34 not supported by this version: `proxyProtocol`, for gRPC clients that are not of the mesh",
        ),
        (
            "{loadBalancer: {simple: PASSTHROUGH}}",
            "warning 6:34 not supported by this version: `PASSTHROUGH`",
        ),
        (
            "{loadBalancer: {simple: RANDOM, warmup: {duration: 10s}}}",
            "warning 6:50 not supported by this version: warming up",
        ),
        (
            "{loadBalancer: {consistentHash: {httpCookie: {name: a}}}}",
            "info 6:51 not supported by this version: `httpCookie`",
        ),
        (
            "{loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 11}}}}",
            "info 6:70 not supported by this version: `maglev`",
        ),
        (
            "{outlierDetection: {outlierDetectionHttpErrorCodes: [500]}}",
            "info 6:38 not supported by this version: `outlierDetectionHttpErrorCodes`, for clients that",
        ),
    ];
    for (fields, expected) in cases {
        let parsed = parsed(&object("DestinationRule", &policy(fields)));
        let found = lines(&parsed);
        assert!(found[0].starts_with(&format!("MESH0001 {expected}")), "{found:#?}");
        assert_eq!(parsed.objects.is_empty(), expected.starts_with("error"), "{fields}");
    }
}

#[test]
fn tls_that_verifies_nobody_has_istios_code_for_where_it_is() {
    let parsed_lines = |fields: &str| lines(&parsed(&object("DestinationRule", &policy(fields))));
    assert!(
        parsed_lines("{tls: {insecureSkipVerify: true, mode: SIMPLE}}")[1]
            .starts_with("IST0128 warning 6:25")
    );
    let at_port =
        "{portLevelSettings: [{port: {number: 443}, tls: {insecureSkipVerify: true, mode: SIMPLE}}]}";
    assert!(parsed_lines(at_port)[1].starts_with("IST0129 warning 6:67"));
}

fn blocks(tag: Option<u32>, tls: bool) -> PolicyBlocks {
    PolicyBlocks {
        connection_pool: tag
            .map(|tag| ConnectionPool { max_requests: Some(tag), ..ConnectionPool::default() }),
        tls: tls.then(|| ClientTls {
            at: crate::analysis::Position::default(),
            mode: TlsMode::Disable,
            subject_alt_names: Vec::new(),
            sni: None,
            roots: None,
            certificate: None,
            crl: None,
        }),
        ..PolicyBlocks::default()
    }
}

#[test]
fn port_settings_replace_and_subsets_override_block_by_block() {
    let destination = TrafficPolicy {
        blocks: blocks(Some(1), true),
        ports: [(80, blocks(Some(2), false))].into(),
        retry_budget: None,
    };
    let effective = |subset: Option<&TrafficPolicy>, port| {
        let blocks = TrafficPolicy::effective(Some(&destination), subset, port).blocks;
        (blocks.connection_pool.and_then(|pool| pool.max_requests), blocks.tls.is_some())
    };
    assert_eq!(effective(None, 90), (Some(1), true));
    assert_eq!(effective(None, 80), (Some(2), false), "the destination's tls is gone at port 80");
    let subset = TrafficPolicy { blocks: blocks(Some(3), false), ..TrafficPolicy::default() };
    assert_eq!(effective(Some(&subset), 90), (Some(3), true), "only the pool is overridden");
    assert_eq!(effective(Some(&subset), 80), (Some(3), false));
    let subset = TrafficPolicy { ports: [(90, blocks(None, false))].into(), ..subset };
    assert_eq!(effective(Some(&subset), 90), (None, false), "port settings of a subset replace everything");
}

/// A port's own settings hide it, as they hide everything of their level, and cannot say it.
#[test]
fn the_proxy_protocol_is_inherited_as_istio_has_it() {
    use ProxyProtocol::{V1, V2};
    let policy = |version: Option<ProxyProtocol>, ports: &[u16]| {
        let at = crate::analysis::Position::default();
        let proxy_protocol = version.map(|value| Located { value, at });
        let blocks = PolicyBlocks { proxy_protocol, ..PolicyBlocks::default() };
        let ports = ports.iter().map(|port| (*port, PolicyBlocks::default())).collect();
        TrafficPolicy { blocks, ports, retry_budget: None }
    };
    let destination = policy(Some(V1), &[80]);
    for (subset, port, expected) in [
        (None, 90, Some(V1)),
        (None, 80, None),
        (Some(policy(None, &[])), 90, Some(V1)),
        (Some(policy(None, &[])), 80, None),
        (Some(policy(Some(V2), &[])), 90, Some(V2)),
        (Some(policy(Some(V2), &[])), 80, Some(V2)),
        (Some(policy(Some(V2), &[90])), 90, Some(V1)),
        (Some(policy(Some(V2), &[80])), 80, None),
    ] {
        let effective = TrafficPolicy::effective(Some(&destination), subset.as_ref(), port);
        let version = effective.blocks.proxy_protocol.map(|version| version.value);
        assert_eq!(version, expected, "{subset:?} {port}");
    }
}

#[test]
fn the_version_of_the_proxy_protocol_is_1_unless_it_is_said() {
    for (fields, expected) in [
        ("{}", ProxyProtocol::V1),
        ("{version: V1}", ProxyProtocol::V1),
        ("{version: V2}", ProxyProtocol::V2),
    ] {
        let rule = read(&policy(&format!("{{proxyProtocol: {fields}}}")));
        let version = rule.policy.clone().unwrap().blocks.proxy_protocol.unwrap();
        assert_eq!((version.value, version.at.line), (expected, 6));
    }
}

proptest! {
    #[test]
    fn a_subset_without_a_policy_changes_nothing(tag in proptest::option::of(1u32..9), tls: bool, port in 1u16..4) {
        let destination = TrafficPolicy { blocks: blocks(tag, tls), ports: [(2, blocks(None, !tls))].into(), retry_budget: None };
        let empty = TrafficPolicy::default();
        prop_assert_eq!(
            TrafficPolicy::effective(Some(&destination), Some(&empty), port),
            TrafficPolicy::effective(Some(&destination), None, port)
        );
    }
}

fn balancer(fields: &str) -> LoadBalancer {
    let rule = read(&policy(&format!("{{loadBalancer: {fields}}}")));
    rule.policy.as_ref().unwrap().blocks.load_balancer.clone().unwrap()
}

#[test]
fn consistent_hash_is_read_with_its_key_and_its_table() {
    let hash = |fields: &str| balancer(&format!("{{consistentHash: {fields}}}")).consistent_hash.unwrap();
    let by_default = HashTable::Ring { minimum: None };
    assert_eq!(
        hash("{httpHeaderName: X-User}"),
        ConsistentHash { key: HashKey::Header("x-user".into()), table: by_default }
    );
    assert_eq!(
        hash("{useSourceIp: true, ringHash: {minimumRingSize: 2048}}"),
        ConsistentHash { key: HashKey::SourceIp, table: HashTable::Ring { minimum: Some(2048) } }
    );
    assert_eq!(
        hash("{httpQueryParameterName: user, maglev: {tableSize: 65537}}"),
        ConsistentHash {
            key: HashKey::QueryParameter("user".into()),
            table: HashTable::Maglev { size: 65_537 }
        }
    );
    assert_eq!(hash("{useSourceIp: true, minimumRingSize: 7}").table, HashTable::Ring { minimum: Some(7) });
    let cookie =
        "{httpCookie: {name: session, path: /a, ttl: 0s, attributes: [{name: SameSite, value: Lax}]}}";
    assert_eq!(
        hash(cookie).key,
        HashKey::Cookie {
            name: "session".into(),
            path: "/a".into(),
            ttl: Some(Duration::ZERO),
            attributes: vec![("SameSite".into(), "Lax".into())],
        }
    );
}

#[test]
fn warming_up_has_istios_defaults_and_an_older_name() {
    let warmup = |fields: &str| balancer(fields).warmup.unwrap();
    let duration = Duration::from_secs(10);
    assert_eq!(
        warmup("{warmup: {duration: 10s}}"),
        Warmup { duration, minimum_percent: 10.0, aggression: 1.0 }
    );
    assert_eq!(
        warmup("{warmup: {duration: 10s, minimumPercent: 25, aggression: 2.5}}"),
        Warmup { duration, minimum_percent: 25.0, aggression: 2.5 }
    );
    assert_eq!(warmup("{warmupDurationSecs: 10s}"), Warmup { duration, ..Warmup::default() });
}

#[test]
fn zone_awareness_is_told_of_what_it_needs() {
    let said = |fields: &str| {
        lines(&parsed(&object("DestinationRule", &policy(&format!("{{loadBalancer: {fields}}}")))))
    };
    let needs =
        "MESH0001 info 6:34 not supported by this version: `zoneAwareLbSetting`: only clients that know";
    assert!(said("{zoneAwareLbSetting: {enabled: true}}")[0].starts_with(needs));
    assert_eq!(said("{zoneAwareLbSetting: {enabled: false}}"), Vec::<String>::new());
    let hashed = said("{zoneAwareLbSetting: {}, consistentHash: {useSourceIp: true}}");
    assert!(hashed[0].contains("with `consistentHash`: a key goes to any zone"), "{hashed:?}");
    assert_refused(
        "DestinationRule",
        &[
            (
                &policy("{loadBalancer: {zoneAwareLbSetting: {failover: [{from: a, to: a}]}}}"),
                "6:66 region `a` fails over to itself",
            ),
            (
                &policy("{loadBalancer: {zoneAwareLbSetting: {minSize: 1}}}"),
                "6:55 unknown field `minSize` in zoneAwareLbSetting",
            ),
        ],
    );
}

#[test]
fn consistent_hash_and_warmup_that_cannot_be_are_refused() {
    let hash = |fields: &str| policy(&format!("{{loadBalancer: {{consistentHash: {fields}}}}}"));
    let cases: &[(&str, &str)] = &[
        (&hash("{}"), "6:50 consistentHash needs a key to hash"),
        (&hash("{useSourceIp: false}"), "6:50 consistentHash needs a key to hash"),
        (&hash("{httpHeaderName: a, useSourceIp: true}"), "6:70 `useSourceIp` excludes `httpHeaderName`"),
        (&hash("{httpHeaderName: 'a b'}"), "6:67 `a b` is not the name of a header"),
        (&hash("{httpHeaderName: k-bin}"), "6:67 `k-bin`: binary headers"),
        (&hash("{httpCookie: {ttl: 1s}}"), "6:63 httpCookie needs `name`"),
        (
            &hash("{useSourceIp: true, ringHash: {}, maglev: {tableSize: 7}}"),
            "6:84 `maglev` excludes `ringHash`",
        ),
        (&hash("{useSourceIp: true, maglev: {}}"), "6:78 maglev needs `tableSize`"),
        (&hash("{useSourceIp: true, maglev: {tableSize: 8}}"), "6:90 8 is not a prime number"),
        (&policy("{loadBalancer: {warmup: {}}}"), "6:42 warmup needs `duration`"),
        (&policy("{loadBalancer: {warmup: {duration: 1s, aggression: 0}}}"), "6:69 0 is not greater than 0"),
        (
            &policy("{loadBalancer: {warmup: {duration: 1s}, warmupDurationSecs: 1s}}"),
            "6:58 `warmupDurationSecs` excludes `warmup`",
        ),
    ];
    assert_refused("DestinationRule", cases);
}
