//! One window: callers that each call again as soon as they are answered, for a while.

use crate::{Outcome, stream::StreamsClient};
use mesh_examples::greeter::{HelloRequest, greeter_client::GreeterClient};
use rustix::time::{ClockId, clock_gettime};
use std::{
    future::Future,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    codegen::{Body as HttpBody, Bytes, StdError},
};

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One message each way.
    Unary,
    /// One message there, [`MESSAGES`](crate::stream::MESSAGES) back.
    Download,
}

/// What a window does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What is called.
    pub kind: Kind,
    /// Calls in flight.
    pub callers: u32,
    /// Bytes of the message, each way.
    pub payload: usize,
    /// How long.
    pub length: Length,
}

impl Load {
    /// Calls of one message each way.
    pub fn unary(callers: u32, payload: usize, time: Duration) -> Self {
        Self { kind: Kind::Unary, callers, payload, length: Length::Time(time) }
    }
}

/// How long a window is.
#[derive(Clone, Copy, Debug)]
pub enum Length {
    /// This many calls of each caller.
    Calls(u64),
    /// At least so long.
    Time(Duration),
}

/// What a window saw.
#[derive(Debug)]
pub struct Window {
    /// Calls made.
    pub calls: u64,
    /// Time it took.
    pub wall: Duration,
    /// Processor time of the process, in the kernel too; nothing in a window of so many calls,
    /// which is there to be counted.
    pub cpu: Duration,
    /// That of proxies between client and server, if there are any.
    pub sidecars: Duration,
    /// Of every call, sorted, in nanoseconds.
    pub latencies: Vec<u64>,
}

impl Window {
    /// Calls per second.
    pub fn throughput(&self) -> f64 {
        self.calls as f64 / self.wall.as_secs_f64()
    }

    /// Nanoseconds of processor time for a call.
    pub fn cpu_per_call(&self) -> f64 {
        self.cpu.as_nanos() as f64 / self.calls as f64
    }

    /// Nanoseconds of the proxies' processor time for a call.
    pub fn sidecar_cpu_per_call(&self) -> f64 {
        self.sidecars.as_nanos() as f64 / self.calls as f64
    }
}

/// A client that makes the one call that is measured.
pub trait Call: Clone + Send + 'static {
    /// Calls, and takes the answer.
    fn call(&mut self, request: HelloRequest) -> impl Future<Output = Result<(), Status>> + Send;
}

impl<T> Call for GreeterClient<T>
where
    T: GrpcService<Body, Future: Send> + Clone + Send + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    async fn call(&mut self, request: HelloRequest) -> Result<(), Status> {
        self.say_hello(request).await.map(drop)
    }
}

impl<T> Call for StreamsClient<T>
where
    T: GrpcService<Body, Future: Send> + Clone + Send + 'static,
    T::Error: Into<StdError>,
    T::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    async fn call(&mut self, request: HelloRequest) -> Result<(), Status> {
        self.download(request).await
    }
}

/// Runs one. A failed call fails it.
pub async fn run(client: impl Call, load: Load) -> Outcome<Window> {
    let message = HelloRequest { name: "x".repeat(load.payload) };
    let mut callers = JoinSet::new();
    let timed = matches!(load.length, Length::Time(_));
    let process_time = || if timed { process_time() } else { Duration::ZERO };
    let (begun, cpu) = (Instant::now(), process_time());
    for _ in 0..load.callers {
        callers.spawn(caller(client.clone(), message.clone(), load.length, begun));
    }
    let mut latencies = Vec::new();
    while let Some(caller) = callers.join_next().await {
        latencies.append(&mut caller??);
    }
    let (wall, cpu) = (begun.elapsed(), process_time().saturating_sub(cpu));
    latencies.sort_unstable();
    Ok(Window { calls: latencies.len() as u64, wall, cpu, sidecars: Duration::ZERO, latencies })
}

async fn caller(
    mut client: impl Call,
    message: HelloRequest,
    length: Length,
    begun: Instant,
) -> Result<Vec<u64>, Status> {
    let mut latencies = Vec::with_capacity(1 << 14);
    let mut now = Instant::now();
    loop {
        let over = match length {
            Length::Calls(calls) => latencies.len() as u64 >= calls,
            Length::Time(time) => now - begun >= time,
        };
        if over {
            return Ok(latencies);
        }
        client.call(message.clone()).await?;
        let done = Instant::now();
        latencies.push(u64::try_from((done - now).as_nanos()).unwrap_or(u64::MAX));
        now = done;
    }
}

/// Processor time that this process has had.
fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}
