//! Load reports go to the control plane that speaks (`lrs_server: self`, gRFC A71), over connections in memory.

use super::*;
use crate::{
    bootstrap,
    lrs::{LoadReportService, LoadReportSettings, LoadReporter, LoadStore},
    resource::Locality,
    server::testing::{Accepts, dial},
};
use std::{collections::HashMap, future::ready, io};
use tokio::io::DuplexStream;
use tokio_stream::wrappers::ReceiverStream;

/// Control planes by address; one that is not there refuses connections.
#[derive(Clone, Default)]
pub(super) struct Net(Arc<Mutex<HashMap<String, Accepts>>>);

impl Net {
    /// The connections that are made to an address from now on.
    pub(super) fn listen(&self, address: &str) -> ReceiverStream<io::Result<DuplexStream>> {
        let (accepts, connections) = mpsc::channel(16);
        lock(&self.0).insert(address.to_owned(), accepts);
        ReceiverStream::new(connections)
    }
}

impl Connector for Net {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        let endpoint = Endpoint::from_static("http://in-memory");
        let (net, address) = (self.clone(), server.address.clone());
        Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
            let accepts = lock(&net.0).get(&address).cloned();
            ready(accepts.ok_or(io::ErrorKind::ConnectionRefused.into()).and_then(|accepts| dial(&accepts)))
        })))
    }
}

/// A control plane in memory that serves until it is dropped.
struct Memory {
    load: LoadReportService,
    _server: AbortOnDrop,
    ads: AdsService<Source>,
    net: Net,
    address: &'static str,
}

impl Memory {
    fn start(net: &Net, address: &'static str) -> Self {
        let source = Source::new(&mesh(1));
        let ads = AdsService::new(source, AdsSettings::default());
        let load = LoadReportService::new(LoadReportSettings::default());
        let serve = Server::builder()
            .add_service(ads.service())
            .add_service(load.service())
            .serve_with_incoming(net.listen(address));
        let server = AbortOnDrop(tokio::spawn(async move { serve.await.unwrap() }));
        Self { load, _server: server, ads, net: net.clone(), address }
    }

    /// Waits until it has heard of a cluster what is wanted: calls issued, in progress.
    async fn hears(&self, cluster: &str, wanted: (u64, u64)) {
        let mut reports = self.load.reports();
        let all = async {
            loop {
                reports.borrow_and_update();
                let sums = self.load.sums().clusters.get(cluster).map(|cluster| cluster.sums);
                if sums.is_some_and(|sums| (sums.issued, sums.in_progress) == wanted) {
                    return;
                }
                reports.changed().await.unwrap();
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(60), all).await;
        assert!(heard.is_ok(), "{}: {:?}", self.address, self.load.sums());
    }

    fn issued(&self, cluster: &str) -> u64 {
        self.load.sums().clusters.get(cluster).map_or(0, |cluster| cluster.sums.issued)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        lock(&self.net.0).remove(self.address);
        self.ads.close();
        self.load.close();
    }
}

pub(super) fn at(address: &str) -> ServerConfig {
    ServerConfig::new(address, ChannelCredentials::Insecure).unwrap()
}

#[tokio::test(start_paused = true)]
async fn load_goes_to_the_control_plane_that_speaks_and_every_call_is_counted_once() {
    let net = Net::default();
    let mut bootstrap =
        Bootstrap::new(at("first:1"), BootstrapNode { id: "me".into(), ..Default::default() });
    bootstrap.servers.push(at("second:1"));
    let client = XdsClient::spawn_with(&bootstrap, Arc::new(net.clone()), ClientSettings::default());
    let store = Arc::new(LoadStore::default());
    let backoff = BackoffSettings::default();
    let reporter = LoadReporter::spawn(store.clone(), &client, Arc::new(net.clone()), backoff);
    let load = store.cluster(&"a".into(), &"a".into(), now()).locality(&Locality::default());
    let mut speakers = client.speakers();
    let speaks = |speakers: &watch::Receiver<Arc<crate::client::Speakers>>| {
        speakers.borrow().of_cluster("a").unwrap().address.clone()
    };
    assert_eq!(speaks(&speakers), "first:1");

    // The first is away from the start: the second speaks, and hears of all calls.
    let second = Memory::start(&net, "second:1");
    let mut watch = client.config("t", "t");
    assert!(watch.known().await.unwrap().is_ok());
    assert_eq!(speaks(&speakers), "second:1");
    let open = load.begin();
    (0..3).for_each(|_| load.begin().end(true));
    second.hears("a", (4, 1)).await;
    assert!(reporter.error().is_none() && reporter.last_report().is_some());

    // It comes back, and hears of what was counted since, and of the call in progress.
    (0..2).for_each(|_| load.begin().end(true));
    speakers.borrow_and_update();
    let first = Memory::start(&net, "first:1");
    speakers.changed().await.unwrap();
    assert_eq!(speaks(&speakers), "first:1");
    load.begin().end(false);
    first.hears("a", (3, 1)).await;
    second.hears("a", (4, 0)).await;

    // It goes away, and something is asked for that it never told of. A report waits on its broken stream.
    (0..5).for_each(|_| load.begin().end(true));
    let before = first.load.clone();
    drop(first);
    let mut other = client.config("t", "other.example");
    let mut third = client.config("elsewhere", "t");
    let _ = other.known().await;
    let _ = third.known().await;
    assert_eq!(speaks(&speakers), "second:1");
    open.end(true);
    second.hears("a", (4 + 5, 0)).await;
    assert_eq!(before.sums().clusters["a"].sums.issued, 3);
    assert!(reporter.error().is_none(), "{:?}", reporter.error());
}

#[tokio::test(start_paused = true)]
async fn load_of_a_cluster_goes_to_the_control_plane_of_its_authority() {
    let net = Net::default();
    let (ours, theirs) = (Memory::start(&net, "ours:1"), Memory::start(&net, "theirs:1"));
    let authority = bootstrap::Authority { servers: vec![at("theirs:1")], ..bootstrap::Authority::new("x") };
    let bootstrap = Bootstrap::new(at("ours:1"), BootstrapNode { id: "me".into(), ..Default::default() })
        .with_authority("x", authority);
    let client = XdsClient::spawn_with(&bootstrap, Arc::new(net.clone()), ClientSettings::default());
    let store = Arc::new(LoadStore::default());
    let _reporter =
        LoadReporter::spawn(store.clone(), &client, Arc::new(net.clone()), BackoffSettings::default());
    let foreign = "xdstp://x/envoy.config.cluster.v3.Cluster/c";
    let call = |cluster: &str| {
        let load = store.cluster(&cluster.into(), &"".into(), now());
        load.locality(&Locality::default()).begin().end(true);
    };
    call(foreign);
    theirs.hears(foreign, (1, 0)).await;
    assert_eq!(*ours.load.reports().borrow(), 0, "it is asked for nothing");
    call("a");
    call(foreign);
    ours.hears("a", (1, 0)).await;
    theirs.hears(foreign, (2, 0)).await;
    assert_eq!((ours.issued(foreign), theirs.issued("a")), (0, 0));
}
