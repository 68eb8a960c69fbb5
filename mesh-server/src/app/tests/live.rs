//! Changes, as a connected client sees them.

use super::*;
use crate::{model::RegisteredWorkload, publish::Snapshot};
use mesh_xds::{
    resource::{
        Locality,
        route::{Destination, RouteAction},
    },
    server::StreamEvent,
};
use std::time::Instant;

fn destination(config: &XdsConfig) -> String {
    let RouteAction::Forward(forward) = &config.virtual_host.routes[0].action else {
        panic!("{:?}", config.virtual_host)
    };
    match &forward.destination {
        Destination::Cluster(name) => name.to_string(),
        several => format!("{several:?}"),
    }
}

const RULE: &str = "
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_follows_an_edit_and_a_broken_file_costs_nothing() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let client = client(running.addresses().xds_plaintext.unwrap(), None, "default", "default");
    let mut watch = client.config("reviews:9080", "reviews:9080");
    let first = until(&mut watch, |_| true).await;
    assert_eq!(destination(&first), CLUSTER);

    let file = dir.path().join("mesh.yaml");
    let edited = Instant::now();
    std::fs::write(&file, format!("{SERVICE}{RULE}")).unwrap();
    until(&mut watch, |config| destination(config).contains("|v1|")).await;
    eprintln!("an edit took {:?}", edited.elapsed());

    let revision = running.publisher().current().revision.clone();
    std::fs::write(dir.path().join("broken.yaml"), "kind: [").unwrap();
    published(running.publisher(), |snapshot| !snapshot.findings.is_empty()).await;
    assert_eq!(running.publisher().current().revision, revision, "held");
    assert!(destination(watch.borrow().as_ref().unwrap().as_ref().unwrap()).contains("|v1|"));
    let (status, body) = get(running.addresses().http.unwrap(), "/debug/findings").await;
    assert!(status == 200 && body.contains("broken.yaml"), "{body}");
    // The file may hold a policy that nobody has ever read: so no other change is served either.
    let (status, body) = get(running.addresses().http.unwrap(), "/readyz").await;
    assert!(status == 503 && body.contains("what was served before still is"), "{body}");
    std::fs::write(&file, SERVICE).unwrap();
    std::fs::remove_file(dir.path().join("broken.yaml")).unwrap();
    until(&mut watch, |config| destination(config) == CLUSTER).await;
    assert_eq!(get(running.addresses().http.unwrap(), "/readyz").await.0, 200);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_lives_as_long_as_its_stream_and_drains_before_it_goes() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap();
    let client = client(address, None, "default", "default");
    let mut watch = client.config("reviews:9080", "reviews:9080");
    until(&mut watch, |config| addresses(config).is_empty()).await;

    let begun = Instant::now();
    let channel = plaintext(&address.to_string());
    let (mut registration, answer) = Registration::open(channel, workload("127.0.0.1", 5001)).await.unwrap();
    assert_eq!(answer.workload_entry, "reviews-v1-127.0.0.1");
    assert_eq!(answer.revision, *running.publisher().current().revision);
    until(&mut watch, |config| addresses(config) == ["127.0.0.1:5001 Healthy"]).await;
    eprintln!("an endpoint took {:?}", begun.elapsed());

    registration.health(Health::Draining).await.unwrap();
    until(&mut watch, |config| addresses(config) == ["127.0.0.1:5001 Draining"]).await;
    drop(registration);
    until(&mut watch, |config| addresses(config).is_empty()).await;
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_at_one_address_have_entries_of_their_own() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let (_one, first) = Registration::open(plaintext(&address), workload("127.0.0.1", 5001)).await.unwrap();
    let (two, second) = Registration::open(plaintext(&address), workload("127.0.0.1", 5002)).await.unwrap();
    assert_eq!(first.workload_entry, "reviews-v1-127.0.0.1");
    assert_eq!(second.workload_entry, "reviews-v1-127.0.0.1-5002");
    // The same again: a stream that comes back before its earlier one is missed takes its place.
    let (again, third) = Registration::open(plaintext(&address), workload("127.0.0.1", 5001)).await.unwrap();
    assert_eq!(third.workload_entry, first.workload_entry);
    assert_eq!(running.publisher().current().model.workloads.len(), 2);
    drop(two);
    published(running.publisher(), |snapshot| snapshot.model.workloads.len() == 1).await;
    drop(again);
    running.shutdown().await;
}

/// A process that reaches the control plane by two names: what it said last counts, its health is one, and the entry goes
/// with the last stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_lives_as_long_as_one_of_its_processs_streams() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let publisher = running.publisher().clone();
    // Health and label of each.
    let entries_of = |snapshot: &Snapshot| -> Vec<_> {
        let of = |one: &Arc<RegisteredWorkload>| format!("{:?} {}", one.health, one.labels["by"]);
        snapshot.model.workloads.iter().map(of).collect()
    };
    let entries = || entries_of(&publisher.current());
    let until = async |expected: &[&str]| published(&publisher, |now| entries_of(now) == expected).await;
    let open = async |process, session: &str| {
        let mut said = workload("127.0.0.1", 5001);
        said.labels.insert("by".into(), session.into());
        let (stream, answer) =
            Registration::open_as(plaintext(&address), said, process, session).await.unwrap();
        assert_eq!(answer.workload_entry, "reviews-v1-127.0.0.1");
        stream
    };
    let (mut one, mut other) = (open("p", "one").await, open("p", "other").await);
    assert_eq!(entries(), ["Healthy other"]);
    one.health(Health::Draining).await.unwrap();
    assert_eq!(entries(), ["Draining one"]);
    // What the other one said before is about the same process.
    drop(one);
    until(&["Draining other"]).await;
    other.health(Health::Healthy).await.unwrap();

    // A stream is opened again before the end of the earlier one is noticed, which has no say any more, nor has its end.
    let mut again = open("p", "other").await;
    let status = other.health(Health::Draining).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted, "{status:?}");
    drop(other);
    again.health(Health::Unhealthy).await.unwrap();
    assert_eq!(entries(), ["Unhealthy other"]);

    // Another process takes over its port: it has a health of its own, and stays when the earlier one has drained.
    let next = open("q", "one").await;
    assert_eq!(entries(), ["Healthy one"]);
    again.health(Health::Draining).await.unwrap();
    assert_eq!(entries(), ["Draining other"]);
    drop(again);
    until(&["Healthy one"]).await;
    drop(next);
    until(&[]).await;

    let long = "x".repeat(65);
    for (process, session) in [(&*long, ""), ("", &long)] {
        let refused =
            Registration::open_as(plaintext(&address), workload("127.0.0.1", 5001), process, session).await;
        let status = refused.map(|_| ()).unwrap_err();
        assert!(status.message().contains("of 65 bytes"), "{status:?}");
    }
    running.shutdown().await;
}

/// It is its own, though its earlier stream may live yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_opened_again_with_other_ports_keeps_its_entry() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let open = async |port, process, session| {
        let said = workload("127.0.0.1", port);
        let opened = Registration::open_as(plaintext(&address), said, process, session).await.unwrap();
        (opened.0, opened.1.workload_entry)
    };
    let (_early, name) = open(5001, "p", "s").await;
    let (_again, same) = open(5002, "p", "s").await;
    let (_replica, other) = open(5003, "q", "s").await;
    assert_eq!([name, same, other], ["", "", "-5003"].map(|end| format!("reviews-v1-127.0.0.1{end}")));
    assert_eq!(running.publisher().current().model.workloads.len(), 2);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_comes_back_still_knows_the_workloads_until_they_had_time_to_return() {
    let (dir, data) = (config(SERVICE), tempfile::tempdir().unwrap());
    let settings = || Settings { believe_loopback: true, ..run(&dir, &data) };
    let running = App::start(settings()).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let (registration, _) =
        Registration::open(plaintext(&address), workload("127.0.0.1", 5001)).await.unwrap();
    // As after a kill: what is on disk is all there is.
    let file = WorkloadFile::of(&data.path().join("data"));
    let written = async {
        while file.read().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    running.shutdown().await;
    drop(registration);

    // Who is not the one that was there does not get its entry.
    let running = App::start(settings()).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let (other, answer) = Registration::open(plaintext(&address), workload("127.0.0.1", 5002)).await.unwrap();
    assert_eq!(answer.workload_entry, "reviews-v1-127.0.0.1-5002");
    let (same, answer) = Registration::open(plaintext(&address), workload("127.0.0.1", 5001)).await.unwrap();
    assert_eq!(answer.workload_entry, "reviews-v1-127.0.0.1");
    running.shutdown().await;
    drop((other, same));

    let again = Settings { workload_grace: Duration::from_millis(200), ..settings() };
    let running = App::start(again).await.unwrap();
    assert!(!running.publisher().current().model.workloads.is_empty());
    published(running.publisher(), |snapshot| snapshot.model.workloads.is_empty()).await;
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_that_is_not_one_is_refused_with_the_reason() {
    let group = "
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews}
spec:
  metadata: {labels: {app: reviews, tier: back}}
  template: {serviceAccount: reviews, ports: {grpc: 7000}, weight: 5}
";
    let dir = config(&format!("{SERVICE}{group}"));
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let good = || workload("127.0.0.1", 5001);
    let many = || (0..=128).map(|i| i.to_string());
    let cases = [
        (Workload { address: "localhost".into(), ..good() }, "literal IP"),
        (Workload { address: "0.0.0.0".into(), ..good() }, "connect to"),
        (Workload { ports: [].into(), ..good() }, "names no port"),
        (Workload { ports: [("a".to_owned(), 70_000)].into(), ..good() }, "1 to 65535"),
        (Workload { name: String::new(), ..good() }, "needs a name"),
        (Workload { labels: [("a b".to_owned(), "c".to_owned())].into(), ..good() }, "not a label"),
        (
            Workload { labels: many().map(|i| (i, String::new())).collect(), ..good() },
            "129 labels, and 128 are the limit",
        ),
        (Workload { ports: many().map(|i| (i, 1)).collect(), ..good() }, "129 ports, and 128 are the limit"),
        (Workload { group: "nobody".into(), ..good() }, "WorkloadGroup default/nobody does not exist"),
        (
            Workload { group: "reviews".into(), service_account: "other".into(), ..good() },
            "is for service account reviews",
        ),
    ];
    for (workload, reason) in cases {
        let Err(status) = Registration::open(plaintext(&address), workload).await.map(|_| ()) else {
            panic!("accepted: {reason}")
        };
        assert!(status.message().contains(reason), "{status:?} does not say {reason}");
    }
    let member = Workload { group: "reviews".into(), ports: [].into(), weight: 0, ..good() };
    let (_stream, answer) = Registration::open(plaintext(&address), member).await.unwrap();
    let snapshot = running.publisher().current();
    let found = snapshot.model.workloads.find("default", &answer.workload_entry).unwrap();
    assert_eq!((found.labels["tier"].as_str(), found.ports["grpc"], found.weight), ("back", 7000, 5));
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_port_shows_who_is_connected_and_in_sync() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let http = running.addresses().http.unwrap();
    let client = client(running.addresses().xds_plaintext.unwrap(), None, "default", "default");
    let mut watch = client.config("reviews:9080", "reviews:9080");
    until(&mut watch, |_| true).await;
    let synced = async {
        loop {
            let (_, body) = get(http, "/debug/syncz").await;
            let status: serde_json::Value = serde_json::from_str(&body).unwrap();
            if status["streams"][0]["synced"] == true {
                return status;
            }
        }
    };
    let status = timeout(PATIENCE, synced).await.unwrap();
    assert_eq!(status["streams"][0]["user_agent"], "mesh-client");
    assert_eq!(status["revision"], *running.publisher().current().revision);
    assert_eq!(get(http, "/healthz").await.0, 200);
    assert_eq!(get(http, "/readyz").await.0, 200);
    let (_, metrics) = get(http, "/metrics").await;
    assert!(metrics.contains("pilot_xds 1\n") && metrics.contains("pilot_services 1\n"), "{metrics}");
    let (_, dump) = get(http, "/debug/config_dump?client=envoy").await;
    assert!(dump.contains("http_proxy") && dump.contains(CLUSTER), "{dump}");
    assert_eq!(get(http, "/debug/config_dump?client=other").await.0, 400);
    let confirm = async |headers| ask(http, "POST /confirm-deletion", headers).await.0;
    assert_eq!(confirm("origin: http://elsewhere.example\r\n").await, 403, "a page in a browser");
    assert_eq!(confirm("").await, 200);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_report_of_their_calls_is_shown() {
    let dir = config(SERVICE);
    let interval = Some(Duration::from_millis(100));
    let running = App::start(Settings { load_report_interval: interval, ..dev(&dir) }).await.unwrap();
    let store = Arc::new(LoadStore::default());
    let load = store.cluster(&CLUSTER.into(), &CLUSTER.into(), Instant::now());
    let here = load.locality(&Locality { region: "eu".into(), ..Locality::default() });
    (0..5).for_each(|i| here.begin().end(i != 0));
    load.refused();
    let _reporter = reporter(running.addresses().xds_plaintext.unwrap(), &store);
    let mut reports = running.load().unwrap().reports();
    reports.wait_for(|count| *count > 0).await.unwrap();

    let http = running.addresses().http.unwrap();
    let (_, body) = get(http, "/debug/load").await;
    let shown: serde_json::Value = serde_json::from_str(&body).unwrap();
    let cluster = &shown["clusters"][CLUSTER];
    assert_eq!(
        (&cluster["successes"], &cluster["errors"], &cluster["dropped"]),
        (&4.into(), &1.into(), &1.into())
    );
    assert_eq!(cluster["localities"]["eu//"]["issued"], 5);
    let (_, metrics) = get(http, "/metrics").await;
    for line in [
        format!("mesh_load_calls_total{{cluster=\"{CLUSTER}\",outcome=\"success\"}} 4\n"),
        format!("mesh_load_dropped_calls_total{{cluster=\"{CLUSTER}\"}} 1\n"),
    ] {
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
    running.shutdown().await;

    let running = App::start(Settings { load_report_interval: None, ..dev(&dir) }).await.unwrap();
    assert_eq!(get(running.addresses().http.unwrap(), "/debug/load").await.0, 404);
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_outlive_their_connections() {
    let dir = config(SERVICE);
    let settings = Settings {
        max_connection_age: Some(Duration::from_millis(500)),
        max_connection_age_grace: Duration::from_millis(10),
        load_report_interval: Some(Duration::from_millis(100)),
        ..dev(&dir)
    };
    let running = App::start(settings).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap();
    let mut opened = running.ads[0].events();
    let client = client(address, None, "default", "default");
    let mut watch = client.config("reviews:9080", "reviews:9080");
    let store = Arc::new(LoadStore::default());
    let load = store.cluster(&CLUSTER.into(), &CLUSTER.into(), Instant::now());
    let here = load.locality(&Locality::default());
    let _reporter = reporter(address, &store);

    let streams = async {
        let mut count = 0;
        while count < 4 {
            count += usize::from(matches!(opened.recv().await.unwrap(), StreamEvent::Connected { .. }));
        }
    };
    timeout(PATIENCE, streams).await.unwrap();
    std::fs::write(dir.path().join("mesh.yaml"), format!("{SERVICE}{RULE}")).unwrap();
    until(&mut watch, |config| destination(config).contains("|v1|")).await;
    let sums = running.load().unwrap();
    // A report that is under way when its stream ends is not repeated; there are others.
    let reported = async {
        while sums.sums().clusters.get(CLUSTER).is_none_or(|cluster| cluster.sums.issued < 1) {
            here.begin().end(true);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, reported).await.unwrap();
    running.shutdown().await;
}
