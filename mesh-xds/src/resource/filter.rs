//! HTTP filters and their overrides (gRFC A39).
//!
//! An unknown required filter is a fault; an unknown optional one is skipped when parsed.

pub(super) mod wire;

use super::{fault::Fault, rbac::Rbac};
use std::{collections::BTreeMap, sync::Arc};

/// One entry of `http_filters`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpFilter {
    /// Instance name, unique in its connection manager; key of the overrides.
    pub name: Arc<str>,
    /// What it does.
    pub config: FilterConfig,
    /// Off unless an override turns it on.
    pub disabled: bool,
}

/// The filters that this crate knows.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterConfig {
    /// `envoy.extensions.filters.http.router.v3.Router`: terminal.
    Router,
    /// `envoy.extensions.filters.http.fault.v3.HTTPFault` (gRFC A33).
    Fault(Arc<Fault>),
    /// `envoy.extensions.filters.http.rbac.v3.RBAC` (gRFC A41).
    Rbac(Arc<Rbac>),
}

/// What replaces a filter's configuration at a more specific level; never merged.
#[derive(Clone, Debug, PartialEq)]
pub enum FilterOverride {
    /// Off.
    Disabled,
    /// This instead.
    Config(FilterConfig),
}

/// `typed_per_filter_config`, by filter instance name. Precedence: weighted cluster, route, virtual host.
pub type FilterOverrides = BTreeMap<Arc<str>, FilterOverride>;
