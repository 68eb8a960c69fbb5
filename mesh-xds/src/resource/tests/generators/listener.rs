//! Listeners and their connection managers.

use super::{duration, filter::filters, name, network, route_configuration, text, tls::downstream_tls};
use crate::resource::listener::*;
use proptest::{collection::vec, option, prelude::*};
use std::{net::IpAddr, sync::Arc};

fn manager(server: bool) -> impl Strategy<Value = HttpConnectionManager> {
    let routes = prop_oneof![
        name().prop_map(RouteSource::Rds),
        route_configuration().prop_map(|routes| RouteSource::Inline(Arc::new(routes))),
    ];
    (routes, filters(server), option::of(duration())).prop_map(|(routes, filters, max_stream_duration)| {
        HttpConnectionManager { routes, filters, max_stream_duration }
    })
}

fn chain_match() -> impl Strategy<Value = FilterChainMatch> {
    let transport = prop_oneof![
        Just(TransportProtocol::Any),
        Just(TransportProtocol::RawBuffer),
        Just(TransportProtocol::Tls)
    ];
    let source_type =
        prop_oneof![Just(SourceType::Any), Just(SourceType::SameIpOrLoopback), Just(SourceType::External)];
    (vec(network(), 0..2), transport, source_type, vec(network(), 0..2), vec(any::<u16>(), 0..2)).prop_map(
        |(destination_prefixes, transport, source_type, source_prefixes, source_ports)| FilterChainMatch {
            destination_prefixes,
            transport,
            source_type,
            source_prefixes,
            source_ports,
        },
    )
}

fn chain() -> impl Strategy<Value = FilterChain> {
    (text(), chain_match(), option::of(downstream_tls()), manager(true))
        .prop_map(|(name, matches, tls, http)| FilterChain { name, matches, tls, http })
}

pub(crate) fn listener() -> impl Strategy<Value = Listener> {
    let server = (any::<IpAddr>(), any::<u16>(), vec(chain(), 1..3), option::of(chain())).prop_map(
        |(address, port, chains, default_filter_chain)| {
            // No two chains match the same.
            let chains = chains.into_iter().enumerate().map(|(i, mut chain)| {
                chain.matches.source_ports = vec![u16::try_from(i).unwrap() + 1];
                chain
            });
            ServerListener { address, port, filter_chains: chains.collect(), default_filter_chain }
        },
    );
    let kind = prop_oneof![manager(false).prop_map(ListenerKind::Api), server.prop_map(ListenerKind::Server)];
    (name(), kind).prop_map(|(name, kind)| Listener { name, kind })
}
