//! The two binaries as processes: what they print, and with what they exit.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use mesh_server::proto::explain::{ExplainRequest, ExplainResponse};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, ErrorKind},
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec:\n  selector: {app: reviews}\n  \
                       ports: [{name: grpc, port: 9080}]\n";

fn meshctl(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl")).args(args).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A server that says `ready`; ended when dropped.
struct Server {
    child: Child,
    http: String,
}

impl Server {
    fn start(dir: &Path) -> Self {
        let path = |name: &str| dir.join(name).display().to_string();
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh-server"))
            .args(["run", "--config", &path("config"), "--data", &path("data")])
            .args(["--xds=127.0.0.1:0", "--xds-plaintext=none", "--http=127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut http = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if let Some(address) = line.strip_prefix("listening http ") {
                address.clone_into(&mut http);
            }
            if line == "ready" {
                return Self { child, http };
            }
        }
        panic!("never ready: {:?}", child.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn world() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config")).unwrap();
    std::fs::write(dir.path().join("config/mesh.yaml"), SERVICE).unwrap();
    dir
}

#[test]
fn tokens_and_certificates_are_made_beside_a_running_server_and_nobody_else_can_read_the_key() {
    let dir = world();
    let data = dir.path().join("data").display().to_string();
    let who = ["--data", &data, "--namespace", "default", "--service-account", "reviews"];
    let early = meshctl(&[&["token", "create"], &who[..]].concat());
    assert!(!early.status.success() && err(&early).contains("mesh-server that has run"), "{}", err(&early));

    let server = Server::start(dir.path());
    let token = meshctl(&[&["token", "create"], &who[..]].concat());
    assert!(out(&token).starts_with("mesh-join-"), "{}", err(&token));
    let files = dir.path().join("files");
    let issued = meshctl(&[&["cert", "issue", "--out", files.to_str().unwrap()], &who[..]].concat());
    assert!(issued.status.success() && err(&issued).contains("ns/default/sa/reviews"), "{}", err(&issued));
    for name in ["key.pem", "cert-chain.pem", "root-cert.pem"] {
        let mode = std::fs::metadata(files.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let status = meshctl(&["proxy-status", "--http", &server.http]);
    assert!(status.status.success() && out(&status).contains("0 clients"), "{}", err(&status));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let status = meshctl(&["proxy-status", "--http", "127.0.0.1:1"]);
    assert_eq!(status.status.code(), Some(2));
    assert!(err(&status).contains("127.0.0.1:1") && err(&status).contains("--http"), "{}", err(&status));
}

#[test]
fn analysis_exits_by_what_it_finds() {
    let dir = world();
    let config = dir.path().join("config").display().to_string();
    assert_eq!(meshctl(&["analyze", &config]).status.code(), Some(0));
    let bad = SERVICE.replace("selector", "selektor").replace("reviews", "ratings");
    std::fs::write(dir.path().join("config/bad.yaml"), bad).unwrap();
    let found = meshctl(&["analyze", &config]);
    assert_eq!(found.status.code(), Some(1));
    assert!(out(&found).contains("bad.yaml:5") && out(&found).contains("selector"), "{}", out(&found));
    let json: Value = serde_json::from_slice(&meshctl(&["analyze", &config, "--json"]).stdout).unwrap();
    assert_eq!(json["findings"][0]["place"]["line"], 5);
    assert_eq!(meshctl(&["analyze", "/nowhere"]).status.code(), Some(2));
}

#[test]
fn a_bootstrap_says_who_and_how() {
    let args =
        ["bootstrap", "--workload", "w", "--label", "app=reviews", "--ca-file", "/r", "--token-file", "/t"];
    let json: Value = serde_json::from_slice(&meshctl(&args).stdout).unwrap();
    assert_eq!(json["node"]["metadata"]["LABELS"]["app"], "reviews");
    assert_eq!(json["certificate_providers"]["default"]["plugin_name"], "mesh_ca");
    let args = ["bootstrap", "--workload", "w", "--ca-file", "/r", "--cert-file", "/c", "--key-file", "/k"];
    let json: Value = serde_json::from_slice(&meshctl(&args).stdout).unwrap();
    assert_eq!(json["certificate_providers"]["default"]["plugin_name"], "file_watcher");
    assert_eq!(json["xds_servers"][0]["channel_creds"][0]["type"], "tls");
    for bad in [&["bootstrap", "--workload", "w"][..], &["bootstrap", "--workload", "a b", "--plaintext"]] {
        assert!(!meshctl(bad).status.success(), "{bad:?}");
    }
}

/// An istio-agent passes on one stream, the workload's own.
#[test]
fn a_socket_is_asked_when_its_stream_may_be_taken_over_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("XDS"), dir.path().join("grpc-bootstrap.json"));
    let agent = UnixListener::bind(&socket).unwrap();
    agent.set_nonblocking(true).unwrap();
    let uri = format!("unix://{}", socket.display());
    let bootstrap = serde_json::json!({
        "xds_servers": [{"server_uri": uri, "channel_creds": [{"type": "insecure"}]}],
        "node": {"id": "sidecar~10.0.0.1~reviews.default~default.svc.cluster.local"},
    });
    std::fs::write(&file, bootstrap.to_string()).unwrap();
    let file = file.display().to_string();
    let from_file = ["resources", "--bootstrap", &file];
    let by_name = ["resources", "--server", &uri, "--plaintext"];
    for (args, of) in [(&from_file[..], &*file), (&by_name, "--server")] {
        let refused = meshctl(args);
        let why = err(&refused);
        assert_eq!(refused.status.code(), Some(2), "{why}");
        for part in [&format!("meshctl: {of}: "), "unix:/", "/XDS", "istio-agent", "--take-over-stream"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }
    assert_eq!(agent.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "nobody came");

    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    let mut child = command.args(from_file).arg("--take-over-stream").stderr(Stdio::null()).spawn().unwrap();
    while agent.accept().is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ends, and asked nobody");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = world();
    let config = dir.path().join("config");
    // More than any pipe holds, so that somebody writes when nobody reads.
    for index in 0..200 {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r{index}}}\n\
             spec: {{host: nobody-{index}, trafficPolicy: {{loadBalancer: {{simple: NOBODY}}}}}}\n"
        );
        std::fs::write(config.join(format!("rule-{index}.yaml")), rule).unwrap();
    }
    let config = config.display().to_string();
    for (args, code) in [
        (&["analyze", &config][..], 1),
        (&["analyze", "--json", &config], 1),
        (&["explain", "--config", &config, "--to", "reviews:9080"], 0),
        (&["bootstrap", "--workload", "a", "--dev"], 0),
        (&["explain", "--to", "reviews:9080"], 2),
    ] {
        // As in `2>&1 | head -1`: both end in a pipe that nobody reads.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command.args(args).stdout(writer.try_clone().unwrap()).stderr(writer);
        drop(reader);
        let status = command.status().unwrap();
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
    // And one that reads a line: the rest is not said to anybody, nor is a panic.
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["analyze", &config])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(1), ""));
}

/// Drives a terminal, and begins a line.
const HOSTILE: &str = "x\u{1b}[2J\r\u{7f}\u{9b}2J\u{202e}\nmeshctl: all is well";

/// A process that answers `mesh.v1.Explain`; the target decides what.
#[derive(Clone)]
struct Explaining;

impl tonic::server::NamedService for Explaining {
    const NAME: &'static str = "mesh.v1.Explain";
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Explaining {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<ExplainResponse, ExplainRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Explaining, request).await)
        })
    }
}

impl tonic::server::UnaryService<ExplainRequest> for Explaining {
    type Response = ExplainResponse;
    type Future = std::future::Ready<Result<tonic::Response<ExplainResponse>, tonic::Status>>;

    fn call(&mut self, request: tonic::Request<ExplainRequest>) -> Self::Future {
        let ExplainRequest { target, path, headers } = request.into_inner();
        if target == "nobody:1" {
            return std::future::ready(Err(tonic::Status::not_found("this process has no channel for it")));
        }
        if target == "hostile:1" {
            return std::future::ready(Err(tonic::Status::not_found(HOSTILE)));
        }
        let headers =
            headers.iter().map(|one| format!("{}={}", one.name, String::from_utf8_lossy(&one.value)));
        let mut text = format!("{target} {path} {}\n", headers.collect::<Vec<_>>().join(" "));
        let mut json = serde_json::json!({ "target": target }).to_string();
        if target == "rude:1" {
            text.push_str(HOSTILE);
            json = serde_json::json!({ "target": HOSTILE }).to_string();
        }
        let routed = target == "reviews:9080";
        std::future::ready(Ok(tonic::Response::new(ExplainResponse { text, json, routed })))
    }
}

#[test]
fn a_process_that_runs_is_asked_over_the_network() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let serve = |explains: bool| {
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut routes = tonic::service::Routes::default();
        if explains {
            routes = routes.add_service(Explaining);
        }
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(tonic::transport::Server::builder().add_routes(routes).serve_with_incoming(incoming));
        address
    };
    let (at, bare) = (serve(true), serve(false));
    let args = ["explain", "--at", &at, "--path", "/a.B/C", "-H", "end-user=jason", "--to"];
    let asked = |target: &str, more: &[&str]| meshctl(&[&args[..], &[target], more].concat());
    let answer = asked("xds:///reviews:9080", &[]);
    assert_eq!(
        (answer.status.code(), out(&answer).as_str()),
        (Some(0), "reviews:9080 /a.B/C end-user=jason\n")
    );
    let answer = asked("reviews:9080", &["--json"]);
    assert_eq!(serde_json::from_str::<Value>(&out(&answer)).unwrap()["target"], "reviews:9080");
    assert_eq!(asked("other:1", &[]).status.code(), Some(1), "it would not get anywhere");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for (at, to, why) in [
        (&at, "nobody:1", "this process has no channel for it"),
        (&bare, "reviews:9080", "it does not serve `mesh.explain_service()`"),
        (&nobody, "reviews:9080", "does the program serve `mesh.explain_service()` there?"),
    ] {
        let failed = meshctl(&["explain", "--at", at, "--to", to]);
        assert_eq!(failed.status.code(), Some(2), "{to}");
        assert!(err(&failed).contains(why) && err(&failed).contains(at.as_str()), "{}", err(&failed));
    }
    // What it says drives nobody's terminal, and no line of it looks like one of meshctl.
    let escaped = r"x\u{1b}[2J\r\u{7f}\u{9b}2J\u{202e}";
    let told = out(&asked("rude:1", &[]));
    assert_eq!(told, format!("rude:1 /a.B/C end-user=jason\n{escaped}\nmeshctl: all is well"));
    let told = out(&asked("rude:1", &["--json"]));
    assert!(
        !told.contains(|char: char| char != '\n' && (char.is_control() || char == '\u{202e}')),
        "{told:?}"
    );
    assert_eq!(serde_json::from_str::<Value>(&told).unwrap()["target"], HOSTILE);
    let told = err(&asked("hostile:1", &[]));
    assert_eq!(told, format!("meshctl: --at: {at}: {escaped}\n  meshctl: all is well\n"));
}
