//! The way to an endpoint through an HTTP CONNECT proxy (gRFC A86; RFC 9110, section 9.3.6).
//!
//! Promises: the proxy is asked for the endpoint's IP address and port; it has answered 2xx before anything for the
//! endpoint is written; what follows its answer is the endpoint's and is not lost; whatever it sends, it is read up to a
//! bound. How long it may take is for the dial to say (`connect_timeout`).

use super::io::{BoxIo, cause};
use bytes::{Buf, BytesMut};
use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// Of its answers together, in bytes.
const MOST: usize = 8 << 10;
const MOST_HEADERS: usize = 64;
/// Of what it says in words, in characters.
const MOST_WORDS: usize = 100;

/// Asks the proxy at the other end of `io` for the way; the error says what it did instead.
pub(super) async fn tunnel(mut io: BoxIo, to: SocketAddr) -> Result<BoxIo, String> {
    let failed = |error| cause(&error);
    let request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n");
    io.write_all(request.as_bytes()).await.map_err(failed)?;
    io.flush().await.map_err(failed)?;
    let mut read = BytesMut::with_capacity(512);
    let mut before = 0;
    loop {
        if io.read_buf(&mut read).await.map_err(failed)? == 0 {
            return Err(match before + read.len() {
                0 => "closed the connection without an answer".to_owned(),
                _ => "closed the connection within its answer".to_owned(),
            });
        }
        while let Some(Answer { code, words, length }) = answer(&read)? {
            read.advance(length);
            before += length;
            match code {
                200..300 if read.is_empty() => return Ok(io),
                200..300 => return Ok(Box::new(Ahead { kept: read, io })),
                // There is another one to come.
                100..200 if code != 101 => {}
                _ => return Err(format!("answered {code} {words}").trim_end().to_owned()),
            }
        }
        if before + read.len() > MOST {
            return Err(format!("its answer is longer than {MOST} bytes"));
        }
    }
}

/// The head of a response.
struct Answer {
    code: u16,
    words: String,
    length: usize,
}

/// `None`: it is not all there.
fn answer(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|error| format!("its answer is not HTTP/1.1: {error}"))?;
    let httparse::Status::Complete(length) = parsed else { return Ok(None) };
    let words = response.reason.unwrap_or_default().chars().take(MOST_WORDS).collect();
    Ok(Some(Answer { code: response.code.unwrap_or_default(), words, length }))
}

/// A stream of which some was read already.
struct Ahead {
    kept: BytesMut,
    io: BoxIo,
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.kept.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let now = self.kept.len().min(buf.remaining());
        buf.put_slice(&self.kept.split_to(now));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a proxy that answers with these pieces, and hangs up or not; and what it was asked.
    async fn asked(pieces: &[&[u8]], hangs_up: bool) -> (Result<BoxIo, String>, String) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let proxy = async {
            let (mut read, mut write) = tokio::io::split(theirs);
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(read.read_u8().await.unwrap());
            }
            for piece in pieces {
                write.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            if hangs_up {
                write.shutdown().await.unwrap();
            }
            (request, read, write)
        };
        let to = SocketAddr::from(([10, 0, 0, 1], 8080));
        let (opened, (request, ..)) = tokio::join!(tunnel(Box::new(ours), to), proxy);
        (opened, String::from_utf8(request).unwrap())
    }

    async fn refused(answer: &[u8], hangs_up: bool) -> String {
        match asked(&[answer], hangs_up).await.0 {
            Ok(_) => panic!("{} is taken", answer.escape_ascii()),
            Err(reason) => reason,
        }
    }

    #[tokio::test]
    async fn it_is_asked_for_the_address_and_what_follows_its_answer_is_the_endpoints() {
        let answer = b"HTTP/1.1 200 Connection established\r\nvia: x\r\nContent-Length: 7\r\n\r\n";
        let bytes = [&answer[..], b"and the rest"].concat();
        for cut in 0..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            let (opened, request) = asked(&[head, tail], true).await;
            assert_eq!(request, "CONNECT 10.0.0.1:8080 HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n\r\n");
            let mut rest = String::new();
            opened.unwrap().read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "and the rest", "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn any_2xx_is_a_way_and_informational_answers_are_not_the_last() {
        for answer in [
            &b"HTTP/1.0 200 \r\n\r\n"[..],
            b"HTTP/1.1 204\r\n\r\n",
            b"HTTP/1.1 299 Fine\n\n",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(asked(&[answer], false).await.0.is_ok(), "{}", answer.escape_ascii());
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_proxys_words() {
        for (answer, reason) in [
            (
                "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
                "answered 407 Proxy Authentication Required",
            ),
            (
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\n",
                "answered 503 Service Unavailable",
            ),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "answered 101 Switching Protocols"),
            ("HTTP/1.1 302\r\nlocation: x\r\n\r\n", "answered 302"),
            ("HTTP/1.1 000 Nothing\r\n\r\n", "answered 0 Nothing"),
        ] {
            assert_eq!(refused(answer.as_bytes(), false).await, reason);
        }
        let long = format!("HTTP/1.1 500 {}\r\n\r\n", "x".repeat(5000));
        assert_eq!(refused(long.as_bytes(), false).await.len(), "answered 500 ".len() + MOST_WORDS);
    }

    #[tokio::test]
    async fn what_is_no_answer_is_not_waited_for_to_end() {
        for garbage in
            [&b"\x15\x03\x01\x00\x02\x02\x46"[..], b"SSH-2.0-x\r\n", b"HTTP/2.0 200\r\n\r\n", b"\0"]
        {
            let reason = refused(garbage, false).await;
            assert!(reason.starts_with("its answer is not HTTP/1.1: "), "{reason}");
        }
        let reason = refused(b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", false).await;
        assert!(reason.starts_with("its answer is not HTTP/1.1: "), "{reason}");
    }

    #[tokio::test]
    async fn an_answer_that_ends_too_soon_or_not_at_all_is_no_way() {
        let whole = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n";
        assert_eq!(refused(b"", true).await, "closed the connection without an answer");
        for cut in 1..whole.len() {
            let reason = refused(&whole[..cut], true).await;
            assert_eq!(reason, "closed the connection within its answer", "cut at {cut}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\na: ".to_vec(), vec![b'x'; MOST]].concat();
        assert_eq!(refused(&endless, false).await, "its answer is longer than 8192 bytes");
        let more = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(MOST / 25 + 1);
        assert_eq!(refused(&more, false).await, "its answer is longer than 8192 bytes");
        let many = [b"HTTP/1.1 200 OK\r\n".to_vec(), b"a: b\r\n".repeat(MOST_HEADERS + 1)].concat();
        let reason = refused(&many, false).await;
        assert!(reason.starts_with("its answer is not HTTP/1.1: "), "{reason}");
    }
}
