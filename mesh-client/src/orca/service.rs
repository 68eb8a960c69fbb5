//! Reports that come by themselves: `xds.service.orca.v3.OpenRcaService`.

use super::recorder::ServerMetricsRecorder;
use futures_util::{future::BoxFuture, stream, stream::BoxStream};
use http::Request;
use mesh_xds::orca::{self, LoadReport, LoadReportRequest};
use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval};
use tonic::{
    Response, Status,
    body::Body,
    server::{Grpc, NamedService, ServerStreamingService},
};
use tonic_prost::ProstCodec;
use tower_service::Service;

const DEFAULT_LEAST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_millis(1);
/// Nobody is served by waiting longer.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Sends a server's load to those who ask for it: a report at once, and one each interval until they go. For
/// `add_service` of a tonic server.
#[derive(Clone, Debug)]
pub struct OpenRcaService {
    metrics: ServerMetricsRecorder,
    least: Duration,
}

impl OpenRcaService {
    /// Reports come every 30 s at most, as in gRPC; see [`Self::min_reporting_interval`].
    pub fn new(metrics: ServerMetricsRecorder) -> Self {
        Self { metrics, least: DEFAULT_LEAST }
    }

    /// Who asks for reports more often than this, or does not say how often, gets them this often; at least 1 ms.
    #[must_use]
    pub fn min_reporting_interval(mut self, least: Duration) -> Self {
        self.least = least.clamp(SHORTEST, LONGEST);
        self
    }
}

impl ServerStreamingService<LoadReportRequest> for OpenRcaService {
    type Response = LoadReport;
    type ResponseStream = BoxStream<'static, Result<LoadReport, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<LoadReportRequest>) -> Self::Future {
        let mut ticks = interval(request.into_inner().interval().clamp(self.least, LONGEST));
        // Reports that are late are not sent twice.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reports = stream::unfold((self.metrics.clone(), ticks), |(metrics, mut ticks)| async {
            ticks.tick().await;
            Some((Ok(metrics.report()), (metrics, ticks)))
        });
        std::future::ready(Ok(Response::new(Box::pin(reports))))
    }
}

impl NamedService for OpenRcaService {
    const NAME: &'static str = orca::SERVICE;
}

impl<B> Service<Request<B>> for OpenRcaService
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != orca::STREAM_CORE_METRICS {
                let status = Status::unimplemented(format!("{} has no such method", orca::SERVICE));
                return Ok(status.into_http());
            }
            let codec = ProstCodec::<LoadReport, LoadReportRequest>::default();
            Ok(Grpc::new(codec).server_streaming(service, request).await)
        })
    }
}
