//! An Envoy in front of a server: it reads the PROXY protocol, and is an HTTP CONNECT proxy.

use super::{
    Lab, Outcome, ports,
    process::{PATIENCE, Process},
};
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Its ports all lead to one server.
pub(super) struct Front {
    process: Process,
    /// For connections that begin with the PROXY protocol, version 1 alone.
    pub(super) v1: u16,
    /// The same, version 2 alone.
    pub(super) v2: u16,
    /// For HTTP CONNECT, whatever address it asks for.
    pub(super) connect: u16,
}

impl Front {
    pub(super) fn start(lab: &Lab, dir: &Path, server: u16) -> Outcome<Self> {
        let [v1, v2, connect, admin] = [ports::free()?, ports::free()?, ports::free()?, ports::free()?];
        let bootstrap = json!({
            "admin": {"address": address(admin)},
            "static_resources": {
                "listeners": [
                    announced("v1", v1, "V2"),
                    announced("v2", v2, "V1"),
                    listener("connect", connect, &connect_proxy()),
                ],
                "clusters": [{
                    "name": "server",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "server",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(server)}}]}],
                    },
                }],
            },
        });
        let path = dir.join("front.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&bootstrap)?)?;
        let mut command = lab.peers.envoy();
        command.arg("-c").arg(path).args(["--use-dynamic-base-id", "--concurrency", "1"]);
        // Its access log is read while it runs.
        command.args(["--file-flush-interval-msec", "50"]);
        let process = Process::start("front", &mut command, &lab.logs)?;
        let until = Instant::now() + PATIENCE;
        while [v1, v2, connect].iter().any(|port| TcpStream::connect(("127.0.0.1", *port)).is_err()) {
            if Instant::now() > until {
                return Err("the Envoy in front listens nowhere; see its log".into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { process, v1, v2, connect })
    }

    /// Waits for the next connection with a header of this version: the header's source must be the true one.
    pub(super) fn told_the_truth(&mut self, version: &str) -> Outcome {
        let line = self.process.line(&format!("{version} "))?;
        let told: Vec<SocketAddr> = line.split(' ').filter_map(|address| address.parse().ok()).collect();
        match told[..] {
            [told, seen] if told == seen => Ok(()),
            _ => Err(format!("expected the same address twice, as told and as seen, got {line:?}").into()),
        }
    }
}

fn url(message: &str) -> String {
    format!("type.googleapis.com/envoy.{message}")
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

fn listener(name: &str, port: u16, filter: &Value) -> Value {
    json!({
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "only", "typed_config": filter}]}],
    })
}

/// Reads the header, and writes a line with it: `v1 <source as told> <source as seen>`.
fn announced(name: &str, port: u16, disallowed: &str) -> Value {
    let format = format!("{name} %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS%\n");
    let mut listener = listener(
        name,
        port,
        &json!({
            "@type": url("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
            "stat_prefix": name,
            "cluster": "server",
            "access_log_options": {"flush_access_log_on_connected": true},
            "access_log": [{
                "name": "stdout",
                "typed_config": {
                    "@type": url("extensions.access_loggers.stream.v3.StdoutAccessLog"),
                    "log_format": {"text_format_source": {"inline_string": format}},
                },
            }],
        }),
    );
    listener["listener_filters"] = json!([{
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {
            "@type": url("extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"),
            "disallowed_versions": [disallowed],
        },
    }]);
    listener
}

fn connect_proxy() -> Value {
    json!({
        "@type": url("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "connect",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": url("extensions.filters.http.router.v3.Router")},
        }],
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{
                "match": {"connect_matcher": {}},
                "route": {
                    "cluster": "server",
                    "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
                },
            }],
        }]},
    })
}
