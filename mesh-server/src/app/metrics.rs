//! Counters, under Istio's names where Istio has them (`pilot_*`, `citadel_server_*`).

use mesh_ca::{
    issuer::CertificateService,
    proto::istio_ca::{
        IstioCertificateRequest, IstioCertificateResponse,
        istio_certificate_service_server::IstioCertificateService,
    },
};
use mesh_xds::{lrs::LoadSums, server::StreamEvent};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use std::fmt;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tonic::{Code, Request, Response, Status};

/// What is counted as it happens. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    rejects: Family<TypeLabel, Counter>,
    connections: Counter,
    reloads: Counter,
    requests: Counter,
    issued: Counter,
    unauthenticated: Counter,
    failed: Counter,
}

/// What is measured when somebody asks.
pub(crate) struct Gauges {
    pub(crate) streams: usize,
    pub(crate) services: usize,
    pub(crate) virtual_services: usize,
    pub(crate) workloads: usize,
    pub(crate) findings: [(&'static str, usize); 3],
    pub(crate) root_expires: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeverityLabel {
    severity: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    cluster: String,
    outcome: &'static str,
}

/// What clients reported of their calls. There are as many clusters as the reports tell apart, which is bounded.
fn register_load(registry: &mut Registry, load: &LoadSums) {
    let ended = Family::<OutcomeLabel, Counter>::default();
    let dropped = Family::<ClusterLabel, Counter>::default();
    let in_progress = Family::<ClusterLabel, Gauge>::default();
    for (cluster, reported) in &load.clusters {
        for (outcome, count) in [("success", reported.sums.successes), ("error", reported.sums.errors)] {
            ended.get_or_create(&OutcomeLabel { cluster: cluster.to_string(), outcome }).inc_by(count);
        }
        let label = ClusterLabel { cluster: cluster.to_string() };
        dropped.get_or_create(&label).inc_by(reported.dropped);
        in_progress.get_or_create(&label).set(i64::try_from(reported.sums.in_progress).unwrap_or(i64::MAX));
    }
    registry.register("mesh_load_calls", "Calls that ended, as clients reported them", ended);
    registry.register(
        "mesh_load_dropped_calls",
        "Calls that clients did not send: dropped, or refused",
        dropped,
    );
    registry.register(
        "mesh_load_calls_in_progress",
        "Calls in progress, as clients reported them",
        in_progress,
    );
    let reports = Counter::<u64>::default();
    reports.inc_by(load.reports);
    registry.register("mesh_load_reports", "Load reports of clients", reports);
}

impl Metrics {
    /// A configuration was published.
    pub(crate) fn reloaded(&self) {
        self.reloads.inc();
    }

    /// Counts what happens on streams.
    pub(crate) async fn count(self, mut events: Receiver<StreamEvent>) {
        loop {
            match events.recv().await {
                Ok(StreamEvent::Connected { .. }) => {
                    self.connections.inc();
                }
                Ok(StreamEvent::Rejected { kind, .. }) => {
                    let label = TypeLabel { r#type: kind.abbreviation() };
                    self.rejects.get_or_create(&label).inc();
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => tracing::debug!(missed, "stream events were not counted"),
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// The certificate service, counted.
    pub(crate) fn counting(&self, inner: CertificateService) -> CountingCertificates {
        CountingCertificates { inner, metrics: self.clone() }
    }

    /// The text of `/metrics`.
    pub(crate) fn text(&self, gauges: &Gauges, load: &LoadSums) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        register_load(&mut registry, load);
        registry.register(
            "pilot_total_xds_rejects",
            "Configurations that clients rejected",
            self.rejects.clone(),
        );
        registry.register("mesh_xds_connections", "ADS streams that were opened", self.connections.clone());
        registry.register(
            "mesh_config_reloads",
            "Configurations published after the first",
            self.reloads.clone(),
        );
        registry.register("citadel_server_csr_count", "Certificates asked for", self.requests.clone());
        registry.register(
            "citadel_server_success_cert_issuance_count",
            "Certificates issued",
            self.issued.clone(),
        );
        registry.register(
            "citadel_server_authentication_failure_count",
            "Certificates refused because the caller proved nothing",
            self.unauthenticated.clone(),
        );
        registry.register(
            "mesh_ca_other_failure_count",
            "Certificates refused for another reason",
            self.failed.clone(),
        );
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge: Gauge = Gauge::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        gauge("pilot_xds", "Connected ADS streams", count(gauges.streams));
        gauge("pilot_services", "Services known", count(gauges.services));
        gauge("pilot_virt_services", "VirtualServices known", count(gauges.virtual_services));
        gauge("mesh_registered_workloads", "Workloads that registered themselves", count(gauges.workloads));
        gauge(
            "citadel_server_root_cert_expiry_timestamp",
            "When the root certificate ends, in seconds since 1970",
            gauges.root_expires,
        );
        let findings = Family::<SeverityLabel, Gauge>::default();
        for (severity, number) in gauges.findings {
            findings.get_or_create(&SeverityLabel { severity }).set(count(number));
        }
        registry.register("mesh_config_findings", "What there is to say about the configuration", findings);
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// The certificate service, counted.
#[derive(Clone, Debug)]
pub(crate) struct CountingCertificates {
    inner: CertificateService,
    metrics: Metrics,
}

#[tonic::async_trait]
impl IstioCertificateService for CountingCertificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        self.metrics.requests.inc();
        let answer = self.inner.create_certificate(request).await;
        match &answer {
            Ok(_) => self.metrics.issued.inc(),
            Err(status) if status.code() == Code::Unauthenticated => self.metrics.unauthenticated.inc(),
            Err(_) => self.metrics.failed.inc(),
        };
        answer
    }
}
