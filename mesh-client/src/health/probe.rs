//! One check: `grpc.health.v1.Health/Check`, or a TCP connection on which some bytes are exchanged.
//!
//! Promises: every failure says what was asked of whom and what came back; whatever a server sends, it is read up to
//! a bound.

use super::{Answer, HealthCheckRequest, HealthCheckResponse, ServingStatus};
use crate::cluster::answer::GRPC_STATUS;
use crate::endpoint::{
    connect::Dialler,
    driver::{Driver, Ended},
    io::{BoxIo, cause},
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::{Reason, RecvStream, client::SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header::CONTENT_TYPE, uri::Scheme};
use mesh_xds::resource::cluster::HealthProbe;
use prost::Message;
use std::{net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

const PATH: &str = "/grpc.health.v1.Health/Check";
/// Of an answer: it is one small number.
const MOST: usize = 1 << 10;
/// Of what a TCP check waits for among other bytes.
const MOST_RECEIVED: usize = 64 << 10;

/// Whom a check goes to.
pub(crate) struct To<'a> {
    pub(crate) dialler: &'a Dialler,
    pub(crate) address: SocketAddr,
    /// `:authority`, if it can be one.
    pub(crate) authority: &'a str,
}

/// What is kept between two checks of an endpoint. Dropped, the connection ends.
#[derive(Default)]
pub(crate) enum Link {
    #[default]
    None,
    Grpc {
        sender: SendRequest<Bytes>,
        scheme: Scheme,
        driver: AbortOnDropHandle<Ended>,
        /// The identity that it was made with ends.
        until: Option<Instant>,
    },
    Tcp(BoxIo),
}

/// Asks; cancelling it abandons the check. `link` is what is left for the next one.
pub(crate) async fn ask(probe: &HealthProbe, to: &To<'_>, link: &mut Link) -> Answer {
    // Put back only by a check that went well: half an exchange is of no use to the next.
    let held = std::mem::take(link);
    let done = match probe {
        HealthProbe::Grpc { service_name, metadata, .. } => grpc(service_name, metadata, to, held).await,
        HealthProbe::Tcp { send, receive } => tcp(send, receive, to, held).await,
    };
    match done {
        Ok(left) => {
            *link = left;
            Answer::Serving
        }
        Err(answer) => answer,
    }
}

fn failed(what: impl std::fmt::Display) -> Answer {
    Answer::Failed(what.to_string().into())
}

fn not_serving(what: impl Into<Arc<str>>) -> Answer {
    Answer::NotServing(what.into())
}

async fn grpc(
    service: &str,
    metadata: &[(HeaderName, HeaderValue)],
    to: &To<'_>,
    held: Link,
) -> Result<Link, Answer> {
    let (sender, scheme, driver, until) = match held {
        // A connection that said GOAWAY, or was lost, since: no fault of the server.
        Link::Grpc { sender, scheme, driver, until }
            if !driver.is_finished() && until.is_none_or(|until| until > Instant::now()) =>
        {
            (sender, scheme, driver, until)
        }
        _ => {
            let dialled = to.dialler.clone().dial().await.map_err(failed)?;
            let sender = dialled.line.take_sender().ok_or_else(|| failed("the connection ended"))?;
            let driver = AbortOnDropHandle::new(tokio::spawn(run(dialled.driver)));
            (sender, dialled.scheme, driver, dialled.reconnect_before)
        }
    };
    let mut sender = sender.ready().await.map_err(failed)?;
    let mut request = Request::post(uri(&scheme, to)).body(()).map_err(failed)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(http::header::TE, HeaderValue::from_static("trailers"));
    headers.insert(http::header::USER_AGENT, crate::stack::OWN_USER_AGENT);
    headers.extend(metadata.iter().cloned());
    let (response, mut body) = sender.send_request(request, false).map_err(failed)?;
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    body.send_data(frame.freeze(), true).map_err(failed)?;
    let (head, mut body) = response.await.map_err(|error| reset(&error))?.into_parts();
    if head.status != http::StatusCode::OK {
        return Err(not_serving(format!("HTTP status {}", head.status.as_u16())));
    }
    status(&head.headers)?;
    let message = read(&mut body).await?;
    let trailers = body.trailers().await.map_err(|error| reset(&error))?;
    let trailers = trailers.ok_or_else(|| failed("the answer has no grpc-status"))?;
    if !trailers.contains_key(GRPC_STATUS) {
        return Err(failed("the answer has no grpc-status"));
    }
    status(&trailers)?;
    let answer = HealthCheckResponse::decode(message).map_err(failed)?;
    match answer.status() {
        ServingStatus::Serving => Ok(Link::Grpc { sender, scheme, driver, until }),
        other => Err(not_serving(format!("it says {}", other.name(service)))),
    }
}

async fn run(driver: Driver) -> Ended {
    driver.await
}

fn uri(scheme: &Scheme, to: &To<'_>) -> Uri {
    let build = |authority: &str| {
        Uri::builder().scheme(scheme.clone()).authority(authority).path_and_query(PATH).build()
    };
    build(to.authority).or_else(|_| build(&to.address.to_string())).unwrap_or_default()
}

/// A server that refuses streams, or calms us, has been reached and may be well.
fn reset(error: &h2::Error) -> Answer {
    match error.reason() {
        Some(Reason::REFUSED_STREAM) => failed("it refused the stream"),
        _ => failed(error),
    }
}

/// An error, if headers or trailers say one.
fn status(headers: &HeaderMap) -> Result<(), Answer> {
    let Some(status) = headers.get(GRPC_STATUS) else { return Ok(()) };
    let message = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or_default();
    let code = tonic::Code::from_bytes(status.as_bytes());
    Err(match code {
        tonic::Code::Ok => return Ok(()),
        tonic::Code::Unimplemented => not_serving(
            "it has no grpc.health.v1.Health service (UNIMPLEMENTED): add one to the server, or take health_checks \
             out of the cluster",
        ),
        tonic::Code::NotFound => not_serving("its health service does not know the service (NOT_FOUND)"),
        code if message.is_empty() => not_serving(format!("{code:?}")),
        code => not_serving(format!("{code:?}: {}", message.escape_debug())),
    })
}

/// The one message of the answer.
async fn read(body: &mut RecvStream) -> Result<Bytes, Answer> {
    let mut all = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(|error| reset(&error))?;
        if all.len() + data.len() > MOST {
            return Err(failed(format!("its answer is longer than {MOST} bytes")));
        }
        all.extend_from_slice(&data);
        // A failure would show in the next frame.
        let _ = body.flow_control().release_capacity(data.len());
    }
    let mut all = all.freeze();
    // Trailers alone say what is wrong.
    if all.is_empty() {
        return Ok(all);
    }
    let whole = all.len() >= 5 && all.get_u8() == 0;
    let length = if whole { usize::try_from(all.get_u32()).unwrap_or(usize::MAX) } else { 0 };
    if !whole || length != all.len() {
        return Err(failed("its answer is not one uncompressed message"));
    }
    Ok(all)
}

async fn tcp(send: &Bytes, receive: &[Bytes], to: &To<'_>, held: Link) -> Result<Link, Answer> {
    let mut io = match held {
        Link::Tcp(io) => io,
        _ => to.dialler.clone().open().await.map_err(failed)?,
    };
    if !send.is_empty() {
        io.write_all(send).await.map_err(|error| failed(cause(&error)))?;
        io.flush().await.map_err(|error| failed(cause(&error)))?;
    }
    if receive.is_empty() {
        // That it opens is all; what was sent may be answered, and would be in the way of the next check.
        return Ok(Link::None);
    }
    let mut seen = BytesMut::new();
    while !is_there(receive, &seen) {
        if seen.len() >= MOST_RECEIVED {
            return Err(failed(format!("what was to be received is not in the first {MOST_RECEIVED} bytes")));
        }
        if io.read_buf(&mut seen).await.map_err(|error| failed(cause(&error)))? == 0 {
            return Err(failed("it closed the connection before what was to be received"));
        }
    }
    Ok(Link::Tcp(io))
}

/// Whether all of these are in `seen`, one after the other, other bytes between them or not.
fn is_there(wanted: &[Bytes], mut seen: &[u8]) -> bool {
    wanted.iter().all(|part| {
        let found = seen.windows(part.len()).position(|window| window == part);
        seen = found.and_then(|at| seen.get(at + part.len()..)).unwrap_or_default();
        found.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_in_order_only() {
        let parts =
            |parts: &[&'static str]| -> Vec<Bytes> { parts.iter().map(|part| (*part).into()).collect() };
        for (wanted, seen, there) in [
            (&["+OK"][..], "+OK\r\n", true),
            (&["+OK"], "-ERR", false),
            (&["a", "b"], "xaxbx", true),
            (&["a", "b"], "xbxax", false),
            (&["aa", "aa"], "aaa", false),
            (&[], "", true),
        ] {
            assert_eq!(is_there(&parts(wanted), seen.as_bytes()), there, "{wanted:?} {seen}");
        }
    }
}
