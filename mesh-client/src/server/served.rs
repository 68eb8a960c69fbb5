//! From a listener of xDS to the chains that serve (gRFC A36): built once for each change.
//!
//! A listener that is not for this server's address, or not for a server at all, serves nothing. A chain
//! whose TLS cannot be had refuses its connections; one whose routes are missing refuses its requests.
//! What did not change is kept, so that live handshakes and connections are not disturbed.

use super::{
    builder::{ConfigUpdate, Configs},
    filter_chain::{Chain, ChainTls, Chains},
    http::Http,
    state::{Serving, Shared},
};
use crate::tls::Providers;
use futures_util::StreamExt;
use mesh_xds::resource::{
    listener::{FilterChain, ListenerKind, ServerListener},
    tls::DownstreamTls,
};
use std::{net::SocketAddr, sync::Arc};

/// Keeps what is served up to date.
pub(super) async fn configure(
    server: Arc<Shared>,
    mut configs: Configs,
    providers: Arc<Providers>,
    local: SocketAddr,
) {
    let mut held = None;
    let mut chains = None;
    while let Some(update) = configs.next().await {
        if held.as_ref().is_some_and(|held| same(held, &update)) {
            continue;
        }
        let serving = serving(&update, local, &providers, chains.as_deref());
        match &serving {
            Serving::Not(reason) => tracing::error!(%local, %reason, "NOT SERVING"),
            _ => tracing::info!(%local, "serving by a new configuration"),
        }
        if let Serving::By(built) = &serving {
            chains = Some(built.clone());
        }
        server.publish(serving);
        held = Some(update);
    }
}

/// Whether an update says nothing new; a new version of the same is nothing new.
fn same(held: &ConfigUpdate, update: &ConfigUpdate) -> bool {
    match (held, update) {
        (Ok(held), Ok(update)) => held.listener == update.listener && held.routes == update.routes,
        (Err(held), Err(update)) => held == update,
        _ => false,
    }
}

/// What to serve by this configuration; `before` lends the TLS that stays the same.
fn serving(
    config: &ConfigUpdate,
    local: SocketAddr,
    providers: &Arc<Providers>,
    before: Option<&Chains>,
) -> Serving {
    let config = match config {
        Ok(config) => config,
        Err(error) => return Serving::Not(error.to_string().into()),
    };
    let ListenerKind::Server(listener) = &config.listener.kind else {
        let name = &config.listener.name;
        return Serving::Not(
            format!("listener {name} is for clients (api_listener), not for a server").into(),
        );
    };
    if let Some(reason) = wrong_address(listener, local) {
        return Serving::Not(reason.into());
    }
    let build = |chain: &FilterChain| {
        let tls = chain.tls.as_ref().map(|context| tls(context, providers, before));
        if let Some(Err(reason)) = tls.as_ref().map(|tls| &tls.config) {
            tracing::error!(chain = %chain.name, %reason, "a filter chain refuses its connections: no TLS");
        }
        let http = Http::new(&chain.http, &config.routes);
        if let Some(reason) = http.broken_by() {
            tracing::error!(chain = %chain.name, %reason, "a filter chain refuses its requests");
        }
        Arc::new(Chain { name: chain.name.clone(), matches: chain.matches.clone(), tls, http })
    };
    Serving::By(Arc::new(Chains {
        candidates: listener.filter_chains.iter().map(build).collect(),
        default: listener.default_filter_chain.as_ref().map(build),
    }))
}

fn wrong_address(listener: &ServerListener, local: SocketAddr) -> Option<String> {
    let same_ip = listener.address.to_canonical() == local.ip().to_canonical();
    if same_ip && (listener.port == 0 || listener.port == local.port()) {
        return None;
    }
    let theirs = SocketAddr::new(listener.address, listener.port);
    Some(format!("the listener that the control plane sent is for {theirs}, this server listens on {local}"))
}

fn tls(context: &DownstreamTls, providers: &Arc<Providers>, before: Option<&Chains>) -> ChainTls {
    let held = before
        .into_iter()
        .flat_map(Chains::iter)
        .filter_map(|chain| chain.tls.as_ref())
        .find(|tls| tls.context == *context && tls.config.is_ok());
    if let Some(held) = held {
        return held.clone();
    }
    let config = providers.server_tls(context).map_err(|error| error.to_string().into());
    ChainTls { context: context.clone(), config, providers: providers.clone() }
}
