//! The reporting machine as scripts, and both tasks over a loopback connection.

use super::*;
use crate::{
    bootstrap::{Bootstrap, ServerConfig},
    client::{BackoffSettings, Connector, XdsClient},
    proto,
    resource::Locality,
};
use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::Node,
            endpoint::v3::{ClusterStats, UpstreamLocalityStats},
        },
        service::load_stats::v3::{
            LoadStatsRequest, LoadStatsResponse, load_reporting_service_client::LoadReportingServiceClient,
        },
    },
    google::protobuf::Duration as DurationProto,
};
use prost::Message;
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Server},
};

struct Script {
    store: Arc<LoadStore>,
    reporter: Reporter,
    now: Instant,
}

impl Script {
    fn new() -> Self {
        let store = Arc::new(LoadStore::default());
        let node = proto::Node { id: "me".into(), ..Default::default() };
        let reporter = Reporter::new(&node, BackoffSettings::default(), 1);
        Self { store, reporter, now: Instant::now() }
    }

    /// Opened, and told to report all clusters every ten seconds.
    fn reporting() -> Self {
        let mut script = Self::new();
        assert!(script.on(Input::Used).connect.is_some());
        script.on(Input::Response(wanted(10, &[])));
        script
    }

    fn on(&mut self, input: Input) -> Outputs {
        self.reporter.on(self.now, input)
    }

    fn call(&self, cluster: &str) {
        let load = self.store.cluster(&cluster.into(), &cluster.into(), self.now);
        load.locality(&Locality::default()).begin().end(true);
    }

    fn wait(&self) -> Option<Duration> {
        self.reporter.deadline().map(|due| due - self.now)
    }

    /// Waits for the deadline; the clusters of the report, with the seconds that it is about.
    fn report(&mut self) -> Vec<(String, i64)> {
        self.now = self.reporter.deadline().expect("something is due");
        let outputs = self.on(Input::Tick);
        assert_eq!(outputs.connect, None);
        let wanted = outputs.report.expect("a report is due");
        let claim = |name: &str| match wanted.as_ref().is_none_or(|wanted| wanted.contains(name)) {
            true => Claim::Wanted,
            false => Claim::Unwanted,
        };
        let of = |stats: envoy_types::pb::envoy::config::endpoint::v3::ClusterStats| {
            (stats.cluster_name, stats.load_report_interval.unwrap().seconds)
        };
        self.store.take(self.now, claim).into_iter().map(of).collect()
    }
}

/// Of these clusters; of none means of all.
fn wanted(seconds: i64, clusters: &[&str]) -> LoadStatsResponse {
    LoadStatsResponse {
        send_all_clusters: clusters.is_empty(),
        clusters: clusters.iter().map(ToString::to_string).collect(),
        load_reporting_interval: Some(DurationProto { seconds, nanos: 0 }),
        ..LoadStatsResponse::default()
    }
}

#[test]
fn a_stream_begins_with_the_node_and_reports_when_it_was_told_how_often() {
    let mut script = Script::new();
    assert_eq!(script.wait(), None, "there is nothing to report");
    let outputs = script.on(Input::Used);
    let node = outputs.connect.unwrap().node.unwrap();
    assert_eq!(node.id, "me");
    assert_eq!(node.client_features, [SEND_ALL_CLUSTERS_FEATURE]);
    script.call("a");
    assert_eq!(script.wait(), None, "nobody said how often");
    script.on(Input::Response(wanted(10, &[])));
    assert_eq!(script.wait(), Some(Duration::from_secs(10)));
    assert_eq!(script.report(), [("a".to_owned(), 10)]);
    assert_eq!(script.report(), [], "nothing happened, which is said");
    script.call("a");
    assert_eq!(script.report(), [("a".to_owned(), 10)], "the time when nothing happened is not part of it");
}

#[test]
fn what_is_wanted_may_change_at_any_time_and_a_repetition_puts_nothing_off() {
    let mut script = Script::reporting();
    let _in_use = script.store.cluster(&"a".into(), &"a".into(), script.now);
    script.call("a");
    script.call("b");
    script.now += Duration::from_secs(4);
    script.on(Input::Response(wanted(10, &["b"])));
    assert_eq!(script.wait(), Some(Duration::from_secs(6)));
    assert_eq!(script.report(), [("b".to_owned(), 10)]);
    script.on(Input::Response(wanted(3, &["a"])));
    assert_eq!(script.wait(), Some(Duration::from_secs(3)));
    assert_eq!(script.report(), [("a".to_owned(), 13)], "from when it was counted first");
}

#[test]
fn an_interval_that_is_none_is_no_loop() {
    for interval in [None, Some((0, 0)), Some((-5, 0)), Some((0, -1)), Some((0, 1))] {
        let mut script = Script::new();
        script.on(Input::Used);
        let load_reporting_interval = interval.map(|(seconds, nanos)| DurationProto { seconds, nanos });
        script.on(Input::Response(LoadStatsResponse { load_reporting_interval, ..wanted(1, &[]) }));
        assert_eq!(script.wait(), Some(Duration::from_millis(100)), "{interval:?}");
    }
}

#[test]
fn an_interval_beyond_every_clock_is_a_year() {
    let mut script = Script::new();
    script.on(Input::Used);
    script.on(Input::Response(wanted(i64::MAX, &[])));
    assert_eq!(script.wait(), Some(Duration::from_secs(365 * 24 * 3600)));
}

#[test]
fn what_is_counted_while_the_control_plane_is_away_is_reported_when_it_is_back() {
    let mut script = Script::reporting();
    script.call("a");
    script.now += Duration::from_secs(5);
    script.on(Input::Closed("cut".into()));
    assert_eq!(script.reporter.error().map(|why| &**why), Some("cut"));
    let wait = script.wait().unwrap();
    assert!(wait <= Duration::from_millis(200), "it had worked: {wait:?}");
    script.now += Duration::from_secs(100);
    let outputs = script.on(Input::Tick);
    assert!(outputs.connect.unwrap().node.is_some());
    script.call("a");
    script.on(Input::Response(wanted(10, &[])));
    assert_eq!(script.reporter.error(), None);
    assert_eq!(script.report(), [("a".to_owned(), 115)]);
}

#[test]
fn streams_that_say_nothing_are_opened_again_ever_more_slowly() {
    let mut script = Script::new();
    script.on(Input::Used);
    let mut waits = Vec::new();
    for _ in 0..15 {
        script.on(Input::Closed("no".into()));
        waits.push(script.wait().unwrap());
        script.now = script.reporter.deadline().unwrap();
        assert!(script.on(Input::Tick).connect.is_some());
    }
    assert!(waits[0] < Duration::from_millis(1300), "{waits:?}");
    assert!(*waits.last().unwrap() > Duration::from_secs(90), "{waits:?}");
}

/// Connects to one address, and counts how often.
struct To(SocketAddr, AtomicUsize);

impl Connector for To {
    fn connect(&self, _: &ServerConfig) -> Result<Channel, String> {
        self.1.fetch_add(1, Ordering::SeqCst);
        Ok(channel(self.0))
    }
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

async fn serve(service: &LoadReportService) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Server::builder().add_service(service.service());
    tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

fn bootstrap() -> Bootstrap {
    let json = r#"{"xds_servers": [{"server_uri": "localhost:1", "channel_creds": [{"type": "insecure"}]}], "node": {"id": "me"}}"#;
    Bootstrap::from_json(json, "the test").unwrap()
}

#[tokio::test]
async fn calls_arrive_at_the_control_plane_as_they_were_counted() {
    let interval = Duration::from_millis(100);
    let service = LoadReportService::new(LoadReportSettings { interval, ..LoadReportSettings::default() });
    let address = serve(&service).await;
    let mut reports = service.reports();
    let store = Arc::new(LoadStore::default());
    let connector = Arc::new(To(address, AtomicUsize::new(0)));
    let client = XdsClient::spawn(Arc::new(bootstrap()), connector.clone());
    let reporter = LoadReporter::spawn(store.clone(), &client, connector.clone(), BackoffSettings::default());
    tokio::task::yield_now().await;
    assert_eq!(connector.1.load(Ordering::SeqCst), 0, "nothing is counted, so nothing is opened");

    let load = store.cluster(&"c".into(), &"".into(), Instant::now());
    let here = load.locality(&Locality { zone: "here".into(), ..Locality::default() });
    (0..7).for_each(|i| here.begin().end(i != 0));
    let open = here.begin();
    load.dropped(&"lb".into());
    reports.wait_for(|count| *count > 0).await.unwrap();
    let sums = service.sums();
    let cluster = &sums.clusters["c"];
    assert_eq!(cluster.sums, Sums { issued: 8, successes: 6, errors: 1, in_progress: 1 });
    assert_eq!((cluster.dropped, cluster.drops["lb"]), (1, 1));
    assert_eq!(cluster.localities["/here/"], cluster.sums);
    assert_eq!(reporter.error(), None);
    assert!(reporter.last_report().is_some());

    // A client that goes has nothing in progress any more; what it did stays done.
    drop((reporter, open));
    while service.sums().clusters["c"].sums.in_progress > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(service.sums().clusters["c"].sums.issued, 8);
}

/// Load reports of gRPC's C-core and of grpc-js, as they sent them (`server/recorded.rs`): five calls each time, to
/// cluster `a`, then to `a` and `b`.
#[tokio::test(start_paused = true)]
async fn what_other_implementations_report_is_summed_up() {
    for client in ["c-core", "grpc-js"] {
        let service = LoadReportService::new(LoadReportSettings::default());
        let channel = crate::server::testing::in_memory(Server::builder().add_service(service.service()));
        let loads = crate::server::recorded::loads(client);
        let loads = loads.iter().map(|bytes| LoadStatsRequest::decode(&**bytes).unwrap()).collect::<Vec<_>>();
        let issued = |cluster: &str| {
            let all = loads.iter().flat_map(|load| &load.cluster_stats);
            let all = all.filter(|stats| stats.cluster_name == cluster);
            all.flat_map(|stats| &stats.upstream_locality_stats)
                .map(|of| of.total_issued_requests)
                .sum::<u64>()
        };
        let (a, b) = (issued("a"), issued("b"));
        assert!(a >= 5 && b > 0, "{client}: {loads:?}");
        let reports = loads.len() as u64 - 1;
        let (sender, receiver) = mpsc::channel(100);
        for load in loads {
            sender.send(load).await.unwrap();
        }
        let mut client_side = LoadReportingServiceClient::new(channel);
        let mut responses =
            client_side.stream_load_stats(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().unwrap().send_all_clusters, "{client}");
        service.reports().wait_for(|count| *count == reports).await.unwrap();
        let sums = service.sums();
        let (all_a, all_b) = (sums.clusters["a"].sums, sums.clusters["b"].sums);
        assert_eq!((all_a.issued, all_a.successes, all_b.issued, all_b.successes), (a, a, b, b), "{client}");
        assert_eq!(all_a.in_progress + all_b.in_progress, 0, "{client}");
        assert!(sums.clusters["a"].localities.contains_key("here//"), "{client}: {sums:?}");
    }
}

/// The status that a stream of these requests ends with.
async fn fails(channel: Channel, requests: Vec<LoadStatsRequest>) -> Status {
    let mut client = LoadReportingServiceClient::new(channel);
    let (sender, receiver) = mpsc::channel(100);
    for request in requests {
        sender.send(request).await.unwrap();
    }
    let mut responses = match client.stream_load_stats(ReceiverStream::new(receiver)).await {
        Ok(responses) => responses.into_inner(),
        Err(status) => return status,
    };
    loop {
        match responses.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if nothing were wrong"),
            Err(status) => return status,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let first_request_timeout = Duration::from_secs(7);
    let service =
        LoadReportService::new(LoadReportSettings { first_request_timeout, ..LoadReportSettings::default() });
    let channel = crate::server::testing::in_memory(Server::builder().add_service(service.service()));
    let begun = tokio::time::Instant::now();
    let ended = tokio::time::timeout(Duration::from_secs(3600), fails(channel, vec![])).await;
    let status = ended.expect("it ends");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("must name the node"), "{status}");
    assert_eq!(begun.elapsed().as_secs(), 7, "it has all of its time");
}

/// Asks for the load of all its clusters to be taken.
fn hello(features: &[&str]) -> LoadStatsRequest {
    let client_features = features.iter().map(ToString::to_string).collect();
    LoadStatsRequest {
        node: Some(Node { client_features, ..Node::default() }),
        ..LoadStatsRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_answer_is_let_go_with_its_certificate() {
    let lifetime = Duration::from_secs(7);
    let service =
        LoadReportService::new(LoadReportSettings { max_streams: 1, ..LoadReportSettings::default() });
    let passing = Reporting { lifetime: Some(lifetime), ..Reporting::default() };
    let served = service.admitting(Arc::new(move |_| Ok(passing.clone()))).service();
    let channel = crate::server::testing::in_memory_within(Server::builder().add_service(served), 0);
    let (requests, inbox) = mpsc::channel(1);
    requests.send(hello(&[SEND_ALL_CLUSTERS_FEATURE])).await.unwrap();
    let mut client = LoadReportingServiceClient::new(channel);
    let _taken = client.stream_load_stats(ReceiverStream::new(inbox)).await.unwrap();
    let another = || {
        let router = Server::builder().add_service(service.service());
        fails(crate::server::testing::in_memory(router), vec![LoadStatsRequest::default()])
    };
    assert_eq!(another().await.code(), Code::Unavailable);
    tokio::time::sleep(lifetime).await;
    let mut tries = 0;
    while another().await.code() == Code::Unavailable {
        tries += 1;
        assert!(tries < 1000, "its place is never free");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn bad_reports_are_refused_with_the_reason() {
    let service = LoadReportService::new(LoadReportSettings::default());
    let good = hello(&[SEND_ALL_CLUSTERS_FEATURE]);
    let refusing = service.admitting(Arc::new(|_| Err(Status::unauthenticated("no certificate"))));
    let expired = service
        .admitting(Arc::new(|_| Ok(Reporting { lifetime: Some(Duration::ZERO), ..Reporting::default() })));
    let storm = std::iter::repeat_n(good.clone(), 50).collect();
    let report = |stats| LoadStatsRequest { cluster_stats: vec![stats], ..LoadStatsRequest::default() };
    let long = report(ClusterStats { cluster_name: "x".repeat(2 << 20), ..ClusterStats::default() });
    let parts = vec![UpstreamLocalityStats::default(); 100_000];
    let wide = report(ClusterStats { upstream_locality_stats: parts, ..ClusterStats::default() });
    let cases = [
        (&service, vec![LoadStatsRequest::default()], Code::InvalidArgument, "must name its node"),
        (&service, vec![hello(&[])], Code::FailedPrecondition, "supports_send_all_clusters"),
        (&service, storm, Code::ResourceExhausted, "more than 2 times in each 10s"),
        (&service, vec![good.clone(), long], Code::ResourceExhausted, "the limit of 2097152 bytes"),
        (&service, vec![good.clone(), wide], Code::ResourceExhausted, "the limit of 65536 together"),
        (&refusing, vec![good.clone()], Code::Unauthenticated, "no certificate"),
        (&expired, vec![], Code::Unauthenticated, "has expired"),
    ];
    for (service, requests, code, text) in cases {
        let status = fails(channel(serve(service).await), requests).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(text), "{status}");
    }
    assert_eq!(service.sums().clusters.len(), 0);
}

/// Reports every so often, for ten minutes; how it ended, if it did.
async fn reports_each(every: Duration) -> Option<Status> {
    let service = LoadReportService::new(LoadReportSettings::default());
    let channel = crate::server::testing::in_memory(Server::builder().add_service(service.service()));
    let (sender, receiver) = mpsc::channel(1);
    sender.send(hello(&[SEND_ALL_CLUSTERS_FEATURE])).await.unwrap();
    let mut client = LoadReportingServiceClient::new(channel);
    let mut responses = client.stream_load_stats(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let told = responses.message().await.unwrap().unwrap().load_reporting_interval.unwrap();
    assert_eq!((told.seconds, told.nanos), (10, 0));
    let until = tokio::time::Instant::now() + Duration::from_secs(600);
    let (mut reports, mut counts) = (0, service.reports());
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(every).await;
        if sender.send(LoadStatsRequest::default()).await.is_err() {
            return Some(responses.message().await.unwrap_err());
        }
        reports += 1;
        tokio::select! {
            biased;
            ended = responses.message() => return Some(ended.unwrap_err()),
            counted = counts.wait_for(|count| *count == reports) => drop(counted.unwrap()),
        }
    }
    None
}

#[tokio::test(start_paused = true)]
async fn a_client_reports_as_often_as_it_was_told_with_some_slack() {
    for every in [10_000, 9_000, 5_100] {
        assert!(reports_each(Duration::from_millis(every)).await.is_none(), "{every}");
    }
    let status = reports_each(Duration::from_secs(3)).await.unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
}

#[test]
fn counts_that_no_report_takes_do_not_pile_up_and_the_newest_stay() {
    let (store, begun) = (LoadStore::default(), Instant::now());
    let name = |i: usize| -> crate::name::Name { format!("c{i}").into() };
    let at = |i: usize| begun + Duration::from_secs(i.try_into().unwrap());
    let lives = store.cluster(&name(0), &name(0), at(0));
    lives.refused();
    for i in 1..100_000 {
        store.cluster(&name(i), &name(i), at(i)).refused();
    }
    let all = store.take(at(100_000), |_| Claim::Wanted);
    assert!(all.len() <= 2048, "{}", all.len());
    let is_there = |i: usize| all.iter().any(|one| one.cluster_name == *name(i));
    assert!(is_there(0), "somebody counts for it");
    assert!((99_000..100_000).all(is_there));
}
