//! AuthorizationPolicy from YAML. Whatever cannot be decided refuses the object.

use super::{
    Action, AuthorizationPolicy, Condition, Operation, PathPattern, Rule, Source, Terms, TextPattern,
};
use crate::analysis::{Code, Finding, Severity};
use crate::model::node::Node;
use crate::model::object::{Metadata, spec};
use crate::model::read::{self, Map, Report};
use crate::model::schema;
use crate::model::value::{is_dns_label, is_header_name};
use crate::model::workload::ServiceAccount;

const FIELDS: &[&str] = &["selector", "targetRef", "targetRefs", "action", "provider", "rules"];

const ACTIONS: [(&str, Option<Action>); 4] =
    [("ALLOW", Some(Action::Allow)), ("DENY", Some(Action::Deny)), ("AUDIT", None), ("CUSTOM", None)];

impl AuthorizationPolicy {
    /// `Some(None)`: fine, and attached to nothing that this version serves.
    pub(crate) fn read(node: &Node, metadata: Metadata, report: &mut Report) -> Option<Option<Self>> {
        let map = spec(node, report, FIELDS)?;
        map.no_nulls(report);
        let targets = target_refs(&map, report);
        let selector = map.one("selector", report, read::selector("matchLabels")).unwrap_or_default();
        let action = match map.get("action") {
            None => Some(Action::Allow),
            Some(action) => read::word("action", &ACTIONS)(action, report)?,
        };
        if let Some(provider) = map.get("provider") {
            schema::check(
                provider,
                "provider",
                &schema::Shape::Fields(&[("name", schema::Shape::Text)]),
                report,
            );
        }
        let rules = map.many("rules", report, rule);
        if rules.len() > 512 {
            report.error(map.key_at("rules"), "a policy may have at most 512 rules");
        }
        let Some(action) = action else {
            let name = map.get("action").and_then(Node::as_text).unwrap_or_default();
            report.unsupported(map.key_at("action"), &format!("`action: {name}`"));
            return None;
        };
        if map.has("provider") {
            report.error(map.key_at("provider"), "`provider` is only for `action: CUSTOM`");
        }
        if action == Action::Deny && !map.has("rules") {
            report.error(map.key_at("action"), "a DENY policy without `rules` denies nothing").help =
                Some("write `rules: [{}]` to deny everything".to_owned());
        }
        let dry_run = dry_run(&metadata, report);
        let policy = Self { origin: metadata.origin, selector, action, dry_run, rules };
        Some((!targets).then_some(policy))
    }
}

/// True when the policy is for gateways or waypoints, not for workloads.
fn target_refs(map: &Map<'_>, report: &mut Report) -> bool {
    map.exclusive(&["selector", "targetRef", "targetRefs"], report);
    if let Some(target) = map.get("targetRef") {
        schema::check(target, "targetRef", &schema::TARGET_REF, report);
    }
    let targets = map.many("targetRefs", report, |node, report| {
        schema::check(node, "targetRefs", &schema::TARGET_REF, report);
        Some(())
    });
    if targets.len() > 16 {
        report.error(map.key_at("targetRefs"), "a policy may have at most 16 targets");
    }
    for key in ["targetRef", "targetRefs"] {
        map.ignored(key, report, &format!("a policy with `{key}` (it attaches to no workload)"));
    }
    map.has("targetRef") || !targets.is_empty()
}

fn dry_run(metadata: &Metadata, report: &mut Report) -> bool {
    match metadata.annotations.get("istio.io/dry-run").map(String::as_str) {
        None => false,
        Some("true" | "True" | "TRUE" | "1" | "t" | "T") => {
            let message = "not supported by this version: a dry-run policy is neither enforced nor evaluated";
            let finding = Finding::new(Code::NotSupported, Severity::Warning, message)
                .at(metadata.origin.place())
                .about(&metadata.origin.id);
            report.findings.push(finding);
            true
        }
        Some("false" | "False" | "FALSE" | "0" | "f" | "F") => false,
        Some(other) => {
            let message = format!("the annotation `istio.io/dry-run` must be true or false, not {other:?}");
            report.error(metadata.origin.position, message);
            false
        }
    }
}

fn rule(node: &Node, report: &mut Report) -> Option<Rule> {
    let map = report.map(node, "a rule", &["from", "to", "when"])?;
    map.no_nulls(report);
    for key in ["from", "to"] {
        if map.get(key).is_some_and(is_empty_list) {
            report.error(map.key_at(key), format!("`{key}` must not be empty: leave it out to match all"));
        }
    }
    Some(Rule {
        sources: map.many("from", report, |node, report| {
            report.map(node, "from", &["source"])?.required("source", "from", report, source)
        }),
        operations: map.many("to", report, |node, report| {
            report.map(node, "to", &["operation"])?.required("operation", "to", report, operation)
        }),
        conditions: map.many("when", report, condition),
    })
}

fn is_empty_list(node: &Node) -> bool {
    matches!(&node.value, crate::model::node::Value::List(items) if items.is_empty())
}

/// A field and its `not` twin.
fn terms<T>(
    map: &Map<'_>,
    keys: [&str; 2],
    report: &mut Report,
    read: impl Fn(&Node, &mut Report) -> Option<T>,
) -> Terms<T> {
    for key in keys {
        if map.get(key).is_some_and(is_empty_list) {
            report.error(map.key_at(key), format!("`{key}` must not be empty: leave it out to match all"));
        }
    }
    Terms { any: map.many(keys[0], report, &read), none: map.many(keys[1], report, &read) }
}

fn source(node: &Node, report: &mut Report) -> Option<Source> {
    const FIELDS: &[&str] = &[
        "ipBlocks",
        "namespaces",
        "notIpBlocks",
        "notNamespaces",
        "notPrincipals",
        "notRemoteIpBlocks",
        "notRequestPrincipals",
        "notServiceAccounts",
        "notTrustDomains",
        "principals",
        "remoteIpBlocks",
        "requestPrincipals",
        "serviceAccounts",
        "trustDomains",
    ];
    let map = report.map(node, "source", FIELDS)?;
    map.no_nulls(report);
    if !FIELDS.iter().any(|key| map.has(key)) {
        report.error(node.at, "an empty source: leave `from` out to match every caller");
    }
    for key in ["requestPrincipals", "notRequestPrincipals"] {
        map.unsupported(key, report, &format!("`{key}` (tokens of requests are not checked)"));
    }
    for key in ["serviceAccounts", "notServiceAccounts"] {
        for other in ["principals", "notPrincipals", "namespaces", "notNamespaces"] {
            map.exclusive(&[key, other], report);
        }
        if map.many(key, report, |_, _| Some(())).len() > 16 {
            report.error(map.key_at(key), format!("`{key}` may have at most 16 values"));
        }
    }
    Some(Source {
        principals: terms(&map, ["principals", "notPrincipals"], report, pattern),
        namespaces: terms(&map, ["namespaces", "notNamespaces"], report, pattern),
        service_accounts: terms(&map, ["serviceAccounts", "notServiceAccounts"], report, service_account),
        trust_domains: terms(&map, ["trustDomains", "notTrustDomains"], report, trust_domain),
        ip_blocks: terms(&map, ["ipBlocks", "notIpBlocks"], report, ip_block),
        remote_ip_blocks: terms(&map, ["remoteIpBlocks", "notRemoteIpBlocks"], report, ip_block),
    })
}

fn operation(node: &Node, report: &mut Report) -> Option<Operation> {
    const FIELDS: &[&str] =
        &["hosts", "methods", "notHosts", "notMethods", "notPaths", "notPorts", "paths", "ports"];
    let map = report.map(node, "operation", FIELDS)?;
    map.no_nulls(report);
    if !FIELDS.iter().any(|key| map.has(key)) {
        report.error(node.at, "an empty operation: leave `to` out to match everything");
    }
    Some(Operation {
        hosts: terms(&map, ["hosts", "notHosts"], report, pattern),
        ports: terms(&map, ["ports", "notPorts"], report, port),
        methods: terms(&map, ["methods", "notMethods"], report, pattern),
        paths: terms(&map, ["paths", "notPaths"], report, path),
    })
}

fn condition(node: &Node, report: &mut Report) -> Option<Condition> {
    let map = report.map(node, "a condition", &["key", "values", "notValues"])?;
    map.no_nulls(report);
    if !map.has("values") && !map.has("notValues") {
        report.error(node.at, "a condition needs `values` or `notValues`");
    }
    let key_node = map.get("key");
    let key = map.required("key", "a condition", report, read::some_text)?;
    let at = key_node.map_or(node.at, |node| node.at);
    const VALUES: [&str; 2] = ["values", "notValues"];
    if let Some(name) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
        if !is_header_name(name) {
            return report.fail(at, format!("{name:?} is not a header name"));
        }
        return Some(Condition::Header(name.to_ascii_lowercase(), terms(&map, VALUES, report, pattern)));
    }
    Some(match key.as_str() {
        "source.ip" => Condition::SourceIp(terms(&map, VALUES, report, ip_block)),
        "remote.ip" => Condition::RemoteIp(terms(&map, VALUES, report, ip_block)),
        "source.namespace" => Condition::SourceNamespace(terms(&map, VALUES, report, pattern)),
        "source.principal" => Condition::SourcePrincipal(terms(&map, VALUES, report, pattern)),
        "source.serviceAccount" => {
            Condition::SourceServiceAccount(terms(&map, VALUES, report, service_account))
        }
        "source.trustDomain" => Condition::SourceTrustDomain(terms(&map, VALUES, report, trust_domain)),
        "destination.ip" => Condition::DestinationIp(terms(&map, VALUES, report, ip_block)),
        "destination.port" => Condition::DestinationPort(terms(&map, VALUES, report, port)),
        "connection.sni" => Condition::Sni(terms(&map, VALUES, report, pattern)),
        key if key.starts_with("request.auth.") => {
            report.unsupported(at, &format!("`{key}` (tokens of requests are not checked)"));
            return None;
        }
        key if key.starts_with("experimental.envoy.filters.") => {
            report.unsupported(at, &format!("`{key}` (there is no Envoy)"));
            return None;
        }
        key => {
            const KEYS: &[&str] = &[
                "connection.sni",
                "destination.ip",
                "destination.port",
                "remote.ip",
                "request.headers[…]",
                "source.ip",
                "source.namespace",
                "source.principal",
                "source.serviceAccount",
                "source.trustDomain",
            ];
            report.error(at, format!("unknown condition key `{key}`")).help = Some(read::meant(key, KEYS));
            return None;
        }
    })
}

fn pattern(node: &Node, report: &mut Report) -> Option<TextPattern> {
    read::some_text(node, report).map(|text| TextPattern::parse(&text))
}

fn trust_domain(node: &Node, report: &mut Report) -> Option<TextPattern> {
    let text = read::some_text(node, report)?;
    let inner = text.strip_prefix('*').unwrap_or(text.strip_suffix('*').unwrap_or(&text));
    if inner.contains(['*', '/']) {
        return report
            .fail(node.at, format!("{text:?} is not a trust domain: no `/`, and one `*` at an end"));
    }
    Some(TextPattern::parse(&text))
}

/// `namespace/name`, or `name` in the policy's namespace.
fn service_account(node: &Node, report: &mut Report) -> Option<ServiceAccount> {
    let text = read::some_text(node, report)?;
    let (namespace, name) = text.split_once('/').unwrap_or((report.id.namespace.as_str(), text.as_str()));
    let name_ok = !name.is_empty() && name.split('.').all(is_dns_label);
    if !is_dns_label(namespace) || !name_ok {
        return report
            .fail(node.at, format!("{text:?} is not a service account: name or namespace/name, no `*`"));
    }
    Some(ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() })
}

fn ip_block(node: &Node, report: &mut Report) -> Option<ipnet::IpNet> {
    let text = read::some_text(node, report)?;
    let net = text.parse().ok().or_else(|| text.parse::<std::net::IpAddr>().ok().map(ipnet::IpNet::from));
    match net {
        Some(net) => Some(net),
        None => report.fail(node.at, format!("{text:?} is neither an IP address nor a range of them")),
    }
}

/// A port, written as a text as Istio wants it; a number is what everybody writes first.
fn port(node: &Node, report: &mut Report) -> Option<u16> {
    match node.as_text() {
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => report.fail(node.at, format!("{text:?} is not a port: 1 to 65535 are")),
        },
        None => read::port(node, report),
    }
}

fn path(node: &Node, report: &mut Report) -> Option<PathPattern> {
    let text = read::some_text(node, report)?;
    if !text.contains(['{', '}']) {
        return Some(PathPattern::Text(TextPattern::parse(&text)));
    }
    let segments: Vec<&str> = text.split('/').collect();
    let last = segments.len() - 1;
    for (index, segment) in segments.iter().enumerate() {
        let fine = match *segment {
            "{*}" => true,
            "{**}" => index == last,
            segment => !segment.contains(['{', '}', '*']),
        };
        if !fine {
            let message =
                format!("{text:?}: a template has `{{*}}` for a segment and `{{**}}` as the last one");
            return report.fail(node.at, message);
        }
    }
    Some(PathPattern::Template(text))
}
