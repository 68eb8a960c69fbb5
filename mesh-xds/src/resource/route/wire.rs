//! RouteConfiguration, to and from protobuf.

mod action;
mod headers;

use super::{QueryMatcher, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost};
use crate::{
    field_path::{Faults, Path},
    matcher::{DomainPattern, PathMatcher},
    name::{Name, ResourceType},
    resource::{
        ParseContext, Resource,
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

impl Resource for RouteConfiguration {
    const TYPE: ResourceType = ResourceType::RouteConfiguration;

    fn to_proto(&self) -> Bytes {
        let message = proto::RouteConfiguration {
            name: self.name.to_string(),
            virtual_hosts: self.virtual_hosts.iter().map(|host| encode_host(host)).collect(),
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

fn encode_match(matches: &RouteMatch) -> proto::RouteMatch {
    let (path, ignore_case) = match &matches.path {
        PathMatcher::Prefix { value, ignore_case } => {
            (PathSpecifier::Prefix(value.to_string()), *ignore_case)
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
        let mut seen = HashSet::new();
        let list = at.field("virtual_hosts");
        let mut hosts = Vec::new();
        for (i, proto) in proto.virtual_hosts.iter().enumerate() {
            if let Some(host) = host(proto, &mut seen, context, &list.index(i), faults) {
                hosts.push(Arc::new(host));
            }
        }
        for (unsupported, field) in [
            (proto.vhds.is_some(), "vhds"),
            (!proto.request_headers_to_add.is_empty(), "request_headers_to_add"),
            (!proto.request_headers_to_remove.is_empty(), "request_headers_to_remove"),
            (!proto.response_headers_to_add.is_empty(), "response_headers_to_add"),
            (!proto.response_headers_to_remove.is_empty(), "response_headers_to_remove"),
        ] {
            if unsupported {
                let reason = "is not supported on the route configuration: set it on the virtual host";
                faults.reject::<()>(&at.field(field), reason);
            }
        }
        Some(Self { name, virtual_hosts: hosts })
    }
}

fn host(
    proto: &proto::VirtualHost,
    seen: &mut HashSet<DomainPattern>,
    context: &ParseContext,
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
                format!("`{domain}` stands in two virtual hosts"),
            );
        }
    }
    if proto.domains.is_empty() {
        faults.reject::<()>(&at.field("domains"), "must not be empty");
    }
    let list = at.field("routes");
    let mut routes = Vec::new();
    for (i, proto) in proto.routes.iter().enumerate() {
        let before = faults.len();
        if let Some(Some(route)) = route(proto, context, &list.index(i), faults) {
            routes.push(Arc::new(route));
        }
        if faults.len() > before {
            faults.written_at(before, wire::origin(&proto.metadata).as_deref());
        }
    }
    let retry = match &proto.retry_policy {
        Some(policy) => {
            retry::wire::parse(policy, &at.field("retry_policy"), faults).map(|policy| Some(Arc::new(policy)))
        }
        None => Some(None),
    };
    let overrides =
        filter::wire::overrides(&proto.typed_per_filter_config, &at.field("typed_per_filter_config"), faults);
    let headers = headers::parse(headers::protos!(proto), at, faults);
    Some(VirtualHost {
        name: proto.name.as_str().into(),
        domains: domains?,
        routes,
        retry: retry?,
        overrides: overrides?,
        headers: headers?,
    })
}

/// `Some(None)`: a route that gRPC passes over (A28).
fn route(
    proto: &proto::Route,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<Route>> {
    let match_at = at.field("match");
    let matches = faults.required(&match_at, &proto.r#match).and_then(|m| route_match(m, &match_at, faults));
    let action = match &proto.action {
        Some(Action::Route(route)) => match action::parse(route, context, &at.field("route"), faults) {
            Some(None) => return Some(None),
            Some(Some(forward)) => Some(RouteAction::Forward(Box::new(forward))),
            None => None,
        },
        Some(Action::NonForwardingAction(_)) => Some(RouteAction::NonForwarding),
        Some(Action::Redirect(_)) => Some(RouteAction::Unsupported("redirect")),
        Some(Action::DirectResponse(_)) => Some(RouteAction::Unsupported("direct_response")),
        Some(Action::FilterAction(_)) => Some(RouteAction::Unsupported("filter_action")),
        None => faults.reject(at, "has no action: one of route and non_forwarding_action is required"),
    };
    let overrides =
        filter::wire::overrides(&proto.typed_per_filter_config, &at.field("typed_per_filter_config"), faults);
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

fn route_match(proto: &proto::RouteMatch, at: &Path<'_>, faults: &mut Faults) -> Option<RouteMatch> {
    let ignore_case = proto.case_sensitive.as_ref().is_some_and(|sensitive| !sensitive.value);
    let path = match &proto.path_specifier {
        Some(PathSpecifier::Prefix(value)) => Some(PathMatcher::prefix(value, ignore_case)),
        Some(PathSpecifier::Path(value)) => Some(PathMatcher::exact(value, ignore_case)),
        Some(PathSpecifier::SafeRegex(regex)) => {
            faults.take(&at.field("safe_regex"), PathMatcher::regex(&regex.regex))
        }
        Some(_) => {
            faults.reject(&at.field("path_specifier"), "only prefix, path and safe_regex are supported")
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
