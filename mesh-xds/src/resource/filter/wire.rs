//! HTTP filters and their overrides, to and from protobuf (gRFC A39).

use super::{
    FilterConfig, FilterOverride, FilterOverrides, HttpFilter,
    registry::{self, Scope, Side},
};
use crate::{
    field_path::{Faults, Path},
    resource::{ParseContext, composite, ext_authz, jwt, rate_limit_quota, rbac, stateful_session, wire},
};
use envoy_types::pb::{
    envoy::{
        config::route::v3::FilterConfig as FilterConfigProto,
        extensions::filters::network::http_connection_manager::v3::{self as hcm, http_filter::ConfigType},
    },
    google::protobuf::Any,
};
use prost::{Message, Name};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// A message without a type, by its old and its new name.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// The filters of a connection manager: unique names, known types, the router last and only there.
pub(in crate::resource) fn parse(
    protos: &[hcm::HttpFilter],
    side: Side,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<HttpFilter>> {
    let scope = Scope::new(context, Some(side));
    let mut names = BTreeSet::new();
    let mut filters = Vec::new();
    let mut all_right = true;
    for (i, proto) in protos.iter().enumerate() {
        let at = at.index(i);
        if proto.name.is_empty() {
            faults.reject::<()>(&at.field("name"), "is required");
            all_right = false;
        } else if !names.insert(&proto.name) {
            faults.reject::<()>(&at.field("name"), format_args!("`{}` stands twice", proto.name));
            all_right = false;
        }
        match filter(proto, &scope, &at, faults) {
            Some(Some(filter)) => filters.push(filter),
            Some(None) => {}
            None => all_right = false,
        }
    }
    let routers = filters.iter().filter(|filter| filter.config == FilterConfig::Router).count();
    let router_last = filters.last().is_some_and(|filter| filter.config == FilterConfig::Router);
    if all_right && (routers != 1 || !router_last) {
        return faults.reject(at, "the last filter, and no other, must be the router");
    }
    all_right.then_some(filters)
}

/// `Some(None)`: unknown and optional.
fn filter(
    proto: &hcm::HttpFilter,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HttpFilter>> {
    let config = match &proto.config_type {
        Some(ConfigType::TypedConfig(any)) => {
            match config(any, proto.is_optional, scope, &at.field("typed_config"), faults)? {
                Some(config) => config,
                None => return Some(None),
            }
        }
        Some(ConfigType::ConfigDiscovery(_)) | None if proto.is_optional => return Some(None),
        Some(ConfigType::ConfigDiscovery(_)) => {
            return faults.reject(&at.field("config_discovery"), "is not supported");
        }
        None => return faults.reject(&at.field("typed_config"), "is required"),
    };
    Some(Some(HttpFilter { name: proto.name.as_str().into(), config, disabled: proto.disabled }))
}

/// The configuration of a filter. `Some(None)`: of a type that cannot be run here, and optional.
pub(in crate::resource) fn config(
    any: &Any,
    optional: bool,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<FilterConfig>> {
    let url = type_url(any);
    let kind = registry::kind(&url);
    match kind {
        Some(kind) if kind.runs(scope) => {
            own_message(any, &url, at, faults)?;
            (kind.read)(any, scope, at, faults).map(Some)
        }
        _ if optional => Some(None),
        _ => {
            let side = match scope.side {
                Some(Side::Client) => " on a client",
                Some(Side::Server) => " on a server",
                None => "",
            };
            let lacking = match kind.and_then(|kind| kind.feature) {
                Some(feature) if !scope.context.support.has(feature) => {
                    format!(" (it does not have {})", feature.name())
                }
                _ => String::new(),
            };
            let reason =
                format!("filter type {url} is not supported{side}{lacking}, and the filter is not optional");
            faults.reject(at, reason)
        }
    }
}

/// The type inside a TypedStruct, or the type itself.
fn type_url(any: &Any) -> Cow<'_, str> {
    if TYPED_STRUCTS.contains(&registry::message(&any.type_url)) {
        // On the wire it looks like an `Any`: the type URL in field 1, a message in field 2.
        if let Ok(inner) = Any::decode(&*any.value) {
            return inner.type_url.into();
        }
    }
    any.type_url.as_str().into()
}

/// A known type comes as its own message.
fn own_message(any: &Any, url: &str, at: &Path<'_>, faults: &mut Faults) -> Option<()> {
    if url == any.type_url {
        return Some(());
    }
    faults.reject(at, format_args!("{url} must be sent as itself, not in a TypedStruct"))
}

/// `typed_per_filter_config` of the message at `at`.
pub(in crate::resource) fn overrides(
    protos: &HashMap<String, Any>,
    context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<FilterOverrides> {
    let at = at.field("typed_per_filter_config");
    let scope = Scope::new(context, None);
    let mut parsed = FilterOverrides::new();
    let mut all_right = true;
    // Sorted, so that faults come in the same order each time.
    for (name, any) in protos.iter().collect::<BTreeMap<_, _>>() {
        match override_of(any, &scope, &at.key(name), faults) {
            Some(Some(value)) => {
                parsed.insert(name.as_str().into(), value);
            }
            Some(None) => {}
            None => all_right = false,
        }
    }
    all_right.then_some(parsed)
}

/// `Some(None)`: of a type that cannot be run here, and optional.
fn override_of(
    any: &Any,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<FilterOverride>> {
    let mut optional = false;
    let mut config = Cow::Borrowed(any);
    if any.type_url == FilterConfigProto::type_url() {
        let wrapper: FilterConfigProto = wire::unpack(any, at, faults)?;
        if wrapper.disabled {
            return Some(Some(FilterOverride::Disabled));
        }
        optional = wrapper.is_optional;
        config = match wrapper.config {
            Some(config) => Cow::Owned(config),
            None if optional => return Some(None),
            None => return faults.reject(&at.field("config"), "is required"),
        };
    }
    let url = type_url(&config);
    match (registry::per_route(&url), registry::kind(&url)) {
        (Some((kind, read)), _) if kind.runs(scope) => {
            own_message(&config, &url, at, faults)?;
            read(&config, scope, at, faults).map(Some)
        }
        (None, Some(kind)) if kind.runs(scope) => match kind.per_route {
            Some((name, _)) => faults.reject(at, format_args!("{} is overridden by {name}", kind.message)),
            None => faults.reject(at, format_args!("{} cannot be overridden", kind.message)),
        },
        _ if optional => Some(None),
        _ => faults.reject(at, format_args!("filter type {url} is not supported, and not optional")),
    }
}

pub(in crate::resource) fn encode(filter: &HttpFilter) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: filter.name.to_string(),
        is_optional: false,
        disabled: filter.disabled,
        config_type: Some(ConfigType::TypedConfig(registry::encode(&filter.config))),
    }
}

/// `typed_per_filter_config` of one level.
pub(in crate::resource) fn encode_overrides(overrides: &FilterOverrides) -> HashMap<String, Any> {
    overrides.iter().map(|(name, value)| (name.to_string(), override_proto(value))).collect()
}

fn override_proto(value: &FilterOverride) -> Any {
    match value {
        FilterOverride::Disabled => {
            wire::any(&FilterConfigProto { config: None, is_optional: false, disabled: true })
        }
        FilterOverride::Config(FilterConfig::Rbac(rbac)) => rbac::wire::encode_override(rbac),
        FilterOverride::Config(FilterConfig::StatefulSession(session)) => {
            wire::any(&stateful_session::wire::encode_override(session))
        }
        FilterOverride::Config(config) => registry::encode(config),
        FilterOverride::JwtRequirement(name) => wire::any(&jwt::wire::encode_override(name)),
        FilterOverride::CheckSettings(context) => ext_authz::wire::encode_override(context),
        FilterOverride::RateLimitQuota(quota) => rate_limit_quota::wire::encode_override(quota),
        FilterOverride::Composite(tree) => composite::wire::encode_override(tree),
    }
}
