//! What a cluster says of itself: labels, audiences, and which load is reported.

use crate::{
    field_path::{Faults, Path},
    resource::{
        cluster::{Cluster, ReportedMetrics, TelemetryLabels},
        wire,
    },
};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3 as proto,
            core::v3::{Metadata, config_source::ConfigSourceSpecifier},
        },
        extensions::filters::http::gcp_authn::v3::Audience,
    },
    google::protobuf::value::Kind,
};
use prost::Name as _;
use std::{collections::BTreeMap, sync::Arc};

const TELEMETRY: &str = "com.google.csm.telemetry_labels";
const SERVICE_NAME: &str = "service_name";
const SERVICE_NAMESPACE: &str = "service_namespace";
const NAMED: &str = "named_metrics.";

pub(super) fn telemetry(metadata: &Option<Metadata>) -> TelemetryLabels {
    let label = |key| match wire::metadata_value(metadata, TELEMETRY, key) {
        // Values of other kinds are left out (gRFC A89).
        Some(Kind::StringValue(value)) => Some(value.as_str().into()),
        _ => None,
    };
    TelemetryLabels { service_name: label(SERVICE_NAME), service_namespace: label(SERVICE_NAMESPACE) }
}

/// Typed metadata of the one type that is known; a value of it that cannot be read is a fault (gRFC A83).
pub(super) fn audiences(
    metadata: &Option<Metadata>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<BTreeMap<Arc<str>, Arc<str>>> {
    let list = at.field("typed_filter_metadata");
    // Sorted, so that faults come in the same order each time.
    let typed: BTreeMap<_, _> =
        metadata.iter().flat_map(|metadata| &metadata.typed_filter_metadata).collect();
    let known = typed.into_iter().filter(|(_, any)| any.type_url == Audience::type_url());
    let audiences: Vec<_> = known
        .map(|(key, any)| {
            let at = list.key(key);
            let audience: Audience = wire::unpack(any, &at, faults)?;
            if audience.url.is_empty() {
                return faults.reject(&at.field("url"), "must not be empty");
            }
            Some((Arc::from(key.as_str()), Arc::from(audience.url)))
        })
        .collect();
    audiences.into_iter().collect()
}

pub(super) fn encode(cluster: &Cluster) -> Option<Metadata> {
    let auto = cluster.tls.as_ref().is_some_and(|tls| tls.only_mesh_endpoints);
    let mut metadata = wire::own_metadata(cluster.origin.as_ref(), auto).unwrap_or_default();
    let label = |label: &Option<Arc<str>>| label.as_ref().map(|label| Kind::StringValue(label.to_string()));
    let TelemetryLabels { service_name, service_namespace } = &cluster.telemetry;
    let labels = wire::metadata(
        TELEMETRY,
        [
            label(service_name).map(|label| (SERVICE_NAME, label)),
            label(service_namespace).map(|label| (SERVICE_NAMESPACE, label)),
        ],
    );
    metadata.filter_metadata.extend(labels.unwrap_or_default().filter_metadata);
    metadata.typed_filter_metadata.extend(cluster.audiences.iter().map(|(filter, url)| {
        (filter.to_string(), wire::any(&Audience { url: url.to_string(), ..Audience::default() }))
    }));
    (metadata != Metadata::default()).then_some(metadata)
}

/// `None` inside: nothing is reported. gRPC knows only `self` (A27).
pub(super) fn load_reporting(
    proto: &proto::Cluster,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Option<ReportedMetrics>> {
    let Some(server) = &proto.lrs_server else { return Some(None) };
    if !matches!(server.config_source_specifier, Some(ConfigSourceSpecifier::Self_(_))) {
        return faults.reject(&at.field("lrs_server"), "must be `self`");
    }
    let mut metrics = ReportedMetrics::default();
    for name in &proto.lrs_report_endpoint_metrics {
        match name.as_str() {
            "cpu_utilization" => metrics.cpu = true,
            "mem_utilization" => metrics.memory = true,
            "application_utilization" => metrics.application = true,
            "named_metrics.*" => metrics.all_named = true,
            name => {
                // Others are left out (gRFC A85).
                metrics.named.extend(name.strip_prefix(NAMED).map(Arc::from));
            }
        }
    }
    Some(Some(metrics))
}

pub(super) fn reported_names(metrics: &ReportedMetrics) -> Vec<String> {
    let fixed = [
        (metrics.cpu, "cpu_utilization"),
        (metrics.memory, "mem_utilization"),
        (metrics.application, "application_utilization"),
        (metrics.all_named, "named_metrics.*"),
    ];
    let fixed = fixed.into_iter().filter(|(reported, _)| *reported).map(|(_, name)| name.to_owned());
    fixed.chain(metrics.named.iter().map(|key| format!("{NAMED}{key}"))).collect()
}
