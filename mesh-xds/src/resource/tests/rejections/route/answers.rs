//! Routes that name a cluster, an answer or a header wrongly.

use super::*;

fn redirecting_path(message: &mut pb::RouteConfiguration, specifier: PathRewriteSpecifier) {
    let path_rewrite_specifier = Some(specifier);
    redirecting(message, pb::RedirectAction { path_rewrite_specifier, ..Default::default() });
}

fn clusters(message: &mut pb::RouteConfiguration) -> &mut pb::WeightedCluster {
    match &mut action(message).cluster_specifier {
        Some(ClusterSpecifier::WeightedClusters(clusters)) => clusters,
        other => panic!("{other:?}"),
    }
}

fn weight(message: &mut pb::RouteConfiguration) -> &mut ClusterWeight {
    &mut clusters(message).clusters[0]
}

fn hashing(message: &mut pb::RouteConfiguration, specifier: PolicySpecifier) {
    let policy_specifier = Some(specifier);
    action(message).hash_policy = vec![HashPolicy { policy_specifier, terminal: false }];
}

fn cookie_attribute(message: &mut pb::RouteConfiguration, name: &str, value: &str) {
    let attribute = CookieAttribute { name: name.into(), value: value.into() };
    let cookie = Cookie { name: "c".into(), attributes: vec![attribute], ..Default::default() };
    hashing(message, PolicySpecifier::Cookie(cookie));
}

#[test]
fn what_names_a_cluster_an_answer_or_a_header_wrongly_is_refused() {
    let at = |rest: &str| -> &'static str { format!("{ROUTE}{rest}").leak() };
    refuses::<RouteConfiguration, _>(
        &good(),
        &[
            (
                |m| plugin(m, "p", false),
                "cluster_specifier_plugins[0].extension.typed_config",
                "x.Y is not supported, and not optional",
            ),
            (|m| plugin(m, "", true), "cluster_specifier_plugins[0].extension.name", "required"),
            (
                |m| {
                    plugin(m, "p", true);
                    plugin(m, "p", true);
                },
                "cluster_specifier_plugins[1].extension.name",
                "stands twice",
            ),
            (|m| by_plugin(m, "p"), at(".route.cluster_specifier_plugin"), "`p` is not declared"),
            (
                |m| action(m).cluster_specifier = Some(ClusterSpecifier::ClusterHeader("a b".into())),
                at(".route.cluster_header"),
                "not a header name",
            ),
            (|m| responding(m, 199, None), at(".direct_response.status"), "within 200..=599"),
            (|m| responding(m, 600, None), at(".direct_response.status"), "within 200..=599"),
            (
                |m| responding(m, 200, Some(Specifier::InlineString("x".repeat(4097)))),
                at(".direct_response.body"),
                "4097 bytes are more than the limit of 4096",
            ),
            (
                |m| {
                    m.max_direct_response_body_size_bytes = Some(UInt32Value { value: 1 });
                    responding(m, 200, Some(Specifier::InlineBytes(vec![0; 2])));
                },
                at(".direct_response.body"),
                "limit of 1",
            ),
            (
                |m| responding(m, 200, Some(Specifier::Filename("/etc/passwd".into()))),
                at(".direct_response.body"),
                "inline_string",
            ),
            (
                |m| {
                    let body_format = Some(Default::default());
                    let action = pb::DirectResponseAction { status: 200, body_format, ..Default::default() };
                    route(m).action = Some(Action::DirectResponse(action));
                },
                at(".direct_response.body_format"),
                "it would not be evaluated",
            ),
            (
                |m| {
                    let scheme = SchemeRewriteSpecifier::SchemeRedirect("a b".into());
                    let scheme_rewrite_specifier = Some(scheme);
                    redirecting(m, pb::RedirectAction { scheme_rewrite_specifier, ..Default::default() });
                },
                at(".redirect.scheme_redirect"),
                "`a b` is not a scheme",
            ),
            (
                |m| redirecting_path(m, PathRewriteSpecifier::RegexRewrite(Default::default())),
                at(".redirect.regex_rewrite.pattern"),
                "is required",
            ),
            (
                |m| redirecting_path(m, PathRewriteSpecifier::PathRewrite("/%DYNAMIC%".into())),
                at(".redirect.path_rewrite"),
                "use path_redirect or prefix_rewrite",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { response_code: 9, ..Default::default() }),
                at(".redirect.response_code"),
                "unknown",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { host_redirect: "a b".into(), ..Default::default() }),
                at(".redirect.host_redirect"),
                "not a host",
            ),
            (
                |m| redirecting(m, pb::RedirectAction { port_redirect: 70_000, ..Default::default() }),
                at(".redirect.port_redirect"),
                "not a port",
            ),
            (
                |m| adding(m, ":path", "x"),
                at(".request_headers_to_add[0].header.key"),
                "belongs to the transport",
            ),
            (
                |m| adding(m, "x", "%REQ(y)%"),
                at(".request_headers_to_add[0].header.value"),
                "formatters are not supported",
            ),
            (
                |m| {
                    adding(m, "x", "a");
                    route(m).request_headers_to_add[0].header.as_mut().unwrap().raw_value = b"b".into();
                },
                at(".request_headers_to_add[0].header.raw_value"),
                "excludes value",
            ),
            (
                |m| {
                    adding(m, "x", "a");
                    route(m).request_headers_to_add[0].append_action = 7;
                },
                at(".request_headers_to_add[0].append_action"),
                "is unknown",
            ),
            (
                |m| route(m).response_headers_to_add.push(HeaderValueOption::default()),
                at(".response_headers_to_add[0].header"),
                "is required",
            ),
            (
                |m| route(m).response_headers_to_remove.push("a b".into()),
                at(".response_headers_to_remove[0]"),
                "`a b` is not a header name",
            ),
            (
                |m| host(m).request_headers_to_remove.push("te".into()),
                "virtual_hosts[0].request_headers_to_remove[0]",
                "belongs to the transport",
            ),
            (
                |m| m.response_headers_to_remove.push(":status".into()),
                "response_headers_to_remove[0]",
                "belongs to the transport",
            ),
            (|m| adding(m, "x", "a\nb"), at(".request_headers_to_add[0].header.value"), "not a header value"),
            (
                |m| {
                    let initial_requests = Some(UInt32Value { value: 0 });
                    action(m).hedge_policy = Some(pb::HedgePolicy { initial_requests, ..Default::default() });
                },
                at(".route.hedge_policy.initial_requests"),
                "must not be 0",
            ),
            (
                |m| {
                    let chance = Some(FractionalPercent { numerator: 1, denominator: 7 });
                    action(m).hedge_policy =
                        Some(pb::HedgePolicy { additional_request_chance: chance, ..Default::default() });
                },
                at(".route.hedge_policy.additional_request_chance"),
                "denominator 7 is unknown",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).name.clear();
                },
                at(".route.weighted_clusters.clusters[0].name"),
                "is required",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).cluster_header = "x".into();
                },
                at(".route.weighted_clusters.clusters[0].cluster_header"),
                "not supported",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    weight(m).host_rewrite_specifier =
                        Some(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("a b".into()));
                },
                at(".route.weighted_clusters.clusters[0].host_rewrite_literal"),
                "`a b` is not an authority",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    clusters(m).random_value_specifier = Some(RandomValueSpecifier::HeaderName("x".into()));
                },
                at(".route.weighted_clusters.header_name"),
                "the cluster is drawn at random",
            ),
            (
                |m| {
                    weighted(m, &[1]);
                    let used = BoolValue { value: true };
                    clusters(m).random_value_specifier = Some(RandomValueSpecifier::UseHashPolicy(used));
                },
                at(".route.weighted_clusters.use_hash_policy"),
                "the cluster is drawn at random",
            ),
            (
                |m| m.cluster_specifier_plugins.push(Default::default()),
                "cluster_specifier_plugins[0].extension",
                "is required",
            ),
            (
                |m| {
                    plugin(m, "p", true);
                    m.cluster_specifier_plugins[0].extension.as_mut().unwrap().typed_config = None;
                },
                "cluster_specifier_plugins[0].extension.typed_config",
                "is required",
            ),
            (
                |m| {
                    let inline = pb::ClusterSpecifierPlugin::default();
                    action(m).cluster_specifier =
                        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(inline));
                },
                at(".route.inline_cluster_specifier_plugin.extension"),
                "is required",
            ),
            (
                |m| hashing(m, PolicySpecifier::QueryParameter(Default::default())),
                at(".route.hash_policy[0].query_parameter.name"),
                "is required",
            ),
            (
                |m| {
                    let header = hash_policy::Header { header_name: "a b".into(), ..Default::default() };
                    hashing(m, PolicySpecifier::Header(header));
                },
                at(".route.hash_policy[0].header.header_name"),
                "`a b` is not a header name",
            ),
            (
                |m| {
                    let regex_rewrite = replacing("(");
                    let header = hash_policy::Header { header_name: "x".into(), regex_rewrite };
                    hashing(m, PolicySpecifier::Header(header));
                },
                at(".route.hash_policy[0].header.regex_rewrite"),
                "not a regular expression",
            ),
            (
                |m| hashing(m, PolicySpecifier::Cookie(Cookie::default())),
                at(".route.hash_policy[0].cookie.name"),
                "is required",
            ),
            (
                |m| {
                    let path = "/a;b".into();
                    hashing(
                        m,
                        PolicySpecifier::Cookie(Cookie { name: "c".into(), path, ..Default::default() }),
                    );
                },
                at(".route.hash_policy[0].cookie.path"),
                "cannot stand in a cookie",
            ),
            (
                |m| {
                    let ttl = negative();
                    hashing(
                        m,
                        PolicySpecifier::Cookie(Cookie { name: "c".into(), ttl, ..Default::default() }),
                    );
                },
                at(".route.hash_policy[0].cookie.ttl"),
                "not a valid duration",
            ),
            (
                |m| cookie_attribute(m, "", "v"),
                at(".route.hash_policy[0].cookie.attributes[0].name"),
                "is required",
            ),
            (
                |m| cookie_attribute(m, "a=", "v"),
                at(".route.hash_policy[0].cookie.attributes[0].name"),
                "cannot stand in a cookie",
            ),
            (
                |m| cookie_attribute(m, "a", "v,"),
                at(".route.hash_policy[0].cookie.attributes[0].value"),
                "cannot stand in a cookie",
            ),
            (
                |m| {
                    let cookie = Cookie { name: "a;b".into(), ..Default::default() };
                    hashing(m, PolicySpecifier::Cookie(cookie));
                },
                at(".route.hash_policy[0].cookie.name"),
                "cannot stand in a cookie",
            ),
        ],
    );
}
