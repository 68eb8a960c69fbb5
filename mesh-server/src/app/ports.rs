//! Serving: gRPC and HTTP over accepted connections, until told to stop.

use super::{
    connection::{self, Ages},
    metrics::CountingCertificates,
};
use crate::{
    peers::{Arrival, Door},
    proto::registration::workload_registration_server::WorkloadRegistrationServer,
    publish::Served,
    registration::RegistrationService,
};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_ca::{
    issuer::LARGEST_CSR, proto::istio_ca::istio_certificate_service_server::IstioCertificateServiceServer,
};
use mesh_xds::{
    csds::{CsdsServer, StreamsStatus},
    lrs::LoadReportService,
    server::AdsService,
};
use std::{pin::pin, time::Duration};
use tokio::{sync::watch, task::JoinSet};
use tonic::service::Routes;
use tower_service::Service;

/// The HTTP port waits this long for the head of a request …
const HEAD: Duration = Duration::from_secs(10);
/// … and serves a connection this long, whatever it does.
const HTTP_CONNECTION: Duration = Duration::from_secs(300);
/// Connections of the HTTP port.
pub(super) const HTTP_CONNECTIONS: usize = 64;

/// What one gRPC port serves.
pub(super) struct Services {
    pub(super) ads: AdsService<Served>,
    pub(super) load: Option<LoadReportService>,
    pub(super) certificates: CountingCertificates,
    pub(super) registration: WorkloadRegistrationServer<RegistrationService>,
    pub(super) csds: CsdsServer<StreamsStatus>,
}

impl Services {
    fn routes(self) -> Routes {
        let certificates =
            IstioCertificateServiceServer::new(self.certificates).max_decoding_message_size(2 * LARGEST_CSR);
        let routes = Routes::new(self.ads.service())
            .add_service(certificates)
            .add_service(self.registration)
            .add_service(self.csds);
        match self.load {
            Some(load) => routes.add_service(load.service()),
            None => routes,
        }
        .prepare()
    }
}

pub(super) async fn serve_grpc(door: Door, services: Services, ages: Ages, stop: watch::Receiver<bool>) {
    let routes = services.routes();
    let stopping = stop.clone();
    serve(door, stop, |arrival| {
        let (routes, stop) = (routes.clone(), stopping.clone());
        async move {
            let connection = tokio::select! {
                connection = arrival.http2() => connection,
                // It has asked for nothing yet.
                () = stopped(stop.clone()) => return,
            };
            match connection {
                Ok(connection) => {
                    let peer = connection.peer.clone();
                    connection::serve(connection, peer, routes, ages, stop).await;
                }
                Err(error) => tracing::debug!(%error, "a connection failed before it was one"),
            }
        }
    })
    .await;
}

pub(super) async fn serve_http(door: Door, router: axum::Router, stop: watch::Receiver<bool>) {
    let stopped = stop.clone();
    serve(door, stop, |arrival| {
        let (router, stop) = (router.clone(), stopped.clone());
        async move {
            if tokio::time::timeout(HTTP_CONNECTION, answer(arrival, router, stop)).await.is_err() {
                tracing::debug!("an HTTP connection was cut: it was open for {HTTP_CONNECTION:?}");
            }
        }
    })
    .await;
}

/// One HTTP connection.
async fn answer(arrival: Arrival, router: axum::Router, stop: watch::Receiver<bool>) {
    let service = hyper::service::service_fn(move |request| router.clone().call(request));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut served = pin!(builder.serve_connection(TokioIo::new(arrival.plain()), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stopped(stop) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended with an error");
    }
}

/// Each connection in a task of its own, until told to stop; then until they have ended.
async fn serve<F>(mut door: Door, stop: watch::Receiver<bool>, each: impl Fn(Arrival) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    let mut stop = pin!(stopped(stop));
    loop {
        tokio::select! {
            arrival = door.accept() => drop(connections.spawn(each(arrival))),
            Some(ended) = connections.join_next() => report(ended),
            () = &mut stop => break,
        }
    }
    drop(door);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection did not end well");
    }
}

/// Ends when told to, or when nobody is left to tell.
async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the app is gone, which is the same.
    drop(stop.wait_for(|stop| *stop).await);
}
