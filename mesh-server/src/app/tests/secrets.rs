//! This control plane has no secrets, and says so to whoever asks for one.

use super::*;
use mesh_xds::{
    name::ResourceType,
    proto::{self, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient},
};

const NAMES: [&str; 2] = ["default", "ROOTCA"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_not_found_and_in_no_dump() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let channel = plaintext(&running.addresses().xds_plaintext.unwrap().to_string());
    let node = proto::Node {
        id: "sidecar~127.0.0.1~tester.default~default.svc.cluster.local".into(),
        ..Default::default()
    };
    let url = ResourceType::Secret.url();

    let ask = proto::DeltaDiscoveryRequest {
        node: Some(node.clone()),
        type_url: url.into(),
        resource_names_subscribe: NAMES.map(String::from).into(),
        ..Default::default()
    };
    let (requests, inbox) = mpsc::channel(1);
    requests.send(ask).await.unwrap();
    let mut ads = AggregatedDiscoveryServiceClient::new(channel.clone());
    let mut answers = ads.delta_aggregated_resources(ReceiverStream::new(inbox)).await.unwrap().into_inner();
    let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
    let mut removed = answer.removed_resources;
    removed.sort();
    assert_eq!((answer.type_url.as_str(), answer.resources.len()), (url, 0));
    assert_eq!(removed, ["ROOTCA", "default"]);

    // So it does in a state-of-the-world stream.
    let ask = proto::DiscoveryRequest {
        node: Some(node),
        type_url: url.into(),
        resource_names: NAMES.map(String::from).into(),
        ..Default::default()
    };
    let (sotw, inbox) = mpsc::channel(1);
    sotw.send(ask).await.unwrap();
    let mut answers = ads.stream_aggregated_resources(ReceiverStream::new(inbox)).await.unwrap().into_inner();
    let answer = timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.resources.len(), 0);
    let not_found = answer.resource_errors.iter().filter_map(|error| error.error_detail.as_ref());
    assert_eq!(not_found.map(|detail| detail.code).collect::<Vec<_>>(), [5, 5]);

    let (status, dump) = get(running.addresses().http.unwrap(), "/debug/config_dump?client=mesh").await;
    assert_eq!(status, 200);
    assert!(dump.contains("\"CDS\"") && !dump.contains("\"SDS\""), "{dump}");
    running.shutdown().await;
}
