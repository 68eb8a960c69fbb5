//! The client against a control plane that says anything, in any order.

use super::*;
use crate::client::testing::{Toy, any as body, settings, wrapper};
use prop::{collection::vec, sample::select};
use proptest::prelude::*;

fn kind() -> impl Strategy<Value = ResourceType> {
    select(ResourceType::ALL.to_vec())
}

fn text() -> impl Strategy<Value = String> {
    select(vec!["a=1", "a=2", "b=1", "a=bad", "b=panic", "?", "c=1", ""]).prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    select(vec!["a", "b", "c", "", "*"]).prop_map(str::to_owned)
}

fn url() -> impl Strategy<Value = String> {
    prop_oneof![9 => kind().prop_map(|kind| kind.url().to_owned()), 1 => Just("type.googleapis.com/x".to_owned())]
}

fn error() -> impl Strategy<Value = proto::ResourceError> {
    (name(), 0..17_i32).prop_map(|(name, code)| proto::ResourceError {
        resource_name: Some(proto::ResourceName { name }),
        error_detail: Some(proto::Status { code, message: "x".into() }),
    })
}

/// No time, a sound one, or one that is none.
fn ttl() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let seconds = select(vec![None, None, Some(1), Some(30), Some(0), Some(-1), Some(i64::MAX)]);
    seconds.prop_map(|seconds| seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }))
}

/// A wrapper, or a heart-beat.
fn wrapped() -> impl Strategy<Value = proto::Resource> {
    (kind(), name(), text(), ttl(), any::<bool>()).prop_map(|(kind, name, text, ttl, beats)| {
        let whole = wrapper(kind, &name, "v", &text);
        proto::Resource { ttl, resource: whole.resource.filter(|_| !beats), ..whole }
    })
}

fn sotw() -> impl Strategy<Value = Response> {
    (url(), vec((kind(), text()), 0..4), vec(error(), 0..2), 0..9_u8).prop_map(
        |(type_url, bodies, resource_errors, nonce)| {
            Response::Sotw(proto::DiscoveryResponse {
                version_info: nonce.to_string(),
                resources: bodies.iter().map(|(kind, text)| body(*kind, text)).collect(),
                type_url,
                nonce: nonce.to_string(),
                control_plane: None,
                resource_errors,
            })
        },
    )
}

fn delta() -> impl Strategy<Value = Response> {
    (url(), vec(wrapped(), 0..4), vec(name(), 0..3), vec(error(), 0..2), 0..9_u8).prop_map(
        |(type_url, resources, removed_resources, resource_errors, nonce)| {
            Response::Delta(proto::DeltaDiscoveryResponse {
                system_version_info: nonce.to_string(),
                resources,
                type_url,
                nonce: nonce.to_string(),
                removed_resources,
                control_plane: None,
                resource_errors,
            })
        },
    )
}

#[derive(Clone, Debug)]
enum Event {
    Interest(Vec<(ResourceType, String)>, Vec<(ResourceType, String)>),
    Opened,
    Established,
    Response(Response),
    Closed,
    Unreadable,
    Pass(u32),
    Forget(Vec<(ResourceType, String)>),
    Hangup,
}

fn event() -> impl Strategy<Value = Event> {
    let keys = || vec((kind(), select(vec!["a", "b", "c", "*"]).prop_map(str::to_owned)), 0..3);
    prop_oneof![
        3 => (keys(), keys()).prop_map(|(add, remove)| Event::Interest(add, remove)),
        2 => Just(Event::Opened),
        1 => Just(Event::Established),
        4 => sotw().prop_map(Event::Response),
        4 => delta().prop_map(Event::Response),
        1 => Just(Event::Closed),
        1 => Just(Event::Unreadable),
        2 => (0..40_000_u32).prop_map(Event::Pass),
        1 => keys().prop_map(Event::Forget),
        1 => Just(Event::Hangup),
    ]
}

proptest! {
    #[test]
    fn no_control_plane_can_confuse_it(is_delta in any::<bool>(), events in vec(event(), 0..60)) {
        let variant = if is_delta { Variant::Delta } else { Variant::Sotw };
        let mut machine = Machine::new(Toy, settings(variant));
        let mut now = Instant::now();
        let mut asked = BTreeSet::new();
        let keys = |keys: Vec<(ResourceType, String)>| keys.into_iter().map(|(k, n)| (k, n.into())).collect();
        for event in events {
            let was_open = machine.is_open();
            let out = match event {
                Event::Interest(add, remove) => {
                    machine.on(now, Input::Interest { add: keys(add), remove: keys(remove) })
                }
                Event::Opened => machine.on(now, Input::Opened),
                Event::Established => machine.on(now, Input::Established),
                Event::Response(response) => machine.on(now, Input::Response(response)),
                Event::Closed => {
                    asked.clear();
                    machine.on(now, Input::Closed("x".into()))
                }
                Event::Unreadable => {
                    asked.clear();
                    machine.on(now, Input::Unreadable("y".into()))
                }
                Event::Forget(names) => machine.on(now, Input::Forget(keys(names))),
                Event::Hangup => {
                    let out = machine.on(now, Input::Hangup);
                    if out.disconnect {
                        asked.clear();
                    }
                    out
                }
                Event::Pass(millis) => {
                    now += Duration::from_millis(millis.into());
                    machine.on(now, Input::Tick)
                }
            };
            prop_assert!(out.requests.is_empty() || was_open || machine.is_open());
            for request in &out.requests {
                let (url, names, of_variant) = match request {
                    Request::Sotw(r) => (&r.type_url, &r.resource_names, !is_delta),
                    Request::Delta(r) => (&r.type_url, &r.resource_names_subscribe, is_delta),
                };
                prop_assert!(of_variant && ResourceType::from_url(url).is_some());
                // An empty first list would be a wildcard.
                prop_assert!(!asked.insert(url.clone()) || !names.is_empty(), "a wildcard: {request:?}");
                if let Some(kind) = ResourceType::from_url(url).filter(|_| names.contains(&"*".to_owned())) {
                    prop_assert!(kind.has_wildcard() && machine.types[kind as usize].is_wild(), "{request:?}");
                }
            }
            prop_assert!(out.changed.iter().all(|(kind, name)| ["a", "b", "c", "*"].contains(&&**name)
                && machine.types[*kind as usize].entries.contains_key(name)));
            prop_assert!(machine.deadline().is_none_or(|due| due > now), "time stands still");
            for (kind, state) in ResourceType::ALL.into_iter().zip(&machine.types) {
                let may_stay = |entry: &Entry<_>| {
                    entry.references > 0 || entry.due.is_some() || entry.listed && state.entries.contains_key("*")
                };
                prop_assert!(state.entries.values().all(may_stay), "only what is watched is kept");
                if let Known::Good { resource, .. } = machine.listing(kind) {
                    let says_something = |name: &Name, one: &crate::client::Listed<_>| {
                        **name != *"*" && (one.resource.is_some() || one.error.is_some())
                    };
                    prop_assert!(resource.iter().all(|(name, one)| says_something(name, one)));
                }
            }
        }
    }
}
