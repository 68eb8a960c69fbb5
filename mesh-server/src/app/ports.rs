//! Serving: gRPC and HTTP over accepted connections, until told to stop.

use super::metrics::CountingCertificates;
use crate::{
    peers::Incoming, proto::registration::workload_registration_server::WorkloadRegistrationServer,
    publish::Served, registration::RegistrationService,
};
use mesh_ca::{
    issuer::LARGEST_CSR, proto::istio_ca::istio_certificate_service_server::IstioCertificateServiceServer,
};
use mesh_xds::{
    csds::{CsdsServer, StreamsStatus},
    lrs::LoadReportService,
    server::AdsService,
};
use rustls::ServerConfig;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tonic::transport::Server;

/// A client that is silent for this long is asked whether it is there …
const KEEPALIVE: Duration = Duration::from_secs(30);
/// … and has this long to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// What one gRPC port serves.
pub(super) struct Services {
    pub(super) ads: AdsService<Served>,
    pub(super) load: Option<LoadReportService>,
    pub(super) certificates: CountingCertificates,
    pub(super) registration: WorkloadRegistrationServer<RegistrationService>,
    pub(super) csds: CsdsServer<StreamsStatus>,
}

pub(super) async fn serve_grpc(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    services: Services,
    stop: watch::Receiver<bool>,
) {
    let certificates =
        IstioCertificateServiceServer::new(services.certificates).max_decoding_message_size(2 * LARGEST_CSR);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(services.ads.service())
        .add_service(certificates)
        .add_service(services.registration)
        .add_optional_service(services.load.map(|load| load.service()))
        .add_service(services.csds)
        .serve_with_incoming_shutdown(Incoming::new(listener, tls), stopped(stop))
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "a gRPC port ended");
    }
}

pub(super) async fn serve_http(listener: TcpListener, router: axum::Router, stop: watch::Receiver<bool>) {
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stopped(stop)).await {
        tracing::error!(%error, "the HTTP port ended");
    }
}

/// Ends when told to, or when nobody is left to tell.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the app is gone, which is the same.
    drop(stop.wait_for(|stop| *stop).await);
}
