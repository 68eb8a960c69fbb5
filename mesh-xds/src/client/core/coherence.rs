//! Control planes come and go in any order: no view is ever made of the words of two, and in the end the first one
//! that answers is followed; secrets are no exception, and are never among what is written to disk. What is in force
//! has the newest endpoints that its control plane has said, whatever else is awaited of it.

use super::*;
use crate::{
    bootstrap::{Bootstrap, ChannelCredentials, Node, ServerConfig},
    client::{
        Known, Machine, Parse, Resources, Settings,
        authority::{Action, Plan},
        slot::{Outstanding, Reader},
        store::{Kept, Stored},
        testing,
        wire::Response,
    },
    config::testing::*,
    name::ResourceType,
    proto,
    resource::{Feature, ParseContext, Support, cluster::Discovery, secret::SecretContent},
    server::Variant,
};
use ResourceType::{
    Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS, Secret as SDS,
};
use proptest::prelude::*;
use std::time::Duration;

const SERVERS: usize = 3;
/// What is on disk is of none of them.
const DISK: usize = 9;

/// How a control plane puts together what it has. In all but the first something is named that nobody says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Whole,
    MoreRoutes,
    OtherEndpoints,
    Aggregate,
    Secured,
}

/// What one control plane says, under the names that all of them use; the endpoints after so many moves.
fn said(tag: usize, shape: Shape, moves: u16, kind: ResourceType) -> Vec<AnyResource> {
    let mark = format!("said-by-{tag}");
    let port = u16::try_from(tag * 1000 + 1).unwrap() + moves;
    match kind {
        LDS => vec![listener("t", "r"), listener("other", "r"), listener(&mark, "r")],
        RDS => {
            let all = &["one", "two", "nobody's"][..if shape == Shape::MoreRoutes { 3 } else { 2 }];
            vec![routes("r", &[("t", all), (&mark, &[])])]
        }
        CDS => {
            let two = match shape {
                Shape::Whole | Shape::MoreRoutes => cluster("two"),
                Shape::OtherEndpoints => {
                    let discovery = Discovery::Eds("nobody's".into());
                    AnyResource::Cluster(Arc::new(Cluster::new("two", discovery)))
                }
                Shape::Aggregate => aggregate("two", &["one", "nobody's"]),
                Shape::Secured => secured("two", "own", "nobody's"),
            };
            vec![secured("one", "own", "roots"), two, cluster(&mark)]
        }
        EDS => vec![endpoints("one", port), endpoints("two", port)],
        SDS => vec![key_pair("own", &format!("{KEY}{tag}")), secret_roots("roots", &format!("{KEY}{tag}"))],
    }
}

/// In every secret, before who said it.
const KEY: &str = "secret of ";

fn teller(pem: &[u8]) -> Option<usize> {
    std::str::from_utf8(pem).ok()?.lines().find_map(|line| line.strip_prefix(KEY)?.parse().ok())
}

fn parser() -> Resources {
    let support = Support::of(&[Feature::Sds, Feature::AggregateCluster]);
    Resources { context: ParseContext { support, ..ParseContext::default() } }
}

/// Who said the parts of a view.
fn tags(config: &XdsConfig) -> BTreeSet<usize> {
    let hosts = config.routes.virtual_hosts.iter();
    let marks = hosts.filter_map(|host| host.name.strip_prefix("said-by-")?.parse().ok());
    let clusters = || config.clusters.values().filter_map(|cluster| cluster.as_ref().ok());
    let secrets =
        clusters().flat_map(|cluster| cluster.secrets.identity.iter().chain(&cluster.secrets.roots));
    let tellers = secrets.map(|secret| match &secret.content {
        SecretContent::Certificate(certificate) => teller(certificate.key.pem()).expect("a key of ours"),
        SecretContent::Validation(validation) => teller(&validation.roots).expect("roots of ours"),
    });
    let localities =
        clusters().flat_map(|cluster| &cluster.endpoints.priorities).flat_map(|one| &one.localities);
    let ports = localities.flat_map(|one| &one.endpoints).map(|one| usize::from(one.address().port()) / 1000);
    marks.chain(ports).chain(tellers).collect()
}

/// What happens to one of the control planes, as far as it can.
#[derive(Clone, Debug)]
enum Event {
    Open(usize),
    Close(usize),
    /// Some of its resources of a type, and errors for names that nobody has.
    Say(usize, ResourceType, [bool; 2]),
    /// Everything.
    SayAll(usize),
    /// It has other endpoints, and says so of some.
    Move(usize, [bool; 2]),
    /// It puts together otherwise what it has, and says so.
    Reshape(usize, Shape),
    Refuse(usize, ResourceType),
    /// Something that nobody has is watched, or no longer: then what is known is not enough.
    Stranger,
    /// Everything of a type that has a wildcard is asked for, or no longer.
    List(ResourceType),
    Pass(u32),
    /// The target is watched no longer, and then again.
    Rewatch,
    /// The one who does not look at everything looks.
    Take,
}

fn event() -> impl Strategy<Value = Event> {
    let server = 0..SERVERS;
    let kind = prop::sample::select(ResourceType::ALL.to_vec());
    let shape = prop::sample::select(vec![
        Shape::Whole,
        Shape::MoreRoutes,
        Shape::OtherEndpoints,
        Shape::Aggregate,
        Shape::Secured,
    ]);
    prop_oneof![
        4 => server.clone().prop_map(Event::Open),
        3 => server.clone().prop_map(Event::Close),
        8 => (server.clone(), kind.clone(), prop::array::uniform2(prop::bool::weighted(0.8))).prop_map(|(id, kind, some)| Event::Say(id, kind, some)),
        3 => server.clone().prop_map(Event::SayAll),
        4 => (server.clone(), any::<[bool; 2]>()).prop_map(|(id, some)| Event::Move(id, some)),
        2 => (server.clone(), shape).prop_map(|(id, shape)| Event::Reshape(id, shape)),
        1 => (server, kind).prop_map(|(id, kind)| Event::Refuse(id, kind)),
        2 => Just(Event::Stranger),
        2 => prop::sample::select(vec![LDS, CDS]).prop_map(Event::List),
        2 => (0..20_000_u32).prop_map(Event::Pass),
        1 => Just(Event::Rewatch),
        3 => Just(Event::Take),
    ]
}

#[derive(Clone, Copy, PartialEq)]
enum Link {
    Closed,
    Opening,
    Open,
}

struct World {
    core: Core<Resources>,
    now: Instant,
    links: [Link; SERVERS],
    shapes: [Shape; SERVERS],
    /// How often the endpoints of each have moved.
    moves: [u16; SERVERS],
    /// Somebody has said something.
    answered: bool,
    stranger: bool,
    id: u64,
    published: Reader<XdsConfig>,
    /// Looks now and then.
    lazy: Reader<XdsConfig>,
    /// All clusters, if they are asked for.
    clusters: Option<Reader<ResourceSet<Cluster>>>,
    /// All listeners, the same.
    listeners: Option<Reader<ResourceSet<Listener>>>,
    /// Streams that are not read before that.
    held: [Option<Outstanding>; SERVERS],
}

impl World {
    fn new(strict: [bool; SERVERS], on_disk: bool) -> Self {
        let server = |i: usize| {
            let mut server = ServerConfig::new(&format!("s{i}:1"), ChannelCredentials::Insecure).unwrap();
            server.features.fail_on_data_errors = strict[i];
            server
        };
        let mut bootstrap = Bootstrap::new(server(0), Node::default());
        bootstrap.servers = (0..SERVERS).map(server).collect();
        let machine = |server: &ServerConfig| {
            let settings = Settings {
                max_resource_bytes: 1 << 20,
                server: server.address.as_str().into(),
                fail_on_data_errors: server.features.fail_on_data_errors,
                ..testing::settings(Variant::Sotw)
            };
            Machine::new(parser(), settings)
        };
        let public = ResourceType::ALL.into_iter().filter(|kind| kind.is_public());
        let all = public.flat_map(|kind| said(DISK, Shape::Whole, 0, kind));
        let kept = |resource: AnyResource| {
            let key = (resource.resource_type(), resource.name().clone());
            let (version, server) = ("old".into(), "s0:1".into());
            (key, Kept { body: resource.to_proto(), resource, version, server, confirmed: 0.0 })
        };
        let stored = if on_disk { Stored::of(all.map(kept).collect(), "/cache", 1) } else { Stored::none() };
        let federation = Federation::new(Plan::new(&bootstrap), stored, machine);
        let (_, nothing) = Slot::new();
        let links = [Link::Closed; SERVERS];
        let mut world = Self {
            core: Core::new(federation),
            now: Instant::now(),
            links,
            shapes: [Shape::Whole; SERVERS],
            moves: [0; SERVERS],
            answered: false,
            stranger: false,
            id: 0,
            published: nothing.reader(),
            lazy: nothing.reader(),
            clusters: None,
            listeners: None,
            held: Default::default(),
        };
        world.watch();
        world
    }

    fn watch(&mut self) {
        let (slot, published) = Slot::new();
        (self.published, self.lazy) = (published.reader(), published.reader());
        self.id += 1;
        let begin = Command::WatchClient { id: self.id, listener: "t".into(), authority: "t".into(), slot };
        let actions = self.core.command(self.now, [Command::Unwatch { id: self.id - 1 }, begin]);
        self.carry_out(actions);
    }

    fn carry_out(&mut self, actions: Actions) {
        for (id, action) in actions.io {
            match action {
                Action::Connect => {
                    assert!(self.links[id] == Link::Closed, "one stream at a time");
                    self.links[id] = Link::Opening;
                }
                Action::Disconnect => (self.links[id], self.held[id]) = (Link::Closed, None),
                Action::Send(_) => {
                    assert!(self.links[id] == Link::Open, "nothing is sent where nobody listens")
                }
                Action::Rejected(text) => panic!("{text}"),
            }
        }
    }

    fn input(&mut self, id: usize, input: Input) {
        let mut actions = self.core.on(self.now, id, input);
        if let Some(outstanding) = actions.outstanding.take() {
            assert!(
                self.held[id].replace(outstanding).is_none(),
                "what came was not taken, and it was read on"
            );
        }
        self.carry_out(actions);
    }

    /// A stream of which everything was taken is read on.
    fn read_on(&mut self, id: usize) {
        if self.held[id].take_if(|held| held.is_over()).is_some() {
            self.input(id, Input::Resumed);
        }
    }

    fn say(&mut self, id: usize, kind: ResourceType, some: [bool; 2], refuse: bool) {
        self.read_on(id);
        if self.held[id].is_some() {
            return;
        }
        // Who says it is known of each response.
        let some = some.into_iter().chain([!refuse]);
        let all = || said(id, self.shapes[id], self.moves[id], kind).into_iter();
        let resources = all().zip(some).filter(|(_, say)| *say);
        let any =
            |resource: AnyResource| proto::Any { type_url: kind.url().into(), value: resource.to_proto() };
        let refused = all().filter(|_| refuse).map(|resource| proto::ResourceError {
            resource_name: Some(proto::ResourceName { name: resource.name().to_string() }),
            error_detail: Some(proto::Status { code: 5, message: "no".into() }),
        });
        let response = proto::DiscoveryResponse {
            version_info: "1".into(),
            nonce: "1".into(),
            type_url: kind.url().into(),
            resources: resources.map(|(resource, _)| any(resource)).collect(),
            resource_errors: refused.collect(),
            ..Default::default()
        };
        self.answered = true;
        self.input(id, Input::Response(Response::Sotw(response)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Open(id) if self.links[id] == Link::Opening => {
                self.links[id] = Link::Open;
                self.input(id, Input::Opened);
            }
            Event::Close(id) if self.links[id] != Link::Closed => {
                (self.links[id], self.held[id]) = (Link::Closed, None);
                self.input(id, Input::Closed("x".into()));
            }
            Event::Say(id, kind, some) if self.links[id] == Link::Open => self.say(id, kind, some, false),
            Event::SayAll(id) => {
                for kind in [LDS, RDS, CDS, EDS, SDS] {
                    self.happen(Event::Say(id, kind, [true; 2]));
                }
            }
            Event::Move(id, some) => {
                self.moves[id] = (self.moves[id] + 1) % 900;
                self.happen(Event::Say(id, EDS, some));
            }
            Event::Reshape(id, shape) => {
                self.shapes[id] = shape;
                self.happen(Event::Say(id, CDS, [true; 2]));
                self.happen(Event::Say(id, RDS, [true; 2]));
            }
            Event::Stranger => {
                self.stranger = !self.stranger;
                let (slot, _) = Slot::new();
                let command = match self.stranger {
                    true => Command::WatchServer { id: u64::MAX, listener: "nobody".into(), slot },
                    false => Command::Unwatch { id: u64::MAX },
                };
                let actions = self.core.command(self.now, [command]);
                self.carry_out(actions);
            }
            Event::Refuse(id, kind) if self.links[id] == Link::Open => self.say(id, kind, [false; 2], true),
            Event::Pass(millis) => {
                self.now += Duration::from_millis(millis.into());
                for id in (0..SERVERS).filter(|_| millis >= 5000) {
                    if let Some(held) = self.held[id].take() {
                        held.give_up();
                        self.input(id, Input::Resumed);
                    }
                }
                let actions = self.core.tick(self.now);
                self.carry_out(actions);
            }
            Event::List(kind) => {
                let command = if kind == CDS {
                    let id = u64::MAX - 1;
                    toggled(&mut self.clusters, id, |slot| Command::WatchClusters { id, slot })
                } else {
                    let id = u64::MAX - 2;
                    toggled(&mut self.listeners, id, |slot| Command::WatchListeners { id, slot })
                };
                let actions = self.core.command(self.now, [command]);
                self.carry_out(actions);
            }
            Event::Rewatch => self.watch(),
            Event::Take => {
                drop((self.lazy.borrow(), self.published.borrow(), self.lists()));
                assert!(
                    self.held.iter().flatten().all(Outstanding::is_over),
                    "everybody has taken everything"
                );
            }
            _ => {}
        }
    }

    /// Whether a secret is in what would be written to disk.
    fn tells_the_disk(&self) -> bool {
        let is_secret = |bytes: &[u8]| bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
        self.core.federation.accepted().into_iter().any(|one| {
            let kept = one.good.map(|(_, mark, resource)| parser().keep(&resource, &mark));
            !one.key.0.is_public() || kept.is_some_and(|kept| is_secret(&kept))
        })
    }

    /// Of the clusters and of the listeners: who said what is listed, and whether it is in doubt.
    fn lists(&self) -> [Option<(usize, bool)>; 2] {
        [self.clusters.as_ref().and_then(list), self.listeners.as_ref().and_then(list)]
    }

    /// Whether what is in force has the newest endpoints of whoever speaks, if that is who said it.
    fn is_newest(&self) -> bool {
        let federation = &self.core.federation;
        let (speaker, _) = federation.default_machine().unwrap();
        let is_followed = self.follows().is_some_and(|id| speaker.address == format!("s{id}:1"));
        let published = self.published.borrow().clone();
        let Some(Ok(config)) = published.filter(|_| is_followed && !federation.is_stored()) else {
            return true;
        };
        let clusters = config.clusters.values().filter_map(|cluster| cluster.as_ref().ok());
        let below = |cluster: &Arc<ClusterConfig>| {
            let leaves = cluster.leaves.iter().filter_map(|leaf| leaf.config.as_ref().ok().cloned());
            leaves.chain([cluster.clone()]).collect::<Vec<_>>()
        };
        clusters.flat_map(below).all(|cluster| {
            let Discovery::Eds(service) = &cluster.cluster.discovery else { return true };
            match federation.known(EDS, service) {
                Known::Good { resource: AnyResource::ClusterLoadAssignment(newest), .. } => {
                    *newest == *cluster.endpoints
                }
                _ => true,
            }
        })
    }

    /// Who is followed now; checks that it is one.
    fn follows(&self) -> Option<usize> {
        let published = self.published.borrow().clone();
        let Some(Ok(config)) = published else { return None };
        let tags = tags(&config);
        assert!(tags.len() <= 1, "a view of {tags:?}");
        tags.into_iter().next()
    }
}

/// Begins to watch everything of a type, or ends it.
fn toggled<T>(
    reader: &mut Option<Reader<ResourceSet<T>>>,
    id: u64,
    begin: impl FnOnce(Slot<ResourceSet<T>>) -> Command,
) -> Command {
    if reader.take().is_some() {
        return Command::Unwatch { id };
    }
    let (slot, listed) = Slot::new();
    *reader = Some(listed.reader());
    begin(slot)
}

/// Who said what is listed, and whether it is in doubt; checks that it is one.
fn list<T>(reader: &Reader<ResourceSet<T>>) -> Option<(usize, bool)> {
    let listed = reader.borrow().clone()?.ok()?;
    let tags: Vec<usize> =
        listed.resources.keys().filter_map(|name| name.strip_prefix("said-by-")?.parse().ok()).collect();
    assert!(tags.len() <= 1, "a list of {tags:?}");
    Some((*tags.first()?, listed.note.is_some()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn no_view_is_made_of_the_words_of_two(
        strict in any::<[bool; SERVERS]>(),
        on_disk in any::<bool>(),
        events in prop::collection::vec(event(), 0..120),
    ) {
        let mut world = World::new(strict, on_disk);
        for event in events {
            let before = world.follows();
            let rewatched = matches!(event, Event::Rewatch);
            world.happen(event);
            prop_assert!(!world.tells_the_disk());
            world.lists();
            prop_assert!(world.is_newest(), "endpoints wait for something else");
            if world.follows() == Some(DISK) && world.answered {
                prop_assert!(before == Some(DISK) && !rewatched, "the disk is used though somebody answers");
            }
        }
        // In the end the first one says everything.
        world.shapes[0] = Shape::Whole;
        for _ in 0..10 {
            world.happen(Event::Open(0));
            world.happen(Event::SayAll(0));
            world.happen(Event::Pass(150_000));
        }
        prop_assert_eq!(world.follows(), Some(0));
        let asked = [world.clusters.is_some(), world.listeners.is_some()];
        prop_assert_eq!(world.lists(), asked.map(|asked| asked.then_some((0, false))));
        let config = world.published.borrow().clone().unwrap().unwrap();
        prop_assert!(config.clusters["one"].as_ref().unwrap().secrets.identity.is_some());
        prop_assert!(!world.tells_the_disk());
        prop_assert!(world.links[1..].iter().all(|link| *link == Link::Closed), "the others are let go");
    }
}
