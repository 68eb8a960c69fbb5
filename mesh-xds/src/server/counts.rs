//! What a change costs a stream, in counts that do not depend on the machine: what the view is asked, and what is
//! allocated. A change that does not concern a stream costs it the same, and next to nothing, whatever the size of the
//! mesh and however much the stream asks for. `cargo xtask bench --scale` tells the times.

use super::*;
use crate::{
    name::{
        Name,
        ResourceType::{
            self, Cluster as CDS, ClusterLoadAssignment as EDS, Listener as LDS, RouteConfiguration as RDS,
        },
    },
    proto,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

/// How often a view was asked what.
#[derive(Default)]
struct Asked {
    resource: AtomicUsize,
    names: AtomicUsize,
    absence: AtomicUsize,
    changes: AtomicUsize,
}

impl Asked {
    /// Since the last time: resources, names, absences, changes.
    fn take(&self) -> [usize; 4] {
        [&self.resource, &self.names, &self.absence, &self.changes].map(|count| count.swap(0, Relaxed))
    }
}

type Resources = BTreeMap<(ResourceType, Name), Arc<Encoded>>;

/// A view that counts how often it is asked, and knows what it touched.
struct Counted {
    revision: Arc<str>,
    resources: Resources,
    touched: Vec<Touched>,
    asked: Arc<Asked>,
}

impl View for Counted {
    fn revision(&self) -> Arc<str> {
        self.revision.clone()
    }

    fn resource(&self, kind: ResourceType, name: &str) -> Option<Arc<Encoded>> {
        self.asked.resource.fetch_add(1, Relaxed);
        self.resources.get(&(kind, name.into())).cloned()
    }

    fn names(&self, kind: ResourceType) -> Vec<Name> {
        self.asked.names.fetch_add(1, Relaxed);
        self.resources.keys().filter(|(other, _)| *other == kind).map(|(_, name)| name.clone()).collect()
    }

    fn absence(&self, _: ResourceType, _: &str) -> Option<Absence> {
        self.asked.absence.fetch_add(1, Relaxed);
        None
    }

    fn changes_since(&self, _: &dyn View) -> Changes {
        self.asked.changes.fetch_add(1, Relaxed);
        Changes::Only(self.touched.clone())
    }
}

/// A mesh of so many services.
struct Mesh {
    resources: Resources,
    revision: u64,
    asked: Arc<Asked>,
}

impl Mesh {
    fn new(services: usize) -> Self {
        let mut mesh = Self { resources: BTreeMap::new(), revision: 0, asked: Arc::default() };
        for service in 0..services {
            for kind in [CDS, EDS, LDS, RDS] {
                mesh.put(kind, service);
            }
        }
        mesh
    }

    fn put(&mut self, kind: ResourceType, service: usize) -> Name {
        let name: Name = format!("s{service}").into();
        let version = self.revision.to_string().into();
        let encoded = Arc::new(Encoded { name: name.clone(), version, body: "x".into() });
        self.resources.insert((kind, name.clone()), encoded);
        name
    }

    /// The next revision, in which this is another one.
    fn touch(&mut self, kind: ResourceType, service: usize) -> Arc<dyn View> {
        self.revision += 1;
        let touched = vec![Touched::Resource(kind, self.put(kind, service))];
        let revision = format!("r{}", self.revision).into();
        let (resources, asked) = (self.resources.clone(), self.asked.clone());
        Arc::new(Counted { revision, resources, touched, asked })
    }
}

/// One of the machines, and how it is asked.
trait Ask: Protocol {
    fn ask(kind: ResourceType, nonce: &str, names: &[String]) -> Self::Request;
    fn said(response: &Self::Response) -> (ResourceType, String, usize);
}

impl Ask for Delta {
    fn ask(kind: ResourceType, nonce: &str, names: &[String]) -> Self::Request {
        let names = if nonce.is_empty() { names } else { &[] };
        proto::DeltaDiscoveryRequest {
            type_url: kind.url().into(),
            response_nonce: nonce.into(),
            resource_names_subscribe: names.to_vec(),
            ..Default::default()
        }
    }

    fn said(response: &Self::Response) -> (ResourceType, String, usize) {
        let kind = ResourceType::from_url(&response.type_url).unwrap();
        (kind, response.nonce.clone(), response.resources.len())
    }
}

impl Ask for Sotw {
    fn ask(kind: ResourceType, nonce: &str, names: &[String]) -> Self::Request {
        proto::DiscoveryRequest {
            type_url: kind.url().into(),
            response_nonce: nonce.into(),
            resource_names: names.to_vec(),
            ..Default::default()
        }
    }

    fn said(response: &Self::Response) -> (ResourceType, String, usize) {
        let kind = ResourceType::from_url(&response.type_url).unwrap();
        (kind, response.nonce.clone(), response.resources.len())
    }
}

/// A stream whose client has all that it asked for.
struct Settled<P> {
    machine: P,
    now: Instant,
    names: BTreeMap<ResourceType, Vec<String>>,
}

impl<P: Ask> Settled<P> {
    fn new(view: Arc<dyn View>, names: &[(ResourceType, Vec<String>)]) -> Self {
        let node = Node { id: "me".into(), ..Node::default() };
        let machine = P::new(&node, view, Settings::default());
        let mut settled = Self { machine, now: Instant::now(), names: names.iter().cloned().collect() };
        for (kind, names) in names {
            settled.on(Input::Request(P::ask(*kind, "", names)));
        }
        settled
    }

    /// Answers whatever comes, and counts the resources in it.
    fn on(&mut self, input: Input<P::Request>) -> usize {
        let mut responses = self.machine.on(self.now, input).unwrap().responses;
        let mut resources = 0;
        while let Some(response) = responses.pop() {
            let (kind, nonce, count) = P::said(&response);
            resources += count;
            let answer = P::ask(kind, &nonce, &self.names[&kind]);
            responses.extend(self.machine.on(self.now, Input::Request(answer)).unwrap().responses);
        }
        resources
    }
}

fn named(count: usize) -> Vec<String> {
    (0..count).map(|i| format!("s{i}")).collect()
}

/// What a change of something that nobody here asked for costs: resources sent, what the view is asked, allocations.
fn elsewhere<P: Ask>(services: usize, subscribed: usize, lists: bool) -> (usize, [usize; 4], u64) {
    let mut mesh = Mesh::new(services);
    let names = named(subscribed);
    let all = if lists { vec!["*".to_owned()] } else { names.clone() };
    let asked = [(CDS, all.clone()), (EDS, names.clone()), (LDS, all), (RDS, names)];
    let mut stream = Settled::<P>::new(mesh.touch(EDS, 0), &asked);
    assert_eq!(stream.machine.stream().acked_revision().as_deref(), Some("r1"));
    mesh.asked.take();
    let mut costs = Vec::new();
    for kind in [EDS, RDS, EDS] {
        let view = mesh.touch(kind, services - 1);
        let mut sent = 0;
        let counted = allocation_counter::measure(|| sent = stream.on(Input::View(view)));
        costs.push((sent, mesh.asked.take(), counted.count_total));
    }
    assert_eq!(
        stream.machine.stream().acked_revision().as_deref(),
        Some("r4"),
        "it is up to date all the same"
    );
    assert!(costs.windows(2).all(|two| two[0] == two[1]), "{costs:?}");
    costs.remove(0)
}

#[test]
fn a_change_elsewhere_costs_a_stream_the_same_whatever_there_is_and_whatever_it_asks_for() {
    fn each<P: Ask>() {
        for lists in [false, true] {
            let (sent, asked, allocations) = elsewhere::<P>(20, 5, lists);
            assert_eq!((sent, asked), (0, [0, 0, 0, 1]), "nothing but what changed");
            for (services, subscribed) in [(1_000, 5), (1_000, 500)] {
                assert_eq!(
                    elsewhere::<P>(services, subscribed, lists),
                    (sent, asked, allocations),
                    "{services} services, {subscribed} subscribed"
                );
            }
        }
    }
    each::<Delta>();
    each::<Sotw>();
}

/// What a change of one of a stream's own costs.
fn own<P: Ask>(services: usize, lists: bool) -> (usize, [usize; 4]) {
    let mut mesh = Mesh::new(services);
    let names = named(5);
    let all = if lists { vec!["*".to_owned()] } else { names.clone() };
    let mut stream = Settled::<P>::new(mesh.touch(EDS, 0), &[(CDS, all), (EDS, names)]);
    mesh.asked.take();
    let sent = stream.on(Input::View(mesh.touch(EDS, 3)));
    let endpoints = (sent, mesh.asked.take());
    stream.on(Input::View(mesh.touch(CDS, 3)));
    // Of what a wildcard covers, one that changes is looked at by itself; so is one that is named.
    assert_eq!(mesh.asked.take()[..3], endpoints.1[..3], "{services} services, wildcard: {lists}");
    endpoints
}

#[test]
fn a_change_of_its_own_costs_a_stream_what_was_touched() {
    for services in [20, 1_000] {
        for lists in [false, true] {
            // Once to compare, once to send.
            assert_eq!(own::<Delta>(services, lists), (1, [2, 0, 0, 1]));
            assert_eq!(own::<Sotw>(services, lists), (1, [2, 0, 0, 1]));
        }
    }
}

/// Bytes that the machine of an idle stream holds, for each name that it asked for.
fn held<P: Ask>(subscribed: usize) -> f64 {
    let mut mesh = Mesh::new(1_000);
    let names = named(subscribed);
    let asked = [(CDS, names.clone()), (EDS, names)];
    let view = mesh.touch(EDS, 0);
    let mut stream = None;
    let counted = allocation_counter::measure(|| {
        let asked: Vec<_> = asked.iter().map(|(kind, names)| (*kind, names.clone())).collect();
        stream = Some(Settled::<P>::new(view, &asked));
    });
    assert!(stream.is_some());
    counted.bytes_current as f64 / (2 * subscribed) as f64
}

#[test]
fn an_idle_stream_holds_little_for_each_name() {
    for subscribed in [50, 500] {
        for held in [held::<Delta>(subscribed), held::<Sotw>(subscribed)] {
            assert!((16.0..=512.0).contains(&held), "{held} bytes a name of {subscribed}");
        }
    }
}
