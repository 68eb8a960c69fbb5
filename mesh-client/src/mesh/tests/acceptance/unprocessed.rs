//! What a client may send again though no policy says so (gRPC A6): what the server says it has not looked at, once, and
//! nothing else. The servers are made of bytes: only they can refuse what they have read.

use super::{
    script::{
        DATA, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, begin, frame, hello, message,
        trailers,
    },
    *,
};
use http_body::Frame;
use http_body_util::StreamBody;
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const REFUSED_STREAM: u32 = 7;

/// What a server does with a request, as soon as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Serve,
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY, of which this stream is not among the processed ones; and the end.
    GoAwayBefore,
    /// GOAWAY, of which this stream is the last that is processed; and the end.
    GoAwayAfter,
    /// Response headers, then RST_STREAM with this code.
    BeginAndReset(u32),
    /// A message of the response, then GOAWAY of streams before this one; and the end.
    BeginAndGoAway,
    Close,
}

/// What a server has seen and will do.
#[derive(Default)]
struct Plan {
    acts: VecDeque<Act>,
    /// Bodies as far as they have been read, in the order of requests.
    bodies: Vec<Vec<u8>>,
    connections: usize,
}

/// A server that does this with one request after the other; it serves what comes then.
struct Server {
    address: SocketAddr,
    plan: Arc<Mutex<Plan>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// `whole`: acts when a request has ended; otherwise on its first message.
    async fn start(whole: bool, acts: impl IntoIterator<Item = Act>) -> Self {
        let plan = Arc::new(Mutex::new(Plan { acts: acts.into_iter().collect(), ..Plan::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut tasks, shared) = (JoinSet::new(), plan.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let plan = shared.clone();
                plan.lock().unwrap().connections += 1;
                connections.spawn(async move { drop(serve(stream, &plan, whole).await) });
            }
        });
        Self { address, plan, _tasks: tasks }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap()
    }
}

async fn serve(mut stream: TcpStream, plan: &Mutex<Plan>, whole: bool) -> std::io::Result<()> {
    // Nothing waits for windows.
    let windows =
        [frame(SETTINGS, 0, 0, &[0, 4, 0, 1 << 4, 0, 0]), frame(WINDOW_UPDATE, 0, 0, &[0, 1 << 4, 0, 0])];
    stream.write_all(&[hello(), windows.concat()].concat()).await?;
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await?;
    // The request that is being read: its stream, its place, and whether it has been acted on.
    let mut current = (0, 0, true);
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let (id, length) = (u32::from_be_bytes(id), u32::from_be_bytes([0, a, b, c]));
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        if kind == HEADERS {
            let mut plan = plan.lock().unwrap();
            current = (id, plan.bodies.len(), false);
            plan.bodies.push(Vec::new());
        }
        if kind == DATA && id == current.0 {
            plan.lock().unwrap().bodies[current.1].extend(&payload);
        }
        let ended = flags & END_STREAM != 0;
        if !matches!(kind, DATA | HEADERS)
            || id != current.0
            || current.2
            || !(ended || !whole && kind == DATA)
        {
            continue;
        }
        current.2 = true;
        let act = plan.lock().unwrap().acts.pop_front().unwrap_or(Act::Serve);
        let reset = |code: u32| frame(RST_STREAM, 0, id, &code.to_be_bytes());
        let goaway = |last: u32| frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat());
        let (said, ends) = match act {
            Act::Serve => {
                let end = trailers(id, &[("grpc-status", b"0")]);
                ([begin(id), message(0, id), end].concat(), false)
            }
            Act::Reset(code) => (reset(code), false),
            Act::GoAwayBefore => (goaway(id - 1), true),
            Act::GoAwayAfter => (goaway(id), true),
            Act::BeginAndReset(code) => ([begin(id), reset(code)].concat(), false),
            Act::BeginAndGoAway => ([begin(id), message(0, id), goaway(id - 1)].concat(), true),
            Act::Close => (Vec::new(), true),
        };
        stream.write_all(&said).await?;
        if ends {
            return stream.shutdown().await;
        }
    }
}

/// One endpoint, no retry policy.
async fn world(whole: bool, acts: impl IntoIterator<Item = Act>) -> (Plane, Server, Mesh, MeshChannel) {
    let (plane, server) = (Plane::start().await, Server::start(whole, acts).await);
    plane.publish(&reviews([("v1", vec![server.address])]));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    (plane, server, mesh, channel)
}

fn transparent(mesh: &Mesh) -> u64 {
    mesh.status().targets["reviews:9080"].calls.transparent_retries
}

#[tokio::test]
async fn what_a_server_has_not_processed_is_sent_again_once() {
    use Act::{GoAwayBefore, Reset};
    for (acts, wanted, requests, again) in [
        (vec![Reset(REFUSED_STREAM)], Code::Ok, 2, 1),
        (vec![GoAwayBefore], Code::Ok, 2, 1),
        (vec![Reset(REFUSED_STREAM), Reset(REFUSED_STREAM)], Code::Unavailable, 2, 1),
        (vec![GoAwayBefore, Reset(REFUSED_STREAM)], Code::Unavailable, 2, 1),
        (vec![Reset(REFUSED_STREAM), Act::Close], Code::Unavailable, 2, 1),
    ] {
        let (_plane, server, mesh, channel) = world(true, acts.clone()).await;
        let status = within(status(channel.clone(), request("v1", LONG))).await;
        assert_eq!(status.code(), wanted, "{acts:?}: {status}");
        {
            let plan = server.plan();
            assert_eq!(plan.bodies, vec![vec![0; 5]; requests], "{acts:?}: the same each time");
        }
        assert_eq!(transparent(&mesh), again, "{acts:?}");
        at_rest(&mesh).await;
    }
}

/// The server may have done what was asked: another attempt could do it twice.
#[tokio::test]
async fn what_a_server_may_have_processed_is_sent_once() {
    let mut acts = vec![
        Act::GoAwayAfter,
        Act::Close,
        Act::BeginAndGoAway,
        Act::BeginAndReset(REFUSED_STREAM),
        Act::BeginAndReset(8),
    ];
    acts.extend((0..=13).filter(|code| *code != REFUSED_STREAM).map(Act::Reset));
    for act in acts {
        let (_plane, server, mesh, channel) = world(true, [act]).await;
        let status = within(status(channel.clone(), request("v1", LONG))).await;
        assert_ne!(status.code(), Code::Ok, "{act:?}: {status}");
        assert!(status.message().contains(&server.address.to_string()), "{act:?}: {status}");
        assert_eq!((server.plan().bodies.len(), transparent(&mesh)), (1, 0), "{act:?}");
        at_rest(&mesh).await;
    }
}

#[tokio::test]
async fn a_stream_that_was_refused_begins_again_with_what_it_has_sent() {
    for act in [Act::Reset(REFUSED_STREAM), Act::GoAwayBefore] {
        let (_plane, server, mesh, mut channel) = world(false, [act]).await;
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Status>>();
        let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let request = request("v1", LONG).map(|_| Body::new(StreamBody::new(frames)));
        sender.send(Ok(Frame::data(Bytes::from_static(b"first")))).unwrap();
        let response = within(channel.call(request)).await.unwrap();
        assert_eq!(transparent(&mesh), 1);
        // It has begun, so nothing is kept any more, though the stream goes on.
        at_rest_of_memory(&mesh).await;
        sender.send(Ok(Frame::data(Bytes::from_static(b"second")))).unwrap();
        drop(sender);
        within(async {
            while server.plan().bodies.get(1).is_none_or(|body| body != b"firstsecond") {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(server.plan().bodies[0], b"first", "{act:?}");
        drop(response);
        at_rest(&mesh).await;
    }
}

async fn at_rest_of_memory(mesh: &Mesh) {
    within(async {
        while held(mesh).iter().any(|(what, _)| what.ends_with("bytes for retries")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_too_long_to_keep_is_sent_once() {
    for (length, wanted) in [(64 << 10, Code::Ok), ((64 << 10) + 1, Code::Unavailable)] {
        let (_plane, server, mesh, channel) = world(true, [Act::Reset(REFUSED_STREAM)]).await;
        let request = request("v1", LONG).map(|_| Body::new(Full::new(Bytes::from(vec![7; length]))));
        let status = within(status(channel.clone(), request)).await;
        assert_eq!(status.code(), wanted, "{length}: {status}");
        let lengths: Vec<_> = server.plan().bodies.iter().map(Vec::len).collect();
        match wanted {
            Code::Ok => assert_eq!(lengths, [length, length]),
            _ => assert_eq!(lengths.len(), 1),
        }
        at_rest(&mesh).await;
    }
}

/// The caller's own failure resets the stream, too, and is nobody's refusal.
#[tokio::test]
async fn a_request_whose_body_fails_is_sent_once() {
    let (_plane, server, mesh, channel) = world(true, []).await;
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Status>>();
    let frames = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let request = request("v1", LONG).map(|_| Body::new(StreamBody::new(frames)));
    sender.send(Ok(Frame::data(Bytes::from_static(b"first")))).unwrap();
    let failing = async {
        while server.plan().bodies.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sender.send(Err(Status::aborted("mine"))).unwrap();
    };
    let (status, ()) = within(async { tokio::join!(status(channel.clone(), request), failing) }).await;
    assert_eq!(status.code(), Code::Cancelled, "{status}");
    assert!(status.message().contains("the request's body failed"), "{status}");
    assert_eq!((server.plan().bodies.len(), transparent(&mesh)), (1, 0));
    at_rest(&mesh).await;
}
