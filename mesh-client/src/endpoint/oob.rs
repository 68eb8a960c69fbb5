//! Load reports that an endpoint sends by itself (ORCA out of band; gRFC A51).
//!
//! Promises: while the cluster asks for them there is one stream, on a connection that is offered to calls; it
//! moves when that connection goes, and ends with the endpoint. After a failure it is opened again: 1 s later,
//! x1.6 up to 120 s, +-20 %, from the beginning after a stream that brought a report. An endpoint that does not
//! have the service is asked once for each connection, which is logged once.

use super::{Endpoint, conn::Conn, machine::backoff, own::Own};
use mesh_xds::orca::{self, LoadReport, LoadReportRequest};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::task::AbortHandle;
use tonic::{Code, Status, client::Grpc};
use tonic_prost::ProstCodec;

/// A report has a few numbers, however many of them have names.
const LARGEST_REPORT: usize = 64 << 10;

/// The stream of an endpoint, if there is one. Ends it when dropped.
#[derive(Default)]
pub(super) struct OutOfBand {
    following: Option<Following>,
    /// It was said that the endpoint cannot.
    told: Arc<AtomicBool>,
}

struct Following {
    conn: Arc<Conn>,
    period: Duration,
    task: AbortHandle,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl OutOfBand {
    /// Asks for a report every `period`, over one of these connections. Needs a tokio runtime.
    pub(super) fn follow<'a>(
        &mut self,
        period: Option<Duration>,
        mut offered: impl Iterator<Item = &'a Arc<Conn>> + Clone,
        seed: u64,
    ) {
        let stays = |now: &Following| {
            Some(now.period) == period && offered.clone().any(|conn| Arc::ptr_eq(conn, &now.conn))
        };
        if self.following.as_ref().is_some_and(stays) {
            return;
        }
        // Ended before another begins.
        self.following = None;
        self.following = period.zip(offered.next()).map(|(period, conn)| {
            let stream = run(Arc::clone(conn), period, seed, Arc::clone(&self.told));
            Following { conn: Arc::clone(conn), period, task: tokio::spawn(stream).abort_handle() }
        });
    }
}

async fn run(conn: Arc<Conn>, period: Duration, seed: u64, told: Arc<AtomicBool>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut failures = 0;
    let endpoint = Arc::clone(conn.endpoint());
    loop {
        let (reports, status) = stream(&conn, &endpoint, period).await;
        let Endpoint { cluster, address, .. } = &*endpoint;
        if status.code() == Code::Unimplemented {
            if !told.swap(true, Relaxed) {
                tracing::warn!(
                    %cluster, endpoint = %address, reason = status.message(),
                    "the endpoint has no service xds.service.orca.v3.OpenRcaService, so that its load is not known, and it gets the mean of the others: add the service to it, or set enable_oob_load_report to false (said once)"
                );
            }
            return;
        }
        failures = if reports > 0 { 1 } else { failures + 1 };
        let wait = backoff(failures, &mut rng);
        tracing::debug!(%cluster, endpoint = %address, ?wait, %status, "no load reports");
        tokio::time::sleep(wait).await;
    }
}

/// How many reports came, and how it ended.
async fn stream(conn: &Arc<Conn>, endpoint: &Endpoint, period: Duration) -> (u64, Status) {
    let mut client = Grpc::new(Own::new(Arc::clone(conn))).max_decoding_message_size(LARGEST_REPORT);
    let request = tonic::Request::new(LoadReportRequest::every(period));
    let path = http::uri::PathAndQuery::from_static(orca::STREAM_CORE_METRICS);
    let codec = ProstCodec::<LoadReportRequest, LoadReport>::default();
    let mut reports = match client.server_streaming(request, path, codec).await {
        Ok(response) => response.into_inner(),
        Err(status) => return (0, status),
    };
    let mut count = 0;
    loop {
        match reports.message().await {
            Ok(Some(report)) => {
                count += 1;
                endpoint.report(&report);
            }
            Ok(None) => return (count, Status::ok("the endpoint ended the stream")),
            Err(status) => return (count, status),
        }
    }
}
