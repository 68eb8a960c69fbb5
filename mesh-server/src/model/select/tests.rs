//! Precedence: which VirtualService, DestinationRule and policies apply to whom.

use super::*;
use crate::model::fixture::config;

fn client(namespace: &str) -> ClientScope {
    ClientScope { namespace: namespace.to_owned(), labels: Labels::new() }
}

fn labelled(namespace: &str, key: &str, value: &str) -> ClientScope {
    ClientScope { labels: Labels::from([(key.to_owned(), value.to_owned())]), ..client(namespace) }
}

fn object(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').expect("namespace/name");
    let group = if kind.ends_with("Policy") || kind.starts_with("Peer") { "security" } else { "networking" };
    format!(
        "apiVersion: {group}.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn routes(name: &str, hosts: &str, more: &str) -> String {
    object(
        "VirtualService",
        name,
        &format!("{{hosts: [{hosts}], http: [{{route: [{{destination: {{host: a.b}}}}]}}]{more}}}"),
    )
}

#[test]
fn private_beats_exported_beats_public_and_then_the_oldest_wins() {
    let config = config(
        &[
            routes("shop/z-public", "a.b", ""),
            routes("shop/b-public", "a.b", ""),
            routes("other/c-exported", "a.b", ", exportTo: [shop]"),
            routes("shop/d-private", "a.b", ", exportTo: [.]"),
        ]
        .concat(),
    );
    let chosen = |namespace: &str| {
        config.virtual_service_for(&client(namespace), "a.b").map(|object| object.origin.id.name.clone())
    };
    assert_eq!(chosen("shop").as_deref(), Some("d-private"));
    assert_eq!(chosen("elsewhere").as_deref(), Some("b-public"));
    assert_eq!(chosen("other").as_deref(), Some("b-public"));
}

#[test]
fn the_most_specific_host_wins() {
    let config = config(
        &[
            routes("shop/a", "'*.b.com'", ""),
            routes("shop/b", "'*.a.b.com'", ""),
            routes("shop/c", "x.a.b.com", ""),
        ]
        .concat(),
    );
    let chosen = |host: &str| {
        config.virtual_service_for(&client("shop"), host).map(|object| object.origin.id.name.clone())
    };
    assert_eq!(chosen("x.a.b.com").as_deref(), Some("c"));
    assert_eq!(chosen("y.a.b.com").as_deref(), Some("b"));
    assert_eq!(chosen("y.b.com").as_deref(), Some("a"));
    assert_eq!(chosen("b.com"), None);
}

#[test]
fn a_virtual_service_whose_routes_are_for_others_counts_as_absent() {
    let only =
        "{hosts: [a.b], http: [{match: [{sourceLabels: {app: x}}], route: [{destination: {host: a.b}}]}]}";
    let config =
        config(&format!("{}{}", object("VirtualService", "shop/a", only), routes("shop/b", "a.b", "")));
    let chosen = |client: &ClientScope| {
        config.virtual_service_for(client, "a.b").map(|object| object.origin.id.name.clone())
    };
    assert_eq!(chosen(&labelled("shop", "app", "x")).as_deref(), Some("a"));
    assert_eq!(chosen(&client("shop")).as_deref(), Some("b"));
}

#[test]
fn a_virtual_service_of_a_gateway_is_nothing_to_the_mesh() {
    let config = config(&routes("shop/a", "a.b", ", gateways: [front]"));
    assert!(config.virtual_service_for(&client("shop"), "a.b").is_none());
}

#[test]
fn each_match_is_a_route_and_nothing_follows_what_takes_everything() {
    let spec = "
  hosts: [a.b]
  http:
  - match: [{headers: {end-user: {exact: jason}}}, {sourceNamespace: other, port: 1}, {gateways: [front], port: 2}]
    route: [{destination: {host: x}}]
  - match: [{uri: {prefix: /}}, {port: 3}]
    route: [{destination: {host: y}}]
  - route: [{destination: {host: z}}]
";
    let config = config(&object("VirtualService", "shop/a", spec));
    let routes = config.virtual_services()[0].routes_for(&client("shop"));
    let hosts: Vec<_> = routes
        .iter()
        .map(|effective| effective.route.destinations()[0].destination.host.value.as_str())
        .collect();
    assert_eq!(hosts, ["x.shop.svc.cluster.local", "y.shop.svc.cluster.local"]);
    let other = config.virtual_services()[0].routes_for(&client("other"));
    assert_eq!(other.len(), 3, "sourceNamespace is decided here");
}

#[test]
fn gateways_of_a_match_switch_its_source_conditions_off() {
    let spec = "{hosts: [a.b], http: [{match: [{gateways: [mesh], sourceNamespace: other}], route: [{destination: {host: x}}]}]}";
    let config = config(&object("VirtualService", "shop/a", spec));
    assert!(config.virtual_service_for(&client("shop"), "a.b").is_some());
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: shop}\nspec: {ports: [{port: 1}]}\n---\n";
const HOST: &str = "reviews.shop.svc.cluster.local";

fn rule(name: &str, host: &str, more: &str) -> String {
    object("DestinationRule", name, &format!("{{host: '{host}'{more}}}"))
}

fn chosen_rule(yaml: &str, client: &ClientScope) -> Option<String> {
    let config = config(&format!("{SERVICE}{yaml}"));
    let service = config.service(&client.namespace, HOST).expect("service");
    config.destination_rule_for(client, service).map(|rule| rule.origin.id.name.clone())
}

#[test]
fn the_clients_namespace_beats_the_services_beats_the_root() {
    let root = rule("istio-system/root", HOST, "");
    let service = rule("shop/service", HOST, "");
    let own = rule("front/own", HOST, "");
    let all = format!("{root}{service}{own}");
    assert_eq!(chosen_rule(&all, &client("front")).as_deref(), Some("own"));
    assert_eq!(chosen_rule(&all, &client("elsewhere")).as_deref(), Some("service"));
    assert_eq!(chosen_rule(&root, &client("elsewhere")).as_deref(), Some("root"));
    assert_eq!(chosen_rule(&rule("shop/service", HOST, ", exportTo: [.]"), &client("front")), None);
    assert_eq!(chosen_rule("", &client("front")), None);
}

#[test]
fn within_a_namespace_the_most_specific_host_wins() {
    let rules = format!("{}{}", rule("shop/a", "*.svc.cluster.local", ""), rule("shop/b", HOST, ""));
    assert_eq!(chosen_rule(&rules, &client("shop")).as_deref(), Some("b"));
}

#[test]
fn a_client_of_the_root_namespace_takes_the_services_rule_before_a_public_root_rule() {
    let rules = format!("{}{}", rule("istio-system/root", HOST, ""), rule("shop/service", HOST, ""));
    assert_eq!(chosen_rule(&rules, &client("istio-system")).as_deref(), Some("service"));
    let rules =
        format!("{}{}", rule("istio-system/root", HOST, ", exportTo: [.]"), rule("shop/service", HOST, ""));
    assert_eq!(chosen_rule(&rules, &client("istio-system")).as_deref(), Some("root"));
}

#[test]
fn a_rule_with_a_selector_replaces_the_one_without_for_its_clients() {
    let rules = format!(
        "{}{}",
        rule("shop/a", HOST, ""),
        rule("shop/b", HOST, ", workloadSelector: {matchLabels: {app: front}}")
    );
    assert_eq!(chosen_rule(&rules, &labelled("shop", "app", "front")).as_deref(), Some("b"));
    assert_eq!(chosen_rule(&rules, &client("shop")).as_deref(), Some("a"));
    assert_eq!(chosen_rule(&rules, &labelled("other", "app", "front")).as_deref(), Some("a"));
}

#[test]
fn peer_authentication_goes_from_mesh_to_namespace_to_workload_to_port() {
    let peer = |name: &str, spec: &str| object("PeerAuthentication", name, spec);
    let config = config(&[
        peer("istio-system/default", "{mtls: {mode: STRICT}}"),
        peer("istio-system/selected", "{selector: {matchLabels: {app: a}}, mtls: {mode: DISABLE}}"),
        peer("shop/b", "{mtls: {mode: DISABLE}}"),
        peer("shop/a", "{mtls: {mode: PERMISSIVE}}"),
        peer("shop/w", "{selector: {matchLabels: {app: a}}, mtls: {mode: STRICT}, portLevelMtls: {81: {mode: DISABLE}, 82: {mode: UNSET}}}"),
        peer("unset/a", "{mtls: {mode: UNSET}}"),
    ].concat());
    let app = labelled("", "app", "a").labels;
    let mode =
        |namespace: &str, labels: &Labels, port| config.peer_authentication_mode(namespace, labels, port);
    assert_eq!(mode("elsewhere", &app, 80), MtlsMode::Strict, "a root policy with a selector is ignored");
    assert_eq!(mode("shop", &Labels::new(), 80), MtlsMode::Permissive, "the oldest of the namespace");
    assert_eq!(mode("shop", &app, 80), MtlsMode::Strict);
    assert_eq!(mode("shop", &app, 81), MtlsMode::Disable);
    assert_eq!(mode("shop", &app, 82), MtlsMode::Strict, "UNSET inherits");
    assert_eq!(mode("unset", &app, 80), MtlsMode::Strict, "UNSET inherits from the mesh");
    let nothing = crate::model::fixture::config("");
    assert_eq!(nothing.peer_authentication_mode("shop", &app, 80), MtlsMode::Permissive);
}

#[test]
fn authorization_policies_are_those_of_the_root_and_of_the_own_namespace() {
    let policy = |name: &str, spec: &str| object("AuthorizationPolicy", name, spec);
    let config = config(
        &[
            policy("istio-system/mesh", "{}"),
            policy("istio-system/selected", "{selector: {matchLabels: {app: a}}}"),
            policy("shop/all", "{rules: [{}]}"),
            policy("shop/other-app", "{selector: {matchLabels: {app: b}}}"),
            policy("other/x", "{}"),
        ]
        .concat(),
    );
    let names = |namespace: &str| {
        let labels = labelled("", "app", "a").labels;
        let policies = config.authorization_policies(namespace, &labels);
        policies.map(|policy| policy.origin.id.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("shop"), ["mesh", "selected", "all"]);
    assert_eq!(names("istio-system"), ["mesh", "selected"], "each policy once");
}

mod against_a_scan {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The index must find what looking at every object would.
        #[test]
        fn the_chosen_virtual_service_is_the_one_a_scan_would_choose(
            objects in prop::collection::vec(
                (prop::sample::select(vec!["a.b.c", "'*.b.c'", "'*.c'", "x.y"]), 0usize..3, "[pqr]"),
                0..6,
            ),
            host in prop::sample::select(vec!["a.b.c", "d.b.c", "x.y", "none"]),
        ) {
            let exports = ["", ", exportTo: [.]", ", exportTo: [p, q]"];
            let yaml: String = objects
                .iter()
                .enumerate()
                .map(|(index, (host, export, namespace))| {
                    routes(&format!("{namespace}/n{index}"), host, exports[*export])
                })
                .collect();
            let config = config(&yaml);
            let client = client("p");
            let scanned = config
                .virtual_services()
                .iter()
                .filter(|object| object.export_to.reaches("p"))
                .filter_map(|object| {
                    let own = &object.hosts[0].value;
                    let specificity = own.matches(host).then(|| own.specificity())?;
                    let tier = match &object.export_to {
                        crate::model::ExportTo::All => 2,
                        export if export.is_private_to(&object.origin.id.namespace) => 0,
                        _ => 1,
                    };
                    Some((std::cmp::Reverse(specificity), tier, object.origin.id.name.clone()))
                })
                .min();
            let chosen = config.virtual_service_for(&client, host).map(|object| object.origin.id.name.clone());
            prop_assert_eq!(chosen, scanned.map(|(_, _, name)| name));
        }
    }
}
