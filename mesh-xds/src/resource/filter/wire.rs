//! HTTP filters and their overrides, to and from protobuf (gRFC A39).

use super::{FilterConfig, FilterOverride, FilterOverrides, HttpFilter};
use crate::{
    field_path::{Faults, Path},
    resource::{ParseContext, fault, rbac, wire},
};
use envoy_types::pb::{
    envoy::{
        config::route::v3::FilterConfig as FilterConfigProto,
        extensions::filters::{
            http::{
                fault::v3::HttpFault,
                rbac::v3::{Rbac as RbacProto, RbacPerRoute},
                router::v3::Router,
            },
            network::http_connection_manager::v3::{self as hcm, http_filter::ConfigType},
        },
    },
    google::protobuf::Any,
};
use prost::{Message, Name};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// A message without a type, by its old and its new name.
const TYPED_STRUCTS: [&str; 2] =
    ["type.googleapis.com/udpa.type.v1.TypedStruct", "type.googleapis.com/xds.type.v3.TypedStruct"];

/// Which side a connection manager is on. A filter of the other side would be configured and never run, so
/// it is as good as unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resource) enum Side {
    Client,
    Server,
}

impl Side {
    fn runs(self, config: &FilterConfig) -> bool {
        match config {
            FilterConfig::Router => true,
            FilterConfig::Fault(_) => self == Self::Client,
            FilterConfig::Rbac(_) => self == Self::Server,
        }
    }
}

/// The filters of a connection manager: unique names, known types, the router last and only there.
pub(in crate::resource) fn parse(
    protos: &[hcm::HttpFilter],
    side: Side,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Vec<HttpFilter>> {
    let mut names = BTreeSet::new();
    let mut filters = Vec::new();
    let mut all_right = true;
    for (i, proto) in protos.iter().enumerate() {
        let at = at.index(i);
        if proto.name.is_empty() {
            faults.reject::<()>(&at.field("name"), "is required");
            all_right = false;
        } else if !names.insert(&proto.name) {
            faults.reject::<()>(&at.field("name"), format!("`{}` stands twice", proto.name));
            all_right = false;
        }
        match filter(proto, side, &at, faults) {
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
    side: Side,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<HttpFilter>> {
    let config = match &proto.config_type {
        Some(ConfigType::TypedConfig(any)) => match known(any, &at.field("typed_config"), faults)? {
            Some(config) if side.runs(&config) => config,
            _ if proto.is_optional => return Some(None),
            _ => {
                let side = if side == Side::Client { "client" } else { "server" };
                return faults.reject(
                    &at.field("typed_config"),
                    format!(
                        "filter type {} is not supported on a {side}, and the filter is not optional",
                        type_name(any)
                    ),
                );
            }
        },
        Some(ConfigType::ConfigDiscovery(_)) | None if proto.is_optional => return Some(None),
        Some(ConfigType::ConfigDiscovery(_)) => {
            return faults.reject(&at.field("config_discovery"), "is not supported");
        }
        None => return faults.reject(&at.field("typed_config"), "is required"),
    };
    Some(Some(HttpFilter { name: proto.name.as_str().into(), config, disabled: proto.disabled }))
}

/// `Some(None)`: of a type that is not known here.
fn known(any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Option<FilterConfig>> {
    let inner = type_name(any);
    let url = inner.as_str();
    if inner != any.type_url
        && [HttpFault::type_url(), RbacProto::type_url(), RbacPerRoute::type_url()].contains(&inner)
    {
        return faults.reject(at, format!("{inner} must be sent as itself, not in a TypedStruct"));
    }
    Some(Some(if url == Router::type_url() {
        FilterConfig::Router
    } else if url == HttpFault::type_url() {
        FilterConfig::Fault(Arc::new(fault::wire::parse(&wire::unpack(any, at, faults)?, at, faults)?))
    } else if url == RbacProto::type_url() {
        FilterConfig::Rbac(Arc::new(rbac::wire::parse(&wire::unpack(any, at, faults)?, at, faults)?))
    } else {
        return Some(None);
    }))
}

/// The type inside a TypedStruct, or the type itself.
fn type_name(any: &Any) -> String {
    if TYPED_STRUCTS.contains(&any.type_url.as_str()) {
        // On the wire it looks like an `Any`: the type URL in field 1, a message in field 2.
        return Any::decode(&*any.value).map_or_else(|_| any.type_url.clone(), |inner| inner.type_url);
    }
    any.type_url.clone()
}

/// `typed_per_filter_config` of one level.
pub(in crate::resource) fn overrides(
    protos: &HashMap<String, Any>,
    _context: &ParseContext,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<FilterOverrides> {
    let at = at.field("typed_per_filter_config");
    let mut parsed = FilterOverrides::new();
    let mut all_right = true;
    // Sorted, so that faults come in the same order each time.
    for (name, any) in protos.iter().collect::<BTreeMap<_, _>>() {
        match override_of(any, &at.key(name), faults) {
            Some(Some(value)) => {
                parsed.insert(name.as_str().into(), value);
            }
            Some(None) => {}
            None => all_right = false,
        }
    }
    all_right.then_some(parsed)
}

/// `Some(None)`: of an unknown type, and optional.
fn override_of(any: &Any, at: &Path<'_>, faults: &mut Faults) -> Option<Option<FilterOverride>> {
    let mut optional = false;
    let mut config = any.clone();
    if any.type_url == FilterConfigProto::type_url() {
        let wrapper: FilterConfigProto = wire::unpack(any, at, faults)?;
        if wrapper.disabled {
            return Some(Some(FilterOverride::Disabled));
        }
        optional = wrapper.is_optional;
        config = match wrapper.config {
            Some(config) => config,
            None if optional => return Some(None),
            None => return faults.reject(&at.field("config"), "is required"),
        };
    }
    if config.type_url == RbacPerRoute::type_url() {
        let per_route: RbacPerRoute = wire::unpack(&config, at, faults)?;
        return Some(Some(match per_route.rbac {
            Some(rbac) => {
                FilterOverride::Config(FilterConfig::Rbac(Arc::new(rbac::wire::parse(&rbac, at, faults)?)))
            }
            None => FilterOverride::Disabled,
        }));
    }
    match known(&config, at, faults)? {
        Some(FilterConfig::Router) => faults.reject(at, "the router cannot be overridden"),
        Some(FilterConfig::Rbac(_)) => faults.reject(at, "RBAC is overridden by RBACPerRoute"),
        Some(config) => Some(Some(FilterOverride::Config(config))),
        None if optional => Some(None),
        None => faults
            .reject(at, format!("filter type {} is not supported, and not optional", type_name(&config))),
    }
}

pub(in crate::resource) fn encode(filter: &HttpFilter) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: filter.name.to_string(),
        is_optional: false,
        disabled: filter.disabled,
        config_type: Some(ConfigType::TypedConfig(config_proto(&filter.config))),
    }
}

fn config_proto(config: &FilterConfig) -> Any {
    match config {
        FilterConfig::Router => wire::any(&Router::default()),
        FilterConfig::Fault(fault) => wire::any(&fault::wire::encode(fault)),
        FilterConfig::Rbac(rbac) => Any { type_url: RbacProto::type_url(), value: rbac::wire::encode(rbac) },
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
        FilterOverride::Config(FilterConfig::Rbac(rbac)) => {
            let mut value = Vec::new();
            wire::embed(2, &rbac::wire::encode(rbac), &mut value);
            Any { type_url: RbacPerRoute::type_url(), value }
        }
        FilterOverride::Config(config) => config_proto(config),
    }
}
