//! What a server says, and when.

use super::*;
use mesh_xds::orca::LoadReport;
use std::time::Duration;
use tonic::Code;

/// The report of a response, wherever its status stands.
fn reported(metadata: &tonic::metadata::MetadataMap) -> Option<LoadReport> {
    let value = metadata.get_bin(mesh_xds::orca::TRAILER)?;
    LoadReport::parse(&value.to_bytes().unwrap())
}

mod layer {
    use super::*;
    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use tonic::{Status, body::Body, metadata::MetadataMap};
    use tower::{Layer as _, ServiceExt as _};

    async fn answer(request: Request<()>) -> Result<Response<Body>, std::convert::Infallible> {
        let load = request.extensions().get::<CallMetricsRecorder>().unwrap().clone();
        load.set_cpu_utilization(0.75);
        if request.uri().path() == "/fail" {
            return Ok(Status::internal("on purpose").into_http());
        }
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let body = Full::new(Bytes::from_static(b"x")).with_trailers(async move {
            // Still in time.
            load.set_request_cost("rows", 3.0);
            Some(Ok(trailers))
        });
        Ok(Response::new(Body::new(body)))
    }

    async fn call(layer: CallMetricsLayer, path: &str) -> Option<LoadReport> {
        let service = layer.layer(tower::service_fn(answer));
        let response = service.oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
        let (head, body) = response.into_parts();
        let trailers = body.collect().await.unwrap().trailers().cloned();
        assert_eq!(trailers.is_some(), path != "/fail");
        reported(&MetadataMap::from_headers(trailers.unwrap_or(head.headers)))
    }

    #[tokio::test]
    async fn a_report_comes_with_the_status_in_trailers_or_headers() {
        let server = ServerMetricsRecorder::new();
        server.set_qps(7.0);
        let expected = LoadReport { cpu_utilization: 0.75, rps_fractional: 7.0, ..LoadReport::default() };
        let with_server = || CallMetricsLayer::with_server_metrics(server.clone());
        assert_eq!(call(with_server(), "/fail").await, Some(expected.clone()));
        let cost = [("rows".to_owned(), 3.0)].into();
        assert_eq!(call(with_server(), "/").await, Some(LoadReport { request_cost: cost, ..expected }));
        assert_eq!(call(CallMetricsLayer::new(), "/fail").await.unwrap().rps_fractional, 0.0);
    }
}

mod service {
    use super::*;
    use mesh_xds::orca::{LoadReportRequest, SERVICE, STREAM_CORE_METRICS};
    use tokio::time::Instant;
    use tonic::{Status, Streaming, client::Grpc};
    use tonic_prost::ProstCodec;

    async fn stream(
        service: OpenRcaService,
        interval: Duration,
        path: &'static str,
    ) -> Result<Streaming<LoadReport>, Status> {
        let mut client = Grpc::new(service);
        let codec = ProstCodec::<LoadReportRequest, LoadReport>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let request = tonic::Request::new(LoadReportRequest::every(interval));
        Ok(client.server_streaming(request, path, codec).await?.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn reports_come_at_once_and_then_as_often_as_asked_but_not_more_often_than_the_server_allows() {
        let load = ServerMetricsRecorder::new();
        for (least, asked, expected) in [
            (None, 40, 40),
            (None, 10, 30),
            (None, 0, 30),
            (Some(5), 10, 10),
            (Some(5), 1, 5),
            (Some(0), u64::MAX, 24 * 60 * 60),
        ] {
            let service = OpenRcaService::new(load.clone());
            let service = match least {
                None => service,
                Some(least) => service.min_reporting_interval(Duration::from_secs(least)),
            };
            let begun = Instant::now();
            let mut reports = stream(service, Duration::from_secs(asked), STREAM_CORE_METRICS).await.unwrap();
            for index in 0..3_u32 {
                load.set_qps(f64::from(index));
                let report = reports.message().await.unwrap().unwrap();
                assert_eq!(report.rps_fractional, f64::from(index), "as it is by then");
                let due = Duration::from_secs(expected) * index;
                // tokio's timers are exact to a millisecond.
                assert!(begun.elapsed().abs_diff(due) < Duration::from_millis(10), "{asked} s: {index}");
            }
        }
    }

    #[tokio::test]
    async fn it_has_one_method() {
        assert_eq!(STREAM_CORE_METRICS, format!("/{SERVICE}/StreamCoreMetrics"));
        let service = OpenRcaService::new(ServerMetricsRecorder::new());
        let path = "/xds.service.orca.v3.OpenRcaService/Other";
        let status = stream(service, Duration::ZERO, path).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented);
    }
}
