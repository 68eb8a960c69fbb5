//! Configuration for this crate's tests, with nothing in it that a test does not ask for.

use mesh_xds::{
    config::{ClusterConfig, XdsConfig},
    matcher::PathMatcher,
    resource::{
        cluster::Cluster,
        endpoint::ClusterLoadAssignment,
        filter::{FilterConfig, FilterOverrides, HttpFilter},
        listener::{HttpConnectionManager, Listener, ListenerKind, RouteSource},
        retry::{BackOff, RetryOn, RetryPolicy},
        route::{
            Destination, Forward, HeaderMutations, Route, RouteAction, RouteConfiguration, RouteMatch,
            VirtualHost,
        },
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub(crate) fn forward(cluster: &str) -> Forward {
    Forward {
        destination: Destination::Cluster(cluster.into()),
        timeout: None,
        max_stream_duration: None,
        grpc_timeout_header_max: None,
        retry: None,
        priority: Default::default(),
        hedge: None,
        hash: Vec::new(),
        authority: None,
        auto_host_rewrite: false,
        path_rewrite: None,
        mirrors: Vec::new(),
    }
}

pub(crate) fn route(path: PathMatcher, forward: Forward) -> Route {
    Route {
        name: "r".into(),
        matches: RouteMatch { path, headers: Vec::new(), query: Vec::new(), fraction: None },
        action: RouteAction::Forward(Box::new(forward)),
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
        origin: None,
    }
}

pub(crate) fn route_for_path(path: PathMatcher) -> Arc<Route> {
    Arc::new(route(path, forward("c")))
}

pub(crate) fn http() -> HttpConnectionManager {
    HttpConnectionManager {
        routes: RouteSource::Rds("routes".into()),
        filters: vec![HttpFilter { name: "router".into(), config: FilterConfig::Router, disabled: false }],
        max_stream_duration: None,
    }
}

pub(crate) fn retry_policy(on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        on,
        num_retries: 2,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        back_off: BackOff { base: Duration::from_millis(25), max: Duration::from_millis(250) },
        avoid_previous_hosts: false,
        host_selection_attempts: 0,
        previous_priorities: None,
        retriable_status_codes: Vec::new(),
        retriable_headers: Vec::new(),
        retriable_request_headers: Vec::new(),
        rate_limited: None,
    }
}

pub(crate) fn cluster(name: &str) -> Arc<ClusterConfig> {
    Arc::new(ClusterConfig {
        cluster: Arc::new(Cluster::eds(name)),
        endpoints: Arc::new(ClusterLoadAssignment::new(name)),
        leaves: Vec::new(),
        secrets: Default::default(),
        note: None,
    })
}

/// The configuration of `reviews:9080` with these routes, and every cluster that they name.
pub(crate) fn config(http: HttpConnectionManager, routes: Vec<Route>) -> XdsConfig {
    let virtual_host = Arc::new(VirtualHost {
        name: "reviews".into(),
        domains: Vec::new(),
        routes: routes.into_iter().map(Arc::new).collect(),
        retry: None,
        hedge: None,
        overrides: FilterOverrides::new(),
        headers: HeaderMutations::default(),
    });
    let clusters: BTreeMap<_, _> =
        virtual_host.clusters().map(|name| (name.clone(), Ok(cluster(name)))).collect();
    XdsConfig {
        listener: Arc::new(Listener { name: "reviews:9080".into(), kind: ListenerKind::Api(http.clone()) }),
        http: Arc::new(http),
        routes: Arc::new(RouteConfiguration::new("routes".into(), vec![virtual_host.clone()])),
        virtual_host,
        clusters,
        version: "7".into(),
    }
}
