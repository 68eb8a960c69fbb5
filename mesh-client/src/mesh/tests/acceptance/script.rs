//! An HTTP/2 server made of bytes: it says what a script says, be it right or wrong.
//!
//! Frames are written by hand, headers without compression, so that every byte is known. The server reads only what
//! it needs to know when a request has come as a whole, and on which stream.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const PING: u8 = 0x6;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const WINDOW_UPDATE: u8 = 0x8;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const ACK: u8 = 0x1;

/// A frame.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: literals that are not indexed.
pub(super) fn block(headers: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in headers {
        bytes.push(0);
        for text in [name.as_bytes(), value] {
            integer(text.len(), &mut bytes);
            bytes.extend(text);
        }
    }
    bytes
}

/// With a prefix of seven bits (RFC 7541, 5.1).
fn integer(value: usize, bytes: &mut Vec<u8>) {
    let Some(mut rest) = value.checked_sub(127) else { return bytes.push(u8::try_from(value).unwrap()) };
    bytes.push(127);
    while rest >= 128 {
        bytes.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    bytes.push(u8::try_from(rest).unwrap());
}

/// HEADERS with these.
pub(super) fn headers(flags: u8, stream: u32, headers: &[(&str, &[u8])]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(headers))
}

/// The headers of an answer that is gRPC.
pub(super) fn begin(stream: u32) -> Vec<u8> {
    headers(0, stream, &[(":status", b"200"), ("content-type", b"application/grpc")])
}

/// A message without content.
pub(super) fn message(flags: u8, stream: u32) -> Vec<u8> {
    frame(DATA, flags, stream, &[0; 5])
}

pub(super) fn trailers(stream: u32, trailers: &[(&str, &[u8])]) -> Vec<u8> {
    headers(END_STREAM, stream, trailers)
}

/// What it says at first.
pub(super) fn hello() -> Vec<u8> {
    [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat()
}

/// A whole answer.
pub(super) fn answer(stream: u32) -> Vec<u8> {
    [begin(stream), message(0, stream), trailers(stream, &[("grpc-status", b"0")])].concat()
}

/// What becomes of a connection when everything was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It stays, and says nothing.
    Stop,
    /// It is closed.
    Close,
    /// It says what means nothing, and stays.
    Garbage,
}

/// What is said when a request has come, of which this is the stream.
pub(super) type Answer = Arc<dyn Fn(u32) -> Vec<u8> + Send + Sync>;

/// What a server says.
#[derive(Clone)]
pub(super) struct Script {
    /// It is an HTTP CONNECT proxy as well, and says this when it is asked for the way; nothing: it is none.
    pub(super) way: &'static [u8],
    pub(super) hello: Vec<u8>,
    pub(super) answer: Answer,
    /// Of all that is said; what comes behind is not.
    pub(super) most: usize,
    pub(super) then: Then,
}

impl Script {
    /// This answer to every request.
    pub(super) fn answering(answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self { way: b"", hello: hello(), answer: Arc::new(answer), most: usize::MAX, then: Then::Stop }
    }

    async fn play(&self, mut stream: TcpStream) -> std::io::Result<()> {
        if !self.way.is_empty() {
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await?);
            }
        }
        // Nothing waits between the two: the endpoint may speak first.
        let hello = [self.way, &self.hello].concat();
        let mut said = hello.len().min(self.most);
        stream.write_all(&hello[..said]).await?;
        if self.most >= self.way.len() {
            let mut preface = [0; 24];
            stream.read_exact(&mut preface).await?;
        }
        while said < self.most {
            let id = request(&mut stream).await?;
            let answer = (self.answer)(id);
            let rest = answer.len().min(self.most - said);
            stream.write_all(&answer[..rest]).await?;
            said += rest;
            if self.then != Then::Stop {
                break;
            }
        }
        match self.then {
            Then::Close => return Ok(()),
            Then::Garbage => stream.write_all(&[0xff; 64]).await?,
            Then::Stop => {}
        }
        // Until the client goes.
        let mut read = [0; 1 << 12];
        while stream.read(&mut read).await? > 0 {}
        Ok(())
    }
}

/// Reads until a request has ended; its stream.
async fn request(stream: &mut TcpStream) -> std::io::Result<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            return Ok(u32::from_be_bytes(id));
        }
    }
}

/// A server that plays a script on every connection.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Scripted {
    pub(super) async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = accepted.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, SeqCst);
                let script = script.clone();
                connections.spawn(async move {
                    // The client may end it at any byte.
                    let _ = script.play(stream).await;
                });
            }
        });
        Self { address, accepted, _tasks: tasks }
    }

    /// Connections that came.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(SeqCst)
    }
}
