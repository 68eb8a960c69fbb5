//! The server against clients that say anything, in any order.

use super::{
    Delta, Input, Protocol, Settings, Sotw, View,
    testing::{Toys, node},
};
use crate::{name::ResourceType, proto};
use prop::{collection::vec, sample::select};
use proptest::prelude::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[derive(Clone, Debug)]
enum Event {
    Request {
        kind: ResourceType,
        nonce: u8,
        rejects: bool,
        names: Vec<String>,
        drops: Vec<String>,
        held: Vec<String>,
    },
    View(u8),
    Pass(u16),
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(select(vec!["a", "b", "c", "*", "", "nowhere"]).prop_map(str::to_owned), 0..4)
}

fn event() -> impl Strategy<Value = Event> {
    let request = (select(ResourceType::ALL.to_vec()), 0..12_u8, any::<bool>(), names(), names(), names());
    prop_oneof![
        6 => request.prop_map(|(kind, nonce, rejects, names, drops, held)| {
            Event::Request { kind, nonce, rejects, names, drops, held }
        }),
        3 => any::<u8>().prop_map(Event::View),
        2 => (0..4000_u16).prop_map(Event::Pass),
    ]
}

/// Any subset of three resources of each type, in versions that differ.
fn view(seed: u8) -> Arc<dyn View> {
    let mut all = Vec::new();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        if seed & (1 << i) != 0 {
            all.extend(ResourceType::ALL.map(|kind| (kind, name, if seed & 8 == 0 { "1" } else { "2" })));
        }
    }
    Toys::of(seed.into(), &all)
}

/// Runs the events; `request` builds a request, `read` tells type and nonce of a response.
fn run<P: Protocol>(
    events: Vec<Event>,
    request: impl Fn(ResourceType, String, Option<proto::Status>, [Vec<String>; 3]) -> P::Request,
    read: impl Fn(&P::Response) -> (String, String),
) {
    let mut machine = P::new(&node(true), view(7), Settings::default());
    let mut now = Instant::now();
    let mut outstanding = std::collections::HashMap::new();
    for event in events {
        let outputs = match event {
            Event::Request { kind, nonce, rejects, names, drops, held } => {
                let nonce = if nonce == 0 { String::new() } else { nonce.to_string() };
                if outstanding.get(kind.url()) == Some(&nonce) {
                    outstanding.remove(kind.url());
                }
                let error = rejects.then(|| proto::Status { code: 3, message: "a".into() });
                machine.on(now, Input::Request(request(kind, nonce, error, [names, drops, held])))
            }
            Event::View(seed) => machine.on(now, Input::View(view(seed))),
            Event::Pass(millis) => {
                now += Duration::from_millis(millis.into());
                machine.on(now, Input::Tick)
            }
        };
        for response in outputs.unwrap().responses {
            let (kind, nonce) = read(&response);
            assert_eq!(outstanding.insert(kind, nonce), None, "two responses of a type are outstanding");
        }
        assert!(machine.stream().deadline().is_none_or(|due| due > now), "time stands still");
    }
}

proptest! {
    #[test]
    fn no_client_can_confuse_a_stream(is_delta in any::<bool>(), events in vec(event(), 0..80)) {
        if is_delta {
            run::<Delta>(
                events,
                |kind, response_nonce, error_detail, [subscribe, unsubscribe, held]| proto::DeltaDiscoveryRequest {
                    type_url: kind.url().into(),
                    response_nonce,
                    error_detail,
                    resource_names_subscribe: subscribe,
                    resource_names_unsubscribe: unsubscribe,
                    initial_resource_versions: held.into_iter().map(|name| (name, "h:1".to_owned())).collect(),
                    node: None,
                },
                |response| (response.type_url.clone(), response.nonce.clone()),
            );
        } else {
            run::<Sotw>(
                events,
                |kind, response_nonce, error_detail, [resource_names, ..]| proto::DiscoveryRequest {
                    type_url: kind.url().into(),
                    response_nonce,
                    error_detail,
                    resource_names,
                    ..Default::default()
                },
                |response| (response.type_url.clone(), response.nonce.clone()),
            );
        }
    }
}
