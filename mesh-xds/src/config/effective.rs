//! What holds for the requests of a route: what the route, its weighted cluster, its virtual host and its
//! listener say, combined by gRPC's rules (A31, A33, A39, A44) and, for header changes, Envoy's order.
//!
//! Pure, and the only place that combines: data paths compile their tables from it, explanations show it.

use super::XdsConfig;
use crate::resource::{
    fault::Fault,
    filter::{FilterConfig, FilterOverride, FilterOverrides},
    listener::HttpConnectionManager,
    retry::{HedgePolicy, RetryPolicy},
    route::{Forward, HeaderMutations, HeaderValue, Route, WeightedCluster},
    stateful_session::StatefulSession,
};
use std::{sync::Arc, time::Duration};

/// What configuration allows a call, and which resource says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeLimit {
    /// The route.
    Route(Duration),
    /// The listener.
    Listener(Duration),
}

/// Who says something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// One of a route's weighted clusters: the most specific.
    WeightedCluster,
    /// The route.
    Route,
    /// Its virtual host.
    VirtualHost,
    /// Its RouteConfiguration: the least specific.
    RouteConfiguration,
}

/// A route and everything around it that has a say.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'c> {
    config: &'c XdsConfig,
    route: &'c Route,
    forward: &'c Forward,
    weighted: Option<&'c WeightedCluster>,
}

impl XdsConfig {
    /// What holds on a route of this target, for one of its weighted clusters if it has several.
    pub fn effective<'c>(
        &'c self,
        route: &'c Route,
        forward: &'c Forward,
        weighted: Option<&'c WeightedCluster>,
    ) -> Effective<'c> {
        Effective { config: self, route, forward, weighted }
    }
}

impl XdsConfig {
    /// Header changes in the order of their application: from the most specific level to the least specific one,
    /// unless the RouteConfiguration asks for the opposite.
    pub fn header_levels<'c>(
        &'c self,
        route: &'c Route,
        weighted: Option<&'c WeightedCluster>,
    ) -> Vec<(Level, &'c HeaderMutations)> {
        let weighted = weighted.map(|weighted| (Level::WeightedCluster, &weighted.headers));
        let mut levels: Vec<_> = weighted.into_iter().collect();
        levels.extend([
            (Level::Route, &route.headers),
            (Level::VirtualHost, &self.virtual_host.headers),
            (Level::RouteConfiguration, &self.routes.headers),
        ]);
        if self.routes.most_specific_headers_last {
            levels.reverse();
        }
        levels
    }
}

impl TimeLimit {
    /// `grpc_timeout_header_max` masks the route's `max_stream_duration`, which masks the listener's; the one
    /// that is left bounds the call unless it is zero.
    pub fn of(forward: &Forward, http: &HttpConnectionManager) -> Option<Self> {
        let limit = match forward.grpc_timeout_header_max.or(forward.max_stream_duration) {
            Some(duration) => Self::Route(duration),
            None => Self::Listener(http.max_stream_duration?),
        };
        (!limit.duration().is_zero()).then_some(limit)
    }

    /// How long the whole call may last.
    pub fn duration(self) -> Duration {
        match self {
            Self::Route(duration) | Self::Listener(duration) => duration,
        }
    }
}

impl<'c> Effective<'c> {
    /// What bounds a call, apart from its caller.
    pub fn time_limit(&self) -> Option<TimeLimit> {
        TimeLimit::of(self.forward, &self.config.http)
    }

    /// The route's policy, else its virtual host's.
    pub fn retry(&self) -> Option<&'c Arc<RetryPolicy>> {
        self.forward.retry.as_ref().or(self.config.virtual_host.retry.as_ref())
    }

    /// The route's policy, else its virtual host's.
    pub fn hedge(&self) -> Option<&'c HedgePolicy> {
        self.forward.hedge.as_ref().or(self.config.virtual_host.hedge.as_ref())
    }

    /// Header changes, see [`XdsConfig::header_levels`].
    pub fn headers(&self) -> Vec<(Level, &'c HeaderMutations)> {
        self.config.header_levels(self.route, self.weighted)
    }

    /// Faults that are injected, in the order of the filters.
    pub fn faults(&self) -> impl Iterator<Item = &'c Arc<Fault>> + use<'c> {
        self.filters().filter_map(|filter| match filter {
            FilterConfig::Fault(fault) if fault.delay.is_some() || fault.abort.is_some() => Some(fault),
            // Servers enforce RBAC; the router is what comes after the filters; the rest is accepted only by a
            // data path that has it.
            _ => None,
        })
    }

    /// How calls stay with their endpoint. The first filter that says so counts: a call has one endpoint.
    pub fn session(&self) -> Option<&'c Arc<StatefulSession>> {
        self.filters().find_map(|filter| match filter {
            FilterConfig::StatefulSession(session) if session.state.is_some() => Some(session),
            _ => None,
        })
    }

    /// The filters that are on, in their order: the most specific level replaces the others (A39), and may turn on
    /// a filter that is off.
    fn filters(&self) -> impl Iterator<Item = &'c FilterConfig> + use<'c> {
        let this = *self;
        self.config.http.filters.iter().filter_map(move |filter| {
            match this.overrides().find_map(|level| level.get(&filter.name)) {
                Some(FilterOverride::Config(config)) => Some(config),
                // Off, or of another type of filter.
                Some(_) => None,
                None if filter.disabled => None,
                None => Some(&filter.config),
            }
        })
    }

    /// What is sent as `:authority` instead of the target's; the weighted cluster's goes before the route's.
    pub fn authority(&self) -> Option<(Level, &'c HeaderValue)> {
        let weighted = self.weighted.and_then(|weighted| weighted.authority.as_ref());
        match weighted {
            Some(authority) => Some((Level::WeightedCluster, authority)),
            None => Some((Level::Route, self.forward.authority.as_ref()?)),
        }
    }

    /// Filter overrides, most specific first.
    fn overrides(&self) -> impl Iterator<Item = &'c FilterOverrides> + use<'c> {
        let weighted = self.weighted.map(|weighted| &weighted.overrides);
        weighted.into_iter().chain([&self.route.overrides, &self.config.virtual_host.overrides])
    }
}
