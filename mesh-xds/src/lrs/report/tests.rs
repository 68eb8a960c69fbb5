//! Reports of bytes are those of messages; and what a hostile one costs.

use super::*;
use envoy_types::pb::envoy::{
    config::{
        core::v3::{Locality, Node},
        endpoint::v3::{
            ClusterStats, EndpointLoadMetricStats, UnnamedEndpointLoadMetricStats, UpstreamLocalityStats,
            cluster_stats::DroppedRequests,
        },
    },
    service::load_stats::v3::LoadStatsRequest,
};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;

/// The same, of a message.
fn of(request: &LoadStatsRequest) -> Clusters {
    let mut clusters = Clusters::default();
    for stats in &request.cluster_stats {
        let mut sums = ClusterSums::default();
        for stats in &stats.upstream_locality_stats {
            let place = stats.locality.as_ref().map(|locality| Place {
                region: &locality.region,
                zone: &locality.zone,
                sub_zone: &locality.sub_zone,
            });
            let said = Sums {
                issued: stats.total_issued_requests,
                successes: stats.total_successful_requests,
                errors: stats.total_error_requests,
                in_progress: stats.total_requests_in_progress,
            };
            for metric in &stats.load_metric_stats {
                let said = MetricSums {
                    count: metric.num_requests_finished_with_metric,
                    total: metric.total_metric_value,
                };
                sums.add_metric(&metric.metric_name, said);
            }
            sums.add_locality(place, said);
            for (name, metric) in [
                ("cpu_utilization", &stats.cpu_utilization),
                ("mem_utilization", &stats.mem_utilization),
                ("application_utilization", &stats.application_utilization),
            ] {
                if let Some(metric) = metric {
                    let said = MetricSums {
                        count: metric.num_requests_finished_with_metric,
                        total: metric.total_metric_value,
                    };
                    sums.add_metric(name, said);
                }
            }
        }
        for drops in &stats.dropped_requests {
            sums.add_drops_of(&drops.category, drops.dropped_count);
        }
        sums.add_drops(stats.total_dropped_requests);
        clusters.add(&stats.cluster_name, &sums);
    }
    clusters
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c]", "\\PC{0,3}"]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..200_u64, any::<u64>()]
}

fn metric() -> impl Strategy<Value = Option<UnnamedEndpointLoadMetricStats>> {
    let metric = (number(), -5.0..5.0_f64).prop_map(|(calls, total)| UnnamedEndpointLoadMetricStats {
        num_requests_finished_with_metric: calls,
        total_metric_value: total,
    });
    option::of(metric)
}

prop_compose! {
    fn stats_of_locality()(
        locality in option::of((name(), name(), name())),
        (issued, successes, errors, in_progress) in (number(), number(), number(), number()),
        named in vec((name(), number(), -5.0..5.0_f64), 0..3),
        (cpu, memory, application) in (metric(), metric(), metric()),
        priority in any::<u32>(),
    ) -> UpstreamLocalityStats {
        let named = named.into_iter().map(|(metric_name, calls, total)| EndpointLoadMetricStats {
            metric_name,
            num_requests_finished_with_metric: calls,
            total_metric_value: total,
        });
        UpstreamLocalityStats {
            locality: locality.map(|(region, zone, sub_zone)| Locality { region, zone, sub_zone }),
            total_issued_requests: issued,
            total_successful_requests: successes,
            total_error_requests: errors,
            total_requests_in_progress: in_progress,
            total_active_connections: issued,
            load_metric_stats: named.collect(),
            cpu_utilization: cpu,
            mem_utilization: memory,
            application_utilization: application,
            priority,
            ..UpstreamLocalityStats::default()
        }
    }
}

prop_compose! {
    fn stats_of_cluster()(
        cluster_name in name(),
        cluster_service_name in name(),
        upstream_locality_stats in vec(stats_of_locality(), 0..4),
        dropped in vec((name(), number()), 0..3),
        total_dropped_requests in number(),
    ) -> ClusterStats {
        let dropped = dropped.into_iter().map(|(category, dropped_count)| DroppedRequests { category, dropped_count });
        ClusterStats {
            cluster_name,
            cluster_service_name,
            upstream_locality_stats,
            dropped_requests: dropped.collect(),
            total_dropped_requests,
            load_report_interval: Some(envoy_types::pb::google::protobuf::Duration { seconds: 3, nanos: 1 }),
        }
    }
}

proptest! {
    #[test]
    fn what_is_read_is_what_the_message_says(cluster_stats in vec(stats_of_cluster(), 0..5)) {
        let request = LoadStatsRequest { cluster_stats, ..LoadStatsRequest::default() };
        let report = Report::read(&request.encode_to_vec()).unwrap();
        prop_assert_eq!(report.clusters, of(&request));
        prop_assert!(report.node.is_none());
    }

    /// Also of messages that nobody writes so: fields out of order, twice, unknown, cut off.
    #[test]
    fn bytes_that_are_a_message_are_read_as_it_is(
        stats in stats_of_cluster(),
        noise in vec((0..200_usize, any::<u8>()), 0..4),
        cut in 0..400_usize,
    ) {
        let mut bytes = LoadStatsRequest { cluster_stats: vec![stats], ..LoadStatsRequest::default() }.encode_to_vec();
        bytes.truncate(cut);
        for (at, byte) in noise {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        let report = Report::read(&bytes);
        if let Ok(request) = LoadStatsRequest::decode(bytes.as_slice()) {
            match report {
                // `==` is not for sums that became no number; and it is said twice which cluster is the last one.
                Ok(report) => prop_assert_eq!(format!("{:?}", report.clusters), format!("{:?}", of(&request))),
                Err(fault) => prop_assert_eq!(fault, Fault::Malformed("a field is of a type that there is not")),
            }
        }
    }
}

#[test]
fn a_message_in_pieces_is_one() {
    // Locality, then its stats; the name last; a locality's message in two.
    let region = Locality { region: "r".into(), ..Locality::default() };
    let zone = Locality { zone: "z".into(), ..Locality::default() };
    let mut stats = Vec::new();
    for locality in [region, zone] {
        UpstreamLocalityStats { locality: Some(locality), ..UpstreamLocalityStats::default() }
            .encode(&mut stats)
            .unwrap();
    }
    UpstreamLocalityStats { total_issued_requests: 7, ..UpstreamLocalityStats::default() }
        .encode(&mut stats)
        .unwrap();
    let mut cluster = Vec::new();
    prost::encoding::bytes::encode(2, &stats, &mut cluster);
    prost::encoding::string::encode(1, &"c".to_owned(), &mut cluster);
    let mut request = Vec::new();
    prost::encoding::bytes::encode(2, &cluster, &mut request);
    let mut expected = Clusters::default();
    let mut sums = ClusterSums::default();
    let place = Place { region: "r", zone: "z", sub_zone: "" };
    sums.add_locality(Some(place), Sums { issued: 7, ..Sums::default() });
    expected.add("c", &sums);
    let read = Report::read(&request).unwrap().clusters;
    assert_eq!(read, expected);
    assert_eq!(read, of(&LoadStatsRequest::decode(request.as_slice()).unwrap()));
}

#[test]
fn of_a_node_the_id_and_one_feature_matter() {
    let node = |features: &[&str]| Node {
        id: "me".into(),
        cluster: "mine".into(),
        client_features: features.iter().map(ToString::to_string).collect(),
        ..Node::default()
    };
    for (features, expected) in [(&["other", SEND_ALL_CLUSTERS_FEATURE][..], true), (&["other"], false)] {
        let request = LoadStatsRequest { node: Some(node(features)), ..LoadStatsRequest::default() };
        let said = Report::read(&request.encode_to_vec()).unwrap().node.unwrap();
        assert_eq!((&*said.id, said.sends_all), ("me", expected));
    }
}

/// A request of one cluster with as many empty parts as there is room for: two bytes each, of this field.
fn full_of(field: u32, bytes: usize) -> Vec<u8> {
    let mut cluster = Vec::new();
    while cluster.len() < bytes {
        prost::encoding::bytes::encode(field, &Vec::new(), &mut cluster);
    }
    let mut request = Vec::new();
    prost::encoding::bytes::encode(2, &cluster, &mut request);
    request
}

#[test]
fn a_report_of_more_parts_than_it_may_have_is_refused_with_the_limit() {
    for field in [2, 5] {
        let full = full_of(field, 2 * (MAX_PARTS_OF_REPORT - 1));
        assert!(Report::read(&full).is_ok());
        let fault = Report::read(&full_of(field, 2 * MAX_PARTS_OF_REPORT)).unwrap_err();
        assert_eq!(fault, Fault::TooManyParts);
        assert!(Status::from(fault).message().contains("the limit of 65536"));
    }
    let mut clusters = Vec::new();
    for _ in 0..=MAX_PARTS_OF_REPORT {
        prost::encoding::bytes::encode(2, &Vec::new(), &mut clusters);
    }
    assert_eq!(Report::read(&clusters).unwrap_err(), Fault::TooManyParts);
    // Of these there may be any number: they are not even looked at.
    assert!(Report::read(&full_of(7, 1 << 20)).is_ok());
}

/// What the limit of bytes is made for.
#[test]
fn a_report_of_a_large_client_is_within_the_limits() {
    let metric = Some(UnnamedEndpointLoadMetricStats {
        num_requests_finished_with_metric: 900,
        total_metric_value: 450.5,
    });
    let locality = |i: usize| UpstreamLocalityStats {
        locality: Some(Locality {
            region: "europe-west4".into(),
            zone: format!("europe-west4-{i}"),
            sub_zone: String::new(),
        }),
        total_issued_requests: 1_000,
        total_successful_requests: 990,
        total_error_requests: 10,
        total_requests_in_progress: 12,
        cpu_utilization: metric,
        mem_utilization: metric,
        ..UpstreamLocalityStats::default()
    };
    let cluster = |i: usize| {
        let name = format!("outbound|9080|v1|a-service-of-ours-{i}.namespace-{}.svc.cluster.local", i % 10);
        ClusterStats {
            cluster_name: name.clone(),
            cluster_service_name: name,
            upstream_locality_stats: (0..10).map(locality).collect(),
            ..ClusterStats::default()
        }
    };
    let request =
        LoadStatsRequest { cluster_stats: (0..1_000).map(cluster).collect(), ..LoadStatsRequest::default() };
    let bytes = request.encode_to_vec();
    let limit = crate::lrs::LoadReportSettings::default().max_report_bytes;
    assert_eq!((bytes.len(), limit), (862_780, 2 << 20), "what the documentation of the limit says");
    assert_eq!(Report::read(&bytes).unwrap().clusters, of(&request));
}
