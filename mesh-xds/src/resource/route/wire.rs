//! RouteConfiguration, to and from protobuf.

mod action;
mod answer;
mod destination;
mod hash;
pub(in crate::resource) mod headers;

use super::{Mirror, QueryMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use crate::{
    field_path::{Faults, Path},
    matcher::{DomainPattern, PathMatcher},
    name::{Name, ResourceType},
    resource::{
        Feature, ParseContext, Resource,
        canonical::{self, Inside, METADATA, Shape},
        filter, retry, sealed, wire,
    },
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::config::route::v3::{
        self as proto, query_parameter_matcher::QueryParameterMatchSpecifier, route::Action,
        route_match::PathSpecifier,
    },
    google::protobuf::BoolValue,
};
use prost::Message;
use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

static WEIGHT: Shape = Shape(&[(10, Inside::Map)]);
static WEIGHTED: Shape = Shape(&[(1, Inside::Message(&WEIGHT))]);
static ACTION: Shape = Shape(&[(3, Inside::Message(&WEIGHTED))]);
static ROUTE: Shape =
    Shape(&[(2, Inside::Message(&ACTION)), (4, Inside::Message(&METADATA)), (13, Inside::Map)]);
static VIRTUAL_HOST: Shape = Shape(&[(3, Inside::Message(&ROUTE)), (15, Inside::Map)]);
static SHAPE: Shape = Shape(&[(2, Inside::Message(&VIRTUAL_HOST))]);

/// What a route has to know of the resource that it is in.
#[derive(Clone, Copy)]
struct Scope<'a> {
    context: &'a ParseContext,
    /// Cluster specifier plugins that were left out, being optional.
    plugins: &'a BTreeSet<&'a str>,
    max_body: Option<u32>,
    /// Copies that routes without their own make.
    mirrors: &'a [Mirror],
}

impl Resource for RouteConfiguration {
    const TYPE: ResourceType = ResourceType::RouteConfiguration;

    fn to_proto(&self) -> Bytes {
        let headers = headers::encode(&self.headers);
        let message = proto::RouteConfiguration {
            name: self.name.to_string(),
            virtual_hosts: self.virtual_hosts.iter().map(|host| encode_host(host)).collect(),
            request_headers_to_add: headers.request_add,
            request_headers_to_remove: headers.request_remove,
            response_headers_to_add: headers.response_add,
            response_headers_to_remove: headers.response_remove,
            most_specific_header_mutations_wins: self.most_specific_headers_last,
            ignore_port_in_host_matching: self.ignore_port,
            max_direct_response_body_size_bytes: self.max_direct_response_body.and_then(wire::u32_value),
            ..Default::default()
        };
        canonical::sorted(&message.encode_to_vec(), &SHAPE).into()
    }

    fn name(&self) -> &Name {
        &self.name
    }

    fn references(&self) -> Vec<(ResourceType, Name)> {
        let hosts = self.virtual_hosts.iter();
        let clusters: BTreeSet<_> = hosts.flat_map(|host| host.clusters()).cloned().collect();
        clusters.into_iter().map(|name| (ResourceType::Cluster, name)).collect()
    }
}

fn encode_host(host: &VirtualHost) -> proto::VirtualHost {
    let headers = headers::encode(&host.headers);
    proto::VirtualHost {
        name: host.name.to_string(),
        domains: host.domains.iter().map(ToString::to_string).collect(),
        routes: host.routes.iter().map(|route| encode_route(route)).collect(),
        retry_policy: host.retry.as_deref().map(retry::wire::encode),
        hedge_policy: host.hedge.as_ref().map(retry::wire::encode_hedge),
        typed_per_filter_config: filter::wire::encode_overrides(&host.overrides),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        ..Default::default()
    }
}

fn encode_route(route: &Route) -> proto::Route {
    let headers = headers::encode(&route.headers);
    proto::Route {
        name: route.name.to_string(),
        r#match: Some(encode_match(&route.matches)),
        action: Some(match &route.action {
            RouteAction::Forward(forward) => Action::Route(action::encode(forward)),
            RouteAction::NonForwarding => Action::NonForwardingAction(Default::default()),
            RouteAction::DirectResponse(response) => {
                Action::DirectResponse(answer::encode_direct_response(response))
            }
            RouteAction::Redirect(redirect) => Action::Redirect(answer::encode_redirect(redirect)),
            RouteAction::Unsupported("redirect") => Action::Redirect(Default::default()),
            // Envoy demands a status.
            RouteAction::Unsupported("direct_response") => {
                Action::DirectResponse(proto::DirectResponseAction { status: 503, ..Default::default() })
            }
            RouteAction::Unsupported(_) => Action::FilterAction(Default::default()),
        }),
        metadata: wire::own_metadata(route.origin.as_ref(), false),
        typed_per_filter_config: filter::wire::encode_overrides(&route.overrides),
        request_headers_to_add: headers.request_add,
        request_headers_to_remove: headers.request_remove,
        response_headers_to_add: headers.response_add,
        response_headers_to_remove: headers.response_remove,
        ..Default::default()
    }
}

pub(in crate::resource) fn encode_match(matches: &RouteMatch) -> proto::RouteMatch {
    let (path, ignore_case) = match &matches.path {
        PathMatcher::Prefix { value, ignore_case } => {
            (PathSpecifier::Prefix(value.to_string()), *ignore_case)
        }
        PathMatcher::SeparatedPrefix { value, ignore_case } => {
            (PathSpecifier::PathSeparatedPrefix(value.to_string()), *ignore_case)
        }
        PathMatcher::Exact { value, ignore_case } => (PathSpecifier::Path(value.to_string()), *ignore_case),
        PathMatcher::Regex(regex) => (PathSpecifier::SafeRegex(wire::regex_proto(regex)), false),
    };
    let query = matches.query.iter().map(|query| proto::QueryParameterMatcher {
        name: query.name.to_string(),
        query_parameter_match_specifier: Some(match &query.value {
            Some(value) => QueryParameterMatchSpecifier::StringMatch(wire::string_matcher_proto(value)),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        }),
    });
    proto::RouteMatch {
        path_specifier: Some(path),
        case_sensitive: ignore_case.then_some(BoolValue { value: false }),
        headers: matches.headers.iter().map(wire::header_matcher_proto).collect(),
        query_parameters: query.collect(),
        runtime_fraction: matches.fraction.map(wire::runtime_fraction_proto),
        ..Default::default()
    }
}

impl sealed::Parse for RouteConfiguration {
    type Proto = proto::RouteConfiguration;

    fn proto_name(proto: &Self::Proto) -> &str {
        &proto.name
    }

    fn from_message(
        proto: &Self::Proto,
        name: Name,
        context: &ParseContext,
        at: &Path<'_>,
        faults: &mut Faults,
    ) -> Option<Self> {
        for (unsupported, field) in [
            (proto.vhds.is_some(), "vhds"),
            (!proto.vhost_header.is_empty(), "vhost_header"),
            (!proto.route_specifiers.is_empty(), "route_specifiers"),
            (!proto.internal_only_headers.is_empty(), "internal_only_headers"),
            (proto.ignore_path_parameters_in_path_matching, "ignore_path_parameters_in_path_matching"),
        ] {
            if unsupported {
                faults.reject::<()>(&at.field(field), "is not supported");
            }
        }
        let mut plugins = BTreeSet::new();
        let list = at.field("cluster_specifier_plugins");
        for (i, plugin) in proto.cluster_specifier_plugins.iter().enumerate() {
            let at = list.index(i);
            if let Some(name) = destination::plugin(plugin, &at, faults)
                && !plugins.insert(name)
            {
                let at = at.field("extension");
                faults.reject::<()>(&at.field("name"), format_args!("`{name}` stands twice"));
            }
        }
        let max_direct_response_body =
            proto.max_direct_response_body_size_bytes.as_ref().map(|size| size.value);
        let mirrors = action::mirrors(&proto.request_mirror_policies, at, faults).unwrap_or_default();
        let overrides = filter::wire::overrides(&proto.typed_per_filter_config, context, at, faults);
        let scope =
            Scope { context, plugins: &plugins, max_body: max_direct_response_body, mirrors: &mirrors };
        let mut seen = HashSet::new();
        let list = at.field("virtual_hosts");
        let mut hosts = Vec::new();
        for (i, proto) in proto.virtual_hosts.iter().enumerate() {
            if let Some(mut host) = host(proto, &mut seen, &scope, &list.index(i), faults) {
                // The least specific level of overrides.
                for (name, value) in overrides.iter().flatten() {
                    host.overrides.entry(name.clone()).or_insert_with(|| value.clone());
                }
                hosts.push(Arc::new(host));
            }
        }
        Some(Self {
            name,
            virtual_hosts: hosts,
            headers: headers::parse(headers::protos!(proto), at, faults)?,
            most_specific_headers_last: proto.most_specific_header_mutations_wins,
            ignore_port: proto.ignore_port_in_host_matching,
            max_direct_response_body,
        })
    }
}

fn host(
    proto: &proto::VirtualHost,
    seen: &mut HashSet<DomainPattern>,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<VirtualHost> {
    let domains = wire::every(&proto.domains, &at.field("domains"), faults, |domain, at, faults| {
        faults.take(at, DomainPattern::parse(domain))
    });
    for (i, domain) in domains.iter().flatten().enumerate() {
        if !seen.insert(domain.clone()) {
            faults.reject::<()>(
                &at.field("domains").index(i),
                format_args!("`{domain}` stands in two virtual hosts"),
            );
        }
    }
    if proto.domains.is_empty() {
        faults.reject::<()>(&at.field("domains"), "must not be empty");
    }
    for (unsupported, field) in [
        (proto.matcher.is_some(), "matcher"),
        (proto.require_tls != 0, "require_tls"),
        (!proto.route_specifiers.is_empty(), "route_specifiers"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let mirrors = action::mirrors(&proto.request_mirror_policies, at, faults);
    let scope = match &mirrors {
        Some(mirrors) if !mirrors.is_empty() => Scope { mirrors, ..*scope },
        _ => *scope,
    };
    let list = at.field("routes");
    let mut routes = Vec::new();
    for (i, proto) in proto.routes.iter().enumerate() {
        let before = faults.len();
        if let Some(Some(route)) = route(proto, &scope, &list.index(i), faults) {
            routes.push(Arc::new(route));
        }
        if faults.len() > before {
            faults.written_at(before, wire::origin(&proto.metadata).as_deref());
        }
    }
    let retry = action::retry_policy(&proto.retry_policy, &proto.retry_policy_typed_config, at, faults);
    let hedge = retry::wire::hedge(&proto.hedge_policy, scope.context, at, faults);
    let overrides = filter::wire::overrides(&proto.typed_per_filter_config, scope.context, at, faults);
    let headers = headers::parse(headers::protos!(proto), at, faults);
    Some(VirtualHost {
        name: proto.name.as_str().into(),
        domains: domains?,
        routes,
        retry: retry?,
        hedge: hedge?,
        overrides: overrides?,
        headers: headers?,
    })
}

/// `Some(None)`: a route that gRPC passes over (A28).
fn route(
    proto: &proto::Route,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Route>> {
    let match_at = at.field("match");
    let matches = faults.required(&match_at, &proto.r#match).and_then(|m| route_match(m, &match_at, faults));
    let action = match &proto.action {
        Some(Action::Route(route)) => match action::parse(route, scope, &at.field("route"), faults) {
            Some(None) => return Some(None),
            Some(Some(forward)) => Some(RouteAction::Forward(Box::new(forward))),
            None => None,
        },
        Some(Action::NonForwardingAction(_)) => Some(RouteAction::NonForwarding),
        Some(Action::Redirect(redirect)) if scope.context.support.has(Feature::Redirect) => {
            let redirect = answer::redirect(redirect, &at.field("redirect"), faults);
            redirect.map(|redirect| RouteAction::Redirect(Arc::new(redirect)))
        }
        Some(Action::DirectResponse(response)) if scope.context.support.has(Feature::DirectResponse) => {
            let at = at.field("direct_response");
            let response = answer::direct_response(response, scope.max_body, &at, faults);
            response.map(|response| RouteAction::DirectResponse(Arc::new(response)))
        }
        // gRPC takes the resource and fails the calls (A28).
        Some(Action::Redirect(_)) => Some(RouteAction::Unsupported("redirect")),
        Some(Action::DirectResponse(_)) => Some(RouteAction::Unsupported("direct_response")),
        Some(Action::FilterAction(_)) => Some(RouteAction::Unsupported("filter_action")),
        None => faults.reject(at, "has no action: one of route and non_forwarding_action is required"),
    };
    if !proto.route_specifiers.is_empty() {
        faults.reject::<()>(&at.field("route_specifiers"), "is not supported");
    }
    let overrides = filter::wire::overrides(&proto.typed_per_filter_config, scope.context, at, faults);
    let headers = headers::parse(headers::protos!(proto), at, faults);
    Some(Some(Route {
        name: proto.name.as_str().into(),
        matches: matches?,
        action: action?,
        overrides: overrides?,
        headers: headers?,
        origin: wire::origin(&proto.metadata),
    }))
}

pub(in crate::resource) fn route_match(
    proto: &proto::RouteMatch,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<RouteMatch> {
    let ignore_case = proto.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    let path = match &proto.path_specifier {
        Some(PathSpecifier::Prefix(value)) => Some(PathMatcher::prefix(value, ignore_case)),
        Some(PathSpecifier::Path(value)) => Some(PathMatcher::exact(value, ignore_case)),
        Some(PathSpecifier::SafeRegex(regex)) => {
            wire::full_regex(&regex.regex, &at.field("safe_regex"), faults).map(PathMatcher::Regex)
        }
        Some(PathSpecifier::PathSeparatedPrefix(value)) => {
            faults.take(&at.field("path_separated_prefix"), PathMatcher::separated_prefix(value, ignore_case))
        }
        Some(PathSpecifier::ConnectMatcher(_)) => {
            faults.reject(&at.field("connect_matcher"), "is not supported: gRPC has no CONNECT")
        }
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            faults.reject(&at.field("path_match_policy"), "is not supported")
        }
        None => faults.reject(&at.field("path_specifier"), "is required"),
    };
    for (unsupported, field) in [
        (proto.tls_context.is_some(), "tls_context"),
        (!proto.dynamic_metadata.is_empty(), "dynamic_metadata"),
        (!proto.filter_state.is_empty(), "filter_state"),
        (!proto.cookies.is_empty(), "cookies"),
    ] {
        if unsupported {
            faults.reject::<()>(&at.field(field), "is not supported");
        }
    }
    let headers = wire::every(&proto.headers, &at.field("headers"), faults, wire::header_matcher);
    let query = wire::every(&proto.query_parameters, &at.field("query_parameters"), faults, query_matcher);
    let fraction_at = at.field("runtime_fraction");
    let fraction_at = fraction_at.field("default_value");
    let fraction = match &proto.runtime_fraction {
        Some(fraction) => {
            let value = faults.required(&fraction_at, &fraction.default_value);
            value.and_then(|value| wire::fraction(value, &fraction_at, faults)).map(Some)
        }
        None => Some(None),
    };
    Some(RouteMatch { path: path?, headers: headers?, query: query?, fraction: fraction? })
}

fn query_matcher(
    proto: &proto::QueryParameterMatcher,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<QueryMatcher> {
    let value = match &proto.query_parameter_match_specifier {
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            Some(wire::string_matcher(matcher, &at.field("string_match"), faults)?)
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return faults.reject(&at.field("present_match"), "must be true");
        }
        Some(QueryParameterMatchSpecifier::PresentMatch(true)) | None => None,
    };
    Some(QueryMatcher { name: proto.name.as_str().into(), value })
}
