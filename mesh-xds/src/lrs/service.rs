//! The collecting side: asks each client for all of its clusters, and sums up what they say.

use super::{
    SEND_ALL_CLUSTERS_FEATURE,
    sums::{Current, LoadSums},
};
use crate::server::{
    Bucket,
    places::{Full, Place, Places},
};
use envoy_types::pb::{
    envoy::service::load_stats::v3::{
        LoadStatsRequest, LoadStatsResponse,
        load_reporting_service_server::{LoadReportingService, LoadReportingServiceServer},
    },
    google::protobuf::Duration as DurationProto,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// How load reports are collected.
#[derive(Clone, Debug)]
pub struct LoadReportSettings {
    /// How often each client reports.
    pub interval: Duration,
    /// Clients at once; one gets another place only while it holds less than three times as many as are free.
    pub max_streams: usize,
    /// Bytes of one report.
    pub max_report_bytes: usize,
    /// A client that says nothing for this long after its start is let go.
    pub first_request_timeout: Duration,
}

impl Default for LoadReportSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            max_streams: 20_000,
            max_report_bytes: 4 << 20,
            first_request_timeout: Duration::from_secs(10),
        }
    }
}

/// Who may report.
#[derive(Clone, Debug, Default)]
pub struct Reporting {
    /// Clients with the same one share places, and none can take them all; empty: clients are not told apart.
    pub account: String,
    /// For how long; `None`: for ever.
    pub lifetime: Option<Duration>,
}

/// Decides who may report, by its connection; the status refuses it.
pub type Admission = Arc<dyn Fn(&http::Extensions) -> Result<Reporting, Status> + Send + Sync>;

/// Whether there is a cluster of that name.
pub type KnownClusters = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// Collects load reports. Cheap to clone; clones share the sums.
#[derive(Clone)]
pub struct LoadReportService {
    shared: Arc<Shared>,
    admission: Admission,
    known: KnownClusters,
}

struct Shared {
    settings: LoadReportSettings,
    sums: Mutex<LoadSums>,
    places: Arc<Places>,
    reports: watch::Sender<u64>,
    closing: watch::Sender<bool>,
}

impl Shared {
    fn sums(&self) -> MutexGuard<'_, LoadSums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl LoadReportService {
    /// A service that admits everybody, and every name of a cluster while there is room for it.
    pub fn new(settings: LoadReportSettings) -> Self {
        let shared = Shared {
            places: Places::new(settings.max_streams),
            settings,
            sums: Mutex::default(),
            reports: watch::Sender::new(0),
            closing: watch::Sender::new(false),
        };
        Self {
            shared: Arc::new(shared),
            admission: Arc::new(|_| Ok(Reporting::default())),
            known: Arc::new(|_| true),
        }
    }

    /// The same collection for another port.
    #[must_use]
    pub fn admitting(&self, admission: Admission) -> Self {
        Self { admission, ..self.clone() }
    }

    /// The same, where load of a cluster that there is not is summed up without its name.
    #[must_use]
    pub fn knowing(&self, known: KnownClusters) -> Self {
        Self { known, ..self.clone() }
    }

    /// The service for tonic's `Server`.
    pub fn service(&self) -> LoadReportingServiceServer<Self> {
        LoadReportingServiceServer::new(self.clone())
            .max_decoding_message_size(self.shared.settings.max_report_bytes)
    }

    /// What was reported until now.
    pub fn sums(&self) -> LoadSums {
        self.shared.sums().clone()
    }

    /// Counts up with every report.
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.shared.reports.subscribe()
    }

    /// Ends every stream, and refuses new ones: for shutdown.
    pub fn close(&self) {
        self.shared.closing.send_replace(true);
    }
}

/// One client.
struct Session {
    shared: Arc<Shared>,
    known: KnownClusters,
    requests: Streaming<LoadStatsRequest>,
    closing: watch::Receiver<bool>,
    expires: Option<Instant>,
    rate: Bucket,
    current: Current,
    asked: bool,
    _place: Place,
}

impl Session {
    /// In a task of its own: a client that takes no answers has no more time than others.
    async fn run(mut self, answers: mpsc::Sender<Result<LoadStatsResponse, Status>>) {
        let told = async {
            while let Some(answer) = self.next().await.transpose() {
                let is_last = answer.is_err();
                if answers.send(answer).await.is_err() || is_last {
                    return;
                }
            }
        };
        tokio::select! {
            () = told => {}
            () = answers.closed() => {}
        }
    }

    /// The one response, then the end.
    async fn next(&mut self) -> Result<Option<LoadStatsResponse>, Status> {
        loop {
            let patience = (!self.asked).then_some(self.shared.settings.first_request_timeout);
            let request = tokio::select! {
                request = self.requests.message() => match request? {
                    Some(request) => request,
                    None => return Ok(None),
                },
                () = sleep(patience) => {
                    return Err(Status::deadline_exceeded("no request came; the first one must name the node"));
                }
                () = sleep(self.expires.map(|at| at.saturating_duration_since(now()))) => {
                    return Err(Status::unauthenticated(
                        "the certificate that this stream was opened with has expired; connect again with a new one",
                    ));
                }
                // An error means that the service is gone, which is as final.
                _ = self.closing.wait_for(|closing| *closing) => return Ok(None),
            };
            if !self.rate.take(now()) {
                return Err(Status::resource_exhausted(format!(
                    "reports come faster than the limit of {REPORTS_PER_SECOND} a second"
                )));
            }
            if !self.asked {
                return self.ask(request).map(Some);
            }
            self.shared.sums().add(&request.cluster_stats, &mut self.current, &*self.known);
            self.shared.reports.send_modify(|count| *count += 1);
        }
    }

    fn ask(&mut self, first: LoadStatsRequest) -> Result<LoadStatsResponse, Status> {
        let Some(node) = first.node else {
            return Err(Status::invalid_argument("the first request of a stream must name its node"));
        };
        if !node.client_features.iter().any(|feature| feature == SEND_ALL_CLUSTERS_FEATURE) {
            return Err(Status::failed_precondition(format!(
                "this control plane asks for the load of all clusters, which node {} does not support: its \
                 client_features lack {SEND_ALL_CLUSTERS_FEATURE}",
                node.id
            )));
        }
        self.asked = true;
        let interval = self.shared.settings.interval;
        Ok(LoadStatsResponse {
            send_all_clusters: true,
            load_reporting_interval: Some(DurationProto {
                seconds: i64::try_from(interval.as_secs()).unwrap_or(i64::MAX),
                nanos: i32::try_from(interval.subsec_nanos()).unwrap_or(0),
            }),
            ..LoadStatsResponse::default()
        })
    }
}

/// Reports at once, and then a second: those of the shortest interval that is ever asked for.
const REPORTS_PER_SECOND: u32 = 20;

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.sums().forget(&mut self.current);
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[tonic::async_trait]
impl LoadReportingService for LoadReportService {
    type StreamLoadStatsStream = ReceiverStream<Result<LoadStatsResponse, Status>>;

    async fn stream_load_stats(
        &self,
        request: Request<Streaming<LoadStatsRequest>>,
    ) -> Result<Response<Self::StreamLoadStatsStream>, Status> {
        if *self.shared.closing.borrow() {
            return Err(Status::unavailable("the control plane is shutting down"));
        }
        let Reporting { account, lifetime } = (self.admission)(request.extensions())?;
        let place = self.shared.places.take(&account).map_err(|full| {
            let limit = self.shared.settings.max_streams;
            Status::unavailable(match full {
                Full::All => format!(
                    "this control plane takes load reports of its limit of {limit} clients; try again, or add a \
                     replica"
                ),
                Full::Peer => format!(
                    "this control plane takes load reports of nearly its limit of {limit} clients, and what is left \
                     is not for one that has as many streams as this one"
                ),
            })
        })?;
        let session = Session {
            shared: self.shared.clone(),
            known: self.known.clone(),
            requests: request.into_inner(),
            closing: self.shared.closing.subscribe(),
            expires: lifetime.map(|left| now() + left),
            rate: Bucket::new(REPORTS_PER_SECOND, REPORTS_PER_SECOND),
            current: Current::new(),
            asked: false,
            _place: place,
        };
        // There is room for all that a session ever says: its one response, and why it ends.
        let (answers, responses) = mpsc::channel(2);
        tokio::spawn(session.run(answers));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}
