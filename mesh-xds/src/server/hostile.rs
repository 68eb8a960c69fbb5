//! The server against clients that say anything, in any order.

use super::{
    Changes, Delta, Encoded, Input, Protocol, Settings, Sotw, Touched, View,
    testing::{Toys, node},
};
use crate::{
    name::{Name, ResourceType},
    proto,
};
use prop::{collection::vec, sample::select};
use proptest::prelude::*;
use std::{
    any::Any,
    fmt::Debug,
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
fn view(seed: u8, candour: Candour) -> Arc<dyn View> {
    let mut all = std::collections::BTreeMap::new();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        if seed & (1 << i) != 0 {
            let value = if seed & 8 == 0 { "1" } else { "2" };
            all.extend(ResourceType::ALL.map(|kind| ((kind, Name::from(name)), Arc::from(value))));
        }
    }
    Arc::new(Telling { toys: Toys { revision: seed.into(), resources: all }, candour })
}

/// How much a view tells of what changed.
#[derive(Clone, Copy)]
enum Candour {
    Nothing,
    Exactly,
    ByPrefix,
}

struct Telling {
    toys: Toys,
    candour: Candour,
}

impl View for Telling {
    fn revision(&self) -> Arc<str> {
        self.toys.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.toys.resource(kind, name)
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.toys.names(kind)
    }

    fn changes_since(&self, earlier: &dyn View) -> Changes {
        let earlier: &dyn Any = earlier;
        let touched = self.toys.touched_since(&earlier.downcast_ref::<Self>().unwrap().toys);
        match self.candour {
            Candour::Nothing => Changes::Anything,
            Candour::Exactly => Changes::Only(touched),
            Candour::ByPrefix => Changes::Only(touched.into_iter().map(prefix).collect()),
        }
    }
}

fn prefix(touched: Touched) -> Touched {
    let Touched::Resource(kind, name) = &touched else { return touched };
    let prefix = ["a", "b", "c"].into_iter().find(|prefix| name.starts_with(prefix)).unwrap();
    Touched::Prefix(*kind, prefix)
}

/// Runs the events; `request` builds a request, `read` tells type and nonce of a response.
///
/// However much the views tell of what changed, the client is sent the same.
fn run<P: Protocol<Request: Clone, Response: Debug + PartialEq>>(
    events: Vec<Event>,
    request: impl Fn(ResourceType, String, Option<proto::Status>, [Vec<String>; 3]) -> P::Request,
    read: impl Fn(&P::Response) -> (String, String),
) {
    let candours = [Candour::Nothing, Candour::Exactly, Candour::ByPrefix];
    let mut machines = candours.map(|candour| P::new(&node(), view(7, candour), Settings::default()));
    let mut now = Instant::now();
    let mut outstanding = std::collections::HashMap::new();
    for event in events {
        let input = match &event {
            Event::Request { kind, nonce, rejects, names, drops, held } => {
                let nonce = if *nonce == 0 { String::new() } else { nonce.to_string() };
                if outstanding.get(kind.url()) == Some(&nonce) {
                    outstanding.remove(kind.url());
                }
                let error = rejects.then(|| proto::Status { code: 3, message: "a".into() });
                Some(request(*kind, nonce, error, [names.clone(), drops.clone(), held.clone()]))
            }
            Event::Pass(millis) => {
                now += Duration::from_millis((*millis).into());
                None
            }
            Event::View(_) => None,
        };
        let [outputs, exactly, by_prefix] = [0, 1, 2].map(|i| {
            let input = match (&event, &input) {
                (_, Some(request)) => Input::Request(request.clone()),
                (Event::View(seed), None) => Input::View(view(*seed, candours[i])),
                (_, None) => Input::Tick,
            };
            machines[i].on(now, input).unwrap()
        });
        for other in [exactly, by_prefix] {
            assert_eq!(other.responses, outputs.responses);
            assert_eq!((&other.acked, &other.rejected), (&outputs.acked, &outputs.rejected));
        }
        let machine = &machines[0];
        for response in outputs.responses {
            let (kind, nonce) = read(&response);
            assert_eq!(outstanding.insert(kind, nonce), None, "two responses of a type are outstanding");
        }
        assert!(machine.stream().deadline().is_none_or(|due| due > now), "time stands still");
    }
}

fn run_sotw(events: Vec<Event>) {
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
            run_sotw(events);
        }
    }
}

/// Found by [`no_client_can_confuse_a_stream`]: what was named beside a wildcard, and is not there.
#[test]
fn a_missing_name_beside_a_wildcard_is_forgotten_when_it_is_named_no_more() {
    let request = |kind, names: &[&str]| Event::Request {
        kind,
        nonce: 0,
        rejects: false,
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        drops: vec![],
        held: vec![],
    };
    let events = vec![
        request(ResourceType::Cluster, &[]),
        request(ResourceType::RouteConfiguration, &["*", ""]),
        request(ResourceType::RouteConfiguration, &["*"]),
        Event::View(0),
        Event::Pass(1000),
    ];
    run_sotw(events);
}
