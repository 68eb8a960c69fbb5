//! The serving side of the model: what is configured, and the machine of the one stream.

use super::event::{self, Peer};
use crate::{
    client::{Request, Response},
    fuzzing::tape::Served,
    name::{Name, ResourceType},
    server::{
        Absence, Changes, Delta, Encoded, Input, Node, Outputs, Protocol, Settings, Sotw, Stream, Touched,
        Variant, View,
    },
};
use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
    time::Instant,
};
use tonic::Code;

/// What a revision claims to differ in from an earlier one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Claim {
    #[default]
    Anything,
    Exact,
    Prefix,
    TooMuch,
}

/// A revision of everything configured.
#[derive(Default)]
pub(crate) struct Shelf {
    revision: Arc<str>,
    claim: Claim,
    /// Wildcards do not list the last of the names; it can be asked for.
    pub(crate) hides: bool,
    pub(crate) resources: BTreeMap<event::Key, u8>,
}

/// Name, value and encoding of everything that there could be.
fn encoded(name: u8, value: u8) -> Arc<Encoded> {
    type All = BTreeMap<(u8, u8), Arc<Encoded>>;
    static ALL: LazyLock<All> = LazyLock::new(|| {
        let all = (0..3).flat_map(|name| (0..event::VALUES).map(move |value| (name, value)));
        all.map(|(n, v)| {
            let (name, value) = (event::name(n), event::value(v));
            let body = format!("{name}={value}").into_bytes().into();
            ((n, v), Arc::new(Encoded { version: version(&value), name, body }))
        })
        .collect()
    });
    ALL[&(name, value)].clone()
}

/// The version of a value.
pub(crate) fn version(value: &str) -> Arc<str> {
    format!("h:{value}").into()
}

impl Shelf {
    /// Whether something is rejected that may name a resource of this type, by a client that has `wanted`: nothing of
    /// the type is taken from it then.
    pub(crate) fn keeps(&self, kind: ResourceType, wanted: impl Fn(ResourceType, &Name) -> bool) -> bool {
        let is_bad = |kind, name: &Name| self.get(kind, name).is_some_and(|value| value.starts_with("bad"));
        let names = || (0..event::NAMES).map(event::name);
        kind.users().iter().any(|user| names().any(|name| is_bad(*user, &name) && wanted(*user, &name)))
    }
}

/// The index of a name that a client may have made up.
fn index(name: &str) -> Option<u8> {
    name.strip_prefix('n')?.parse().ok()
}

impl Shelf {
    /// The value of the resource of a name.
    pub(crate) fn get(&self, kind: ResourceType, name: &str) -> Option<Arc<str>> {
        self.value(kind, name).filter(|value| !is_absent(value))
    }

    /// Why there is none, if there is more to say than that.
    pub(crate) fn refusal(&self, kind: ResourceType, name: &str) -> Option<Arc<str>> {
        self.value(kind, name).filter(|value| is_absent(value))
    }

    /// Whether a wildcard stands for the resource of a name.
    pub(crate) fn lists(&self, kind: ResourceType, name: &str) -> bool {
        self.get(kind, name).is_some() && !(self.hides && index(name) == Some(event::NAMES - 1))
    }

    /// Everything that there is of a type.
    pub(crate) fn all(&self, kind: ResourceType) -> impl Iterator<Item = (Name, Arc<str>)> {
        let names = (0..event::NAMES).map(event::name);
        names.filter_map(move |name| Some((name.clone(), self.get(kind, &name)?)))
    }

    /// All of it.
    pub(crate) fn served(&self) -> Served {
        let of = |kind| self.all(kind).map(move |(name, value)| ((kind, name), value.to_string()));
        ResourceType::ALL.into_iter().flat_map(of).collect()
    }

    fn value(&self, kind: ResourceType, name: &str) -> Option<Arc<str>> {
        Some(event::value(*self.resources.get(&(kind, index(name)?))?))
    }

    pub(crate) fn empty(claim: Claim) -> Self {
        Self { claim, ..Self::default() }
    }

    /// What comes after it, so far with the same resources.
    pub(crate) fn next(&self, revision: usize) -> Self {
        let Self { claim, hides, ref resources, .. } = *self;
        Self { revision: format!("r{revision}").into(), claim, hides, resources: resources.clone() }
    }

    pub(crate) fn revision(&self) -> Arc<str> {
        self.revision.clone()
    }
}

fn is_absent(value: &str) -> bool {
    value.starts_with("err") || value.starts_with("gone")
}

impl View for Shelf {
    fn revision(&self) -> Arc<str> {
        self.revision()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.get(kind, name)?;
        let name = index(name)?;
        Some(encoded(name, *self.resources.get(&(kind, name))?))
    }

    fn absence(&self, kind: ResourceType, name: &str) -> Option<Absence> {
        let value = self.refusal(kind, name)?;
        let code = if value.starts_with("err") { Code::InvalidArgument } else { Code::NotFound };
        Some(Absence { code, message: format!("{value} is refused").into() })
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.all(kind).map(|(name, _)| name).filter(|name| self.lists(kind, name)).collect()
    }

    fn changes_since(&self, earlier: &dyn View) -> Changes {
        let earlier: &dyn Any = earlier;
        let Some(earlier) = earlier.downcast_ref::<Self>() else { return Changes::Anything };
        let keys: BTreeSet<_> = self.resources.keys().chain(earlier.resources.keys()).collect();
        let differs = |key: &&event::Key| self.resources.get(key) != earlier.resources.get(key);
        let resource = |(kind, name): &event::Key| Touched::Resource(*kind, event::name(*name));
        match self.claim {
            Claim::Anything => Changes::Anything,
            Claim::Exact => Changes::Only(keys.into_iter().filter(differs).map(resource).collect()),
            Claim::Prefix => {
                let kinds: BTreeSet<_> = keys.into_iter().filter(differs).map(|(kind, _)| *kind).collect();
                Changes::Only(kinds.into_iter().map(|kind| Touched::Prefix(kind, "n")).collect())
            }
            Claim::TooMuch => {
                let nothing = (0..20).map(|i| (ResourceType::Cluster, format!("m{i}")));
                let nothing = nothing.map(|(kind, name)| Touched::Resource(kind, name.into()));
                Changes::Only(keys.into_iter().map(resource).chain(nothing).collect())
            }
        }
    }
}

/// One of the two machines, speaking the client's words.
pub(crate) enum Server {
    Sotw(Sotw),
    Delta(Delta),
}

/// What a machine gives out.
pub(crate) struct Given {
    pub(crate) responses: Vec<Response>,
    pub(crate) rejected: bool,
}

impl Server {
    pub(crate) fn new(variant: Variant, peer: Peer, shelf: Arc<Shelf>) -> Self {
        let mut node = Node { id: "me".into(), ..Node::default() };
        if peer == Peer::Envoy {
            node.user_agent = "envoy".into();
        }
        match variant {
            Variant::Sotw => Self::Sotw(Sotw::new(&node, shelf, Settings::default())),
            Variant::Delta => Self::Delta(Delta::new(&node, shelf, Settings::default())),
        }
    }

    pub(crate) fn request(&mut self, now: Instant, request: Request) -> Given {
        match (self, request) {
            (Self::Sotw(machine), Request::Sotw(request)) => {
                given(machine.on(now, Input::Request(request)).unwrap(), Response::Sotw)
            }
            (Self::Delta(machine), Request::Delta(request)) => {
                given(machine.on(now, Input::Request(request)).unwrap(), Response::Delta)
            }
            _ => panic!("the variants differ"),
        }
    }

    /// Shows it a revision, or lets it look at the clock.
    pub(crate) fn other(&mut self, now: Instant, shelf: Option<Arc<Shelf>>) -> Given {
        fn input<R>(shelf: Option<Arc<Shelf>>) -> Input<R> {
            shelf.map_or(Input::Tick, |shelf| Input::View(shelf))
        }
        match self {
            Self::Sotw(machine) => given(machine.on(now, input(shelf)).unwrap(), Response::Sotw),
            Self::Delta(machine) => given(machine.on(now, input(shelf)).unwrap(), Response::Delta),
        }
    }

    pub(crate) fn stream(&self) -> &Stream {
        match self {
            Self::Sotw(machine) => machine.stream(),
            Self::Delta(machine) => machine.stream(),
        }
    }
}

fn given<R>(outputs: Outputs<R>, response: impl Fn(R) -> Response) -> Given {
    Given {
        rejected: outputs.rejected.is_some(),
        responses: outputs.responses.into_iter().map(response).collect(),
    }
}
