//! The collecting side: asks each client for all of its clusters, and sums up what they say.

use super::{
    SEND_ALL_CLUSTERS_FEATURE,
    report::{NodeSaid, Report},
    sums::{Collection, Current, LoadSums},
};
use crate::server::{
    Bucket, Full, Place, Places,
    requests::{Requests, Unread},
};
use bytes::Bytes;
use envoy_types::pb::{
    envoy::service::load_stats::v3::LoadStatsResponse, google::protobuf::Duration as DurationProto,
};
use http::header::CONTENT_TYPE;
use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status,
    body::Body,
    codec::{BufferSettings, EncodeBody, SingleMessageCompressionOverride},
    metadata::GRPC_CONTENT_TYPE,
    server::NamedService,
};
use tonic_prost::ProstEncoder;
use tower_service::Service;

/// How load reports are collected.
#[derive(Clone, Debug)]
pub struct LoadReportSettings {
    /// How often each client reports. One that does so more than twice as often, for a while, is let go.
    pub interval: Duration,
    /// Clients at once; one gets another place only while it holds less than three times as many as are free.
    pub max_streams: usize,
    /// Bytes of one report. One of 1,000 clusters in 10 localities each has some 860,000.
    pub max_report_bytes: usize,
    /// Bytes of reports that have begun and not ended, in all; a client gets room for more only while it holds less than
    /// three times as much as is free. A stream that finds none ends with UNAVAILABLE.
    pub max_begun_bytes: usize,
    /// A client that says nothing for this long after its start is let go.
    pub first_request_timeout: Duration,
}

impl Default for LoadReportSettings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            max_streams: 20_000,
            max_report_bytes: 2 << 20,
            max_begun_bytes: 512 << 20,
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
    sums: Collection,
    places: Arc<Places>,
    begun: Arc<Places>,
    reports: watch::Sender<u64>,
    closing: watch::Sender<bool>,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl LoadReportService {
    /// A service that admits everybody, and every name of a cluster while there is room for it.
    pub fn new(settings: LoadReportSettings) -> Self {
        let shared = Shared {
            places: Places::new(settings.max_streams),
            begun: Places::new(settings.max_begun_bytes),
            settings,
            sums: Collection::default(),
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
    pub fn service(&self) -> LoadReportServer {
        LoadReportServer(self.clone())
    }

    /// What was reported until now.
    pub fn sums(&self) -> LoadSums {
        self.shared.sums.sums()
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
    requests: Requests<Report>,
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
                request = self.requests.next() => {
                    match request.map_err(|error| unreadable(error, &self.shared.settings))? {
                        Some(request) => request,
                        None => return Ok(None),
                    }
                }
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
                    "reports come more than {REPORTS_PER_INTERVAL} times in each {:?}, the interval that this client \
                     was told, after the first {REPORTS_AT_ONCE}",
                    self.shared.settings.interval
                )));
            }
            if !self.asked {
                return self.ask(request).map(Some);
            }
            self.shared.sums.add(&request.clusters, &mut self.current, &*self.known, now());
            self.shared.reports.send_modify(|count| *count += 1);
        }
    }

    fn ask(&mut self, first: Report) -> Result<LoadStatsResponse, Status> {
        let Some(NodeSaid { id, sends_all }) = first.node else {
            return Err(Status::invalid_argument("the first request of a stream must name its node"));
        };
        if !sends_all {
            return Err(Status::failed_precondition(format!(
                "this control plane asks for the load of all clusters, which node {id} does not support: its \
                 client_features lack {SEND_ALL_CLUSTERS_FEATURE}"
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

/// Reports at once: those that a slow connection held up come together …
const REPORTS_AT_ONCE: u32 = 10;
/// … and then in each interval that was told: clocks differ.
const REPORTS_PER_INTERVAL: u32 = 2;

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.sums.forget(&mut self.current);
    }
}

/// What a client is told whose request could not be read.
fn unreadable(why: Unread, settings: &LoadReportSettings) -> Status {
    let limit = settings.max_begun_bytes;
    match why {
        Unread::TooLarge(bytes) => Status::resource_exhausted(format!(
            "a report of {bytes} bytes is larger than the limit of {} bytes",
            settings.max_report_bytes
        )),
        Unread::NoRoom(Full::All) => Status::unavailable(format!(
            "this control plane is reading reports of its limit of {limit} bytes; try again, or add a replica"
        )),
        Unread::NoRoom(Full::Peer) => Status::unavailable(format!(
            "this control plane is reading reports of nearly its limit of {limit} bytes, and what is left is not for one \
             of whom it reads as much as of this client"
        )),
        Unread::Failed(status) => status,
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

impl LoadReportService {
    fn open(&self, request: http::Request<Body>) -> Result<Responses, Status> {
        let settings = &self.shared.settings;
        if *self.shared.closing.borrow() {
            return Err(Status::unavailable("the control plane is shutting down"));
        }
        let Reporting { account, lifetime } = (self.admission)(request.extensions())?;
        let place = self.shared.places.take(&account).map_err(|full| {
            let limit = settings.max_streams;
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
        let (limit, room) = (settings.max_report_bytes, (&self.shared.begun, account.as_str()));
        let requests = Requests::new(request.into_body(), |bytes| Ok(Report::read(bytes)?), limit, room);
        let session = Session {
            shared: self.shared.clone(),
            known: self.known.clone(),
            requests,
            closing: self.shared.closing.subscribe(),
            expires: lifetime.map(|left| now() + left),
            rate: Bucket::every(REPORTS_AT_ONCE, settings.interval / REPORTS_PER_INTERVAL),
            current: self.shared.sums.client(&account),
            asked: false,
            _place: place,
        };
        // There is room for all that a session ever says: its one response, and why it ends.
        let (answers, responses) = mpsc::channel(2);
        tokio::spawn(session.run(answers));
        Ok(ReceiverStream::new(responses))
    }
}

type Responses = ReceiverStream<Result<LoadStatsResponse, Status>>;

/// `envoy.service.load_stats.v3.LoadReportingService` for tonic's `Server`: see [`LoadReportService::service`]. What is
/// generated for it would decode a report before anybody could say that it is too much.
#[derive(Clone)]
pub struct LoadReportServer(LoadReportService);

impl NamedService for LoadReportServer {
    const NAME: &'static str = "envoy.service.load_stats.v3.LoadReportingService";
}

impl<B> Service<http::Request<B>> for LoadReportServer
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let answers = match method {
            "StreamLoadStats" => self.0.open(request.map(Body::new)),
            _ => Err(Status::unimplemented(format!("{} has no method {method:?}", Self::NAME))),
        };
        ready(Ok(answers.map_or_else(Status::into_http, encoded)))
    }
}

/// Headers at once: some clients wait for them before they say who they are.
fn encoded(answers: Responses) -> http::Response<Body> {
    let encoder = ProstEncoder::<LoadStatsResponse>::new(BufferSettings::new(64, 1 << 10));
    let uncompressed = SingleMessageCompressionOverride::default();
    let mut response =
        http::Response::new(Body::new(EncodeBody::new_server(encoder, answers, None, uncompressed, None)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
    response
}
