//! Peers that stop, hang up or talk nonsense at any byte, and answers that HTTP/2 or gRPC do not allow.
//!
//! For each: a status that names the endpoint, no panic, nothing held, no call to a neighbour harmed, no loop of
//! dials. Each peer is a cluster of its own in one mesh, so that all of them go wrong at once.

use super::{
    script::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM,
        SETTINGS, Script, Scripted, Then, WINDOW_UPDATE, answer, begin, block, frame, headers, hello,
        message, trailers,
    },
    *,
};
use futures_util::future::join_all;

/// For calls that only end by it.
const SOON: Duration = Duration::from_secs(2);

/// What must come of a call.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// This status, of which the client says where it comes from.
    Code(Code),
    /// Any failure, of which the client says where it comes from.
    Failure,
    /// What the server said, and this of its message.
    Said(Code, &'static str),
}

/// A peer and what must come of a call to it.
struct Case {
    name: String,
    script: Script,
    wanted: Wanted,
}

fn case(
    name: impl Into<String>,
    wanted: Wanted,
    answer: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
) -> Case {
    Case { name: name.into(), script: Script::answering(answer), wanted }
}

/// Calls every peer once, all at a time, and a good neighbour meanwhile.
async fn all(cases: Vec<Case>) {
    let (plane, good) = (Plane::start().await, Echo::start("good").await);
    let mut peers = Vec::new();
    let mut clusters = vec![("good", vec![good.address])];
    for case in &cases {
        let peer = Scripted::start(case.script.clone()).await;
        // A test's names live as long as it does.
        clusters.push((&*case.name.clone().leak(), vec![peer.address]));
        peers.push(peer);
    }
    let proxies: Vec<_> = peers.iter().zip(&cases).filter(|(_, case)| !case.script.way.is_empty()).collect();
    let proxies: Vec<_> = proxies.into_iter().map(|(peer, _)| peer.address).collect();
    let behind = move |address| proxies.contains(&address).then_some(address);
    plane.publish(&reviews([]).and(clusters).by_header().behind(behind));
    let mesh = plane.join();
    let channel = mesh.channel("reviews:9080").unwrap();
    assert_eq!(within(status(channel.clone(), request("good", LONG))).await.code(), Code::Ok);

    let bad = join_all(cases.iter().map(|case| status(channel.clone(), request(&case.name, SOON))));
    let neighbours = async {
        for _ in 0..100 {
            assert_eq!(status(channel.clone(), request("good", LONG)).await.code(), Code::Ok);
        }
    };
    let (statuses, ()) = within(async { tokio::join!(bad, neighbours) }).await;
    let mut wrong = Vec::new();
    for ((case, peer), status) in cases.iter().zip(&peers).zip(statuses) {
        let named = status.message().contains(&peer.address.to_string());
        let right = match case.wanted {
            Wanted::Code(Code::Ok) => status.code() == Code::Ok,
            Wanted::Code(code) => status.code() == code && named,
            Wanted::Failure => status.code() != Code::Ok && named,
            Wanted::Said(code, text) => status.code() == code && status.message().contains(text),
        };
        if !right {
            wrong.push(format!("{}: {:?} wanted of {}: {status:?}", case.name, case.wanted, peer.address));
        }
        if peer.accepted() > 5 {
            wrong.push(format!("{}: dialled {} times", case.name, peer.accepted()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    at_rest(&mesh).await;
}

/// What a proxy says before the endpoint does.
const WAY: &[u8] = b"HTTP/1.1 200 OK\r\nvia: x\r\n\r\n";

/// A valid exchange, to be ended at any of its bytes: with an endpoint, and through a proxy.
async fn at_every_byte(then: Then, wanted: impl Fn(usize, usize) -> Wanted) {
    for way in [&b""[..], WAY] {
        let whole = way.len() + hello().len() + answer(1).len();
        let cases = (0..=whole).map(|most| {
            let script = Script { way, most, then, ..Script::answering(answer) };
            Case { name: format!("byte{most}"), script, wanted: wanted(most, whole) }
        });
        all(cases.collect()).await;
    }
}

#[tokio::test]
async fn a_peer_that_stops_at_any_byte_is_given_up_at_the_deadline() {
    at_every_byte(Then::Stop, |most, whole| {
        Wanted::Code(if most == whole { Code::Ok } else { Code::DeadlineExceeded })
    })
    .await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_at_any_byte_is_unavailable() {
    at_every_byte(Then::Close, |most, whole| {
        Wanted::Code(if most == whole { Code::Ok } else { Code::Unavailable })
    })
    .await;
}

#[tokio::test]
async fn garbage_at_any_byte_is_a_failure() {
    at_every_byte(Then::Garbage, |most, whole| {
        // Behind the answer it is the next call's affair.
        if most == whole { Wanted::Code(Code::Ok) } else { Wanted::Failure }
    })
    .await;
}

#[tokio::test]
async fn an_answer_without_a_sound_status_gets_one() {
    let mut cases = vec![
        case("no-trailers", Wanted::Code(Code::Unknown), |id| [begin(id), message(END_STREAM, id)].concat()),
        case("no-status", Wanted::Code(Code::Unknown), |id| {
            [begin(id), message(0, id), trailers(id, &[("x", b"y")])].concat()
        }),
        case("only-headers", Wanted::Code(Code::Unknown), |id| {
            headers(END_STREAM, id, &[(":status", b"200"), ("content-type", b"application/grpc")])
        }),
        case("html", Wanted::Code(Code::Unknown), |id| {
            let head = headers(0, id, &[(":status", b"200"), ("content-type", b"text/html")]);
            [head, frame(DATA, END_STREAM, id, b"<html>")].concat()
        }),
        case("trailers-do-not-end", Wanted::Code(Code::Internal), |id| {
            [begin(id), message(0, id), headers(0, id, &[("grpc-status", b"0")])].concat()
        }),
        case("headers-after-trailers", Wanted::Code(Code::Ok), |id| {
            [answer(id), trailers(id, &[("grpc-status", b"13")])].concat()
        }),
        case("early-hints", Wanted::Code(Code::Ok), |id| {
            [headers(0, id, &[(":status", b"103")]), headers(0, id, &[(":status", b"100")]), answer(id)]
                .concat()
        }),
        case("only-a-hint", Wanted::Code(Code::DeadlineExceeded), |id| {
            headers(0, id, &[(":status", b"100")])
        }),
        case("details", Wanted::Said(Code::NotFound, "no such review"), |id| {
            let wrong: [(&str, &[u8]); 3] = [
                ("grpc-status", b"5"),
                ("grpc-message", b"no such review"),
                ("grpc-status-details-bin", b"!~"),
            ];
            [begin(id), trailers(id, &wrong)].concat()
        }),
    ];
    for wrong in ["", "00", "17", "99", "-1", "x", "0x0", "4294967296", "\u{80}"] {
        cases.push(case(format!("status[{wrong}]"), Wanted::Code(Code::Unknown), move |id| {
            [begin(id), message(0, id), trailers(id, &[("grpc-status", wrong.as_bytes())])].concat()
        }));
        cases.push(case(format!("only-status[{wrong}]"), Wanted::Code(Code::Unknown), move |id| {
            headers(END_STREAM, id, &[(":status", b"200"), ("grpc-status", wrong.as_bytes())])
        }));
    }
    for (message, shown) in
        [("100%", "100%"), ("%zz", "%zz"), ("a%ff%feb", "a"), ("%e2%82", ""), ("\u{ff}", "ÿ")]
    {
        cases.push(case(format!("message[{message}]"), Wanted::Said(Code::NotFound, shown), move |id| {
            let said: [(&str, &[u8]); 2] = [("grpc-status", b"5"), ("grpc-message", message.as_bytes())];
            [begin(id), trailers(id, &said)].concat()
        }));
    }
    let of_http = [
        (204, Code::Unknown),
        (301, Code::Unknown),
        (302, Code::Unknown),
        (400, Code::Internal),
        (401, Code::Unauthenticated),
        (403, Code::PermissionDenied),
        (404, Code::Unimplemented),
        (418, Code::Unknown),
        (429, Code::Unavailable),
        (500, Code::Unknown),
        (502, Code::Unavailable),
        (503, Code::Unavailable),
        (504, Code::Unavailable),
        (599, Code::Unknown),
    ];
    for (http, code) in of_http {
        for flags in [0, END_STREAM] {
            cases.push(case(format!("http{http}-{flags}"), Wanted::Code(code), move |id| {
                headers(flags, id, &[(":status", http.to_string().as_bytes())])
            }));
        }
    }
    all(cases).await;
}

/// gRPC's table of HTTP/2 error codes (PROTOCOL-HTTP2, "Errors").
#[tokio::test]
async fn every_code_of_a_reset_stream_has_its_status() {
    let mut cases = Vec::new();
    for code in (0..=13).chain([14, 0xffff_ffff]) {
        let wanted = match code {
            7 => Code::Unavailable,
            8 => Code::Cancelled,
            11 => Code::ResourceExhausted,
            12 => Code::PermissionDenied,
            13 => Code::Unknown,
            _ => Code::Internal,
        };
        let reset = move |id| frame(RST_STREAM, 0, id, &u32::to_be_bytes(code));
        cases.push(case(format!("reset{code}"), Wanted::Code(wanted), reset));
        // Behind the headers. Without an error it is the end of an answer that had no status.
        let wanted = if code == 0 { Code::Unknown } else { wanted };
        cases.push(case(format!("late-reset{code}"), Wanted::Code(wanted), move |id| {
            [begin(id), message(0, id), reset(id)].concat()
        }));
        let goaway = move |last: u32| {
            let payload = [last.to_be_bytes(), u32::to_be_bytes(code)].concat();
            frame(GOAWAY, 0, 0, &payload)
        };
        cases.push(case(format!("refused-by-goaway{code}"), Wanted::Failure, move |_| goaway(0)));
        cases.push(case(format!("served-before-goaway{code}"), Wanted::Code(Code::Ok), move |id| {
            [begin(id), goaway(id), message(0, id), trailers(id, &[("grpc-status", b"0")])].concat()
        }));
    }
    all(cases).await;
}

/// Trailers that do not fit into one frame.
fn trailers_in_two(id: u32, trailers: &[(&str, &[u8])]) -> Vec<u8> {
    let block = block(trailers);
    let (one, other) = block.split_at(block.len() / 2);
    [frame(HEADERS, END_STREAM, id, one), frame(CONTINUATION, END_HEADERS, id, other)].concat()
}

#[tokio::test]
async fn floods_are_borne_or_ended() {
    fn flood(count: usize, frame: Vec<u8>) -> impl Fn(u32) -> Vec<u8> {
        move |id| [frame.repeat(count), answer(id)].concat()
    }
    let resets: Vec<u8> = (0..10_000).flat_map(|n| frame(RST_STREAM, 0, 2 * n + 3, &[0, 0, 0, 8])).collect();
    let many = (SETTINGS, 0, 0, vec![0, 4, 0, 1, 0, 0]);
    let borne = Wanted::Code(Code::Ok);
    all(vec![
        case("ping", borne, flood(20_000, frame(PING, 0, 0, &[7; 8]))),
        case("pong", borne, flood(20_000, frame(PING, ACK, 0, &[7; 8]))),
        case("settings", borne, flood(5_000, frame(SETTINGS, 0, 0, &[]))),
        case("windows", borne, flood(5_000, frame(many.0, many.1, many.2, &many.3))),
        case("unknown-frames", borne, flood(20_000, frame(0xfe, 0, 0, &[0; 32]))),
        case("window-updates", borne, flood(5_000, frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]))),
        case("hints", borne, |id| {
            [headers(0, id, &[(":status", b"103")]).repeat(5_000), answer(id)].concat()
        }),
        // Informational responses are not held back by flow control.
        case("endless-hints", Wanted::Failure, |id| {
            [headers(0, id, &[(":status", b"103")]).repeat(30_000), answer(id)].concat()
        }),
        case("empty-data", Wanted::Failure, |id| {
            let end = trailers(id, &[("grpc-status", b"0")]);
            [begin(id), frame(DATA, 0, id, &[]).repeat(20_000), end].concat()
        }),
        case("resets-of-no-stream", Wanted::Failure, move |_| resets.clone()),
        case("continuations", Wanted::Failure, |id| {
            [frame(HEADERS, 0, id, &[]), frame(CONTINUATION, 0, id, &[]).repeat(20_000)].concat()
        }),
        case("endless-headers", Wanted::Failure, |id| {
            let more = frame(CONTINUATION, 0, id, &block(&[("x", &[b'a'; 8_000])]));
            [frame(HEADERS, 0, id, &block(&[(":status", b"200")])), more.repeat(500)].concat()
        }),
        // What is beyond the limit is not kept, be it the status.
        case("trailers-too-large", Wanted::Said(Code::NotFound, "gone"), |id| {
            let long: [(&str, &[u8]); 3] =
                [("grpc-status", b"5"), ("grpc-message", b"gone"), ("x", &[b'a'; 20_000])];
            [begin(id), trailers_in_two(id, &long)].concat()
        }),
        case("status-beyond-the-limit", Wanted::Code(Code::Unknown), |id| {
            let long: [(&str, &[u8]); 2] = [("x", &[b'a'; 20_000]), ("grpc-status", b"0")];
            [begin(id), trailers_in_two(id, &long)].concat()
        }),
        case("headers-too-large", Wanted::Failure, |id| {
            headers(0, id, &[(":status", b"200"), ("x", &[b'a'; 16_000]), ("y", b"b")])
        }),
    ])
    .await;
}

/// What a reader of short messages does not read in time is its own affair, and no other call's on that connection.
#[tokio::test]
async fn a_reader_that_is_40_000_messages_behind_harms_nobody() {
    const MESSAGES: usize = 40_000;
    let short = |id| frame(DATA, 0, id, &[0, 0, 0, 0, 5, b'h', b'e', b'l', b'l', b'o']);
    let peer = Scripted::start(Script::answering(move |id| match id {
        1 => [begin(id), short(id).repeat(MESSAGES), trailers(id, &[("grpc-status", b"0")])].concat(),
        id => answer(id),
    }))
    .await;
    let plane = Plane::start().await;
    plane.publish(&reviews([("v1", vec![peer.address])]));
    let mesh = plane.join();
    let mut channel = mesh.channel("reviews:9080").unwrap();
    let slow = within(channel.call(request("v1", LONG))).await.unwrap();
    // Its answer comes after all those messages.
    assert_eq!(within(status(channel.clone(), request("v1", LONG))).await.code(), Code::Ok);
    let read = within(slow.into_body().collect()).await.unwrap();
    assert_eq!(read.trailers().unwrap()["grpc-status"], "0");
    assert_eq!((read.to_bytes().len(), peer.accepted()), (10 * MESSAGES, 1));
    at_rest(&mesh).await;
}

#[tokio::test]
async fn frames_that_http2_does_not_allow_are_failures() {
    let wrong = Wanted::Failure;
    all(vec![
        case("data-first", wrong, |id| message(0, id)),
        case("data-on-no-stream", wrong, |_| message(0, 0)),
        case("data-on-an-idle-stream", wrong, |id| message(0, id + 2)),
        case("headers-on-no-stream", wrong, |_| begin(0)),
        case("push", wrong, |id| {
            let promise = [2u32.to_be_bytes().to_vec(), block(&[(":method", b"GET")])].concat();
            frame(PUSH_PROMISE, END_HEADERS, id, &promise)
        }),
        case("too-long", wrong, |id| frame(DATA, 0, id, &[0; 20_000])),
        case("beyond-the-window", wrong, |id| {
            [begin(id), frame(DATA, 0, id, &[0; 16_384]).repeat(400)].concat()
        }),
        case("window-of-nothing", wrong, |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
        case("window-overflow", wrong, |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        case("settings-of-five-bytes", wrong, |_| frame(SETTINGS, 0, 0, &[0; 5])),
        case("settings-on-a-stream", wrong, |id| frame(SETTINGS, 0, id, &[])),
        case("window-too-large", wrong, |_| frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        case("frames-too-large", wrong, |_| frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])),
        case("ping-of-seven-bytes", wrong, |_| frame(PING, 0, 0, &[0; 7])),
        case("reset-of-three-bytes", wrong, |id| frame(RST_STREAM, 0, id, &[0; 3])),
        case("goaway-of-four-bytes", wrong, |_| frame(GOAWAY, 0, 0, &[0; 4])),
        case("continuation-of-nothing", wrong, |id| frame(CONTINUATION, END_HEADERS, id, &[])),
        case("padding-beyond-the-frame", wrong, |id| [begin(id), frame(DATA, 8, id, &[9, 0])].concat()),
        case("no-hpack", wrong, |id| frame(HEADERS, END_HEADERS, id, &[0xff; 9])),
        case("no-http-status", wrong, |id| headers(0, id, &[("x", b"y")])),
        case("bad-http-status", wrong, |id| headers(0, id, &[(":status", b"abc")])),
        case("uppercase", wrong, |id| headers(0, id, &[(":status", b"200"), ("X-Y", b"z")])),
        case("connection", wrong, |id| headers(0, id, &[(":status", b"200"), ("connection", b"close")])),
        case("request-headers", wrong, |id| headers(0, id, &[(":status", b"200"), (":path", b"/")])),
        case("late-pseudo-header", wrong, |id| headers(0, id, &[("x", b"y"), (":status", b"200")])),
        case("control-characters", wrong, |id| headers(0, id, &[(":status", b"200"), ("x", b"a\r\nb: c")])),
        case("content-length", wrong, |id| {
            let head = headers(0, id, &[(":status", b"200"), ("content-length", b"4")]);
            [head, message(END_STREAM, id)].concat()
        }),
    ])
    .await;
}
