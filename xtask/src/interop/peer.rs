//! The programs of `tests/peers`, running.

use super::{
    Lab, Outcome, ports,
    process::{PATIENCE, Process},
    tally::Tally,
};
use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

/// A change of the configuration must have reached every peer by then.
const CHANGE: Duration = Duration::from_secs(15);
/// Calls between two looks at whether it has.
const BATCH: u32 = 20;

/// Whose implementation of gRPC a client is.
#[derive(Clone, Copy)]
pub(super) enum Grpc {
    /// Python on gRPC's C-core.
    Core,
    /// Node on grpc-js.
    Js,
    /// Our own `mesh-client`.
    Mesh,
}

impl Grpc {
    /// As a name for processes and workloads.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Core => "c-core",
            Self::Js => "grpc-js",
            Self::Mesh => "mesh-client",
        }
    }
}

/// Where a client calls, and with which credentials.
pub(super) enum Target<'a> {
    /// `xds:///…` in plaintext.
    Xds(&'a str),
    /// `xds:///…`, encrypted when the control plane says so.
    XdsCredentials(&'a str),
    /// A port of 127.0.0.1 in plaintext, for this authority.
    Port(u16, &'a str),
}

/// A client that calls when it is told to.
pub(super) struct Client(Process);

impl Client {
    pub(super) fn start(
        lab: &Lab,
        name: &str,
        grpc: Grpc,
        target: &Target<'_>,
        bootstrap: Option<&Path>,
    ) -> Outcome<Self> {
        let mut command = match grpc {
            Grpc::Core => lab.peers.python("client.py"),
            Grpc::Js => lab.peers.node_client(),
            Grpc::Mesh => Command::new(&lab.binaries.mesh_peer),
        };
        match (grpc, target) {
            // Ours encrypts whenever the control plane says so.
            (Grpc::Mesh, Target::Xds(host) | Target::XdsCredentials(host)) => {
                command.arg("call").arg(format!("xds:///{host}"))
            }
            (_, Target::Xds(host)) => command.arg(format!("xds:///{host}")),
            (_, Target::XdsCredentials(host)) => command.arg(format!("xds:///{host}")).arg("--mtls"),
            (Grpc::Mesh, Target::Port(..)) => return Err("mesh-client calls targets of the mesh".into()),
            (_, Target::Port(port, authority)) => {
                command.arg(format!("127.0.0.1:{port}")).arg("--authority").arg(authority)
            }
        };
        if let Some(bootstrap) = bootstrap {
            command.env("GRPC_XDS_BOOTSTRAP", bootstrap);
        }
        let mut process = Process::start(name, &mut command, &lab.logs)?;
        process.line("ready")?;
        Ok(Self(process))
    }

    /// One of ours that also serves its status, on this port.
    pub(super) fn observed(lab: &Lab, host: &str, bootstrap: &Path, status: u16) -> Outcome<Self> {
        let mut command = Command::new(&lab.binaries.mesh_peer);
        command.arg("call").arg(format!("xds:///{host}")).arg(format!("127.0.0.1:{status}"));
        command.env("GRPC_XDS_BOOTSTRAP", bootstrap);
        let mut process = Process::start(Grpc::Mesh.name(), &mut command, &lab.logs)?;
        process.line("ready")?;
        Ok(Self(process))
    }

    /// Calls so often, with headers `name=value`.
    pub(super) fn call(&mut self, count: u32, headers: &[&str]) -> Outcome<Tally> {
        let headers: String = headers.iter().map(|header| format!(" {header}")).collect();
        self.0.tell(&format!("call {count}{headers}"))?;
        let line = self.0.line("{")?;
        Ok(serde_json::from_str(&format!("{{{line}"))?)
    }

    /// Calls on until a batch is as wanted. Everything that was seen, the last batch included.
    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Tally) -> bool) -> Outcome<Tally> {
        let until = Instant::now() + CHANGE;
        let mut seen = Tally::default();
        loop {
            let batch = self.call(BATCH, &[])?;
            seen += batch.clone();
            if wanted(&batch) {
                return Ok(seen);
            }
            if Instant::now() > until {
                return Err(format!("expected {what} within {CHANGE:?}, got {batch}").into());
            }
        }
    }
}

/// A server of `reviews` on gRPC's C-core.
pub(super) struct Server {
    _process: Process,
    pub(super) port: u16,
}

impl Server {
    /// One that knows no mesh.
    pub(super) fn plain(lab: &Lab, instance: &str) -> Outcome<Self> {
        let port = ports::free()?;
        Self::start(lab, instance, port, |command| command.arg("--plain"))
    }

    /// One that fails every call.
    pub(super) fn failing(lab: &Lab, instance: &str) -> Outcome<Self> {
        let port = ports::free()?;
        Self::start(lab, instance, port, |command| command.args(["--plain", "--failing"]))
    }

    /// One that the control plane configures.
    pub(super) fn xds(lab: &Lab, instance: &str, port: u16, bootstrap: &Path) -> Outcome<Self> {
        Self::start(lab, instance, port, |command| command.env("GRPC_XDS_BOOTSTRAP", bootstrap))
    }

    fn start(
        lab: &Lab,
        instance: &str,
        port: u16,
        configure: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Outcome<Self> {
        let mut command = lab.peers.python("server.py");
        configure(command.arg(port.to_string()).arg("--instance").arg(instance));
        let mut process = Process::start(instance, &mut command, &lab.logs)?;
        process.line("ready")?;
        Ok(Self { _process: process, port })
    }
}

/// A server of `reviews` on `mesh-client`, which registers itself.
pub(super) struct MeshServer {
    process: Process,
    pub(super) port: u16,
}

impl MeshServer {
    pub(super) fn start(lab: &Lab, instance: &str, bootstrap: &Path) -> Outcome<Self> {
        let port = ports::free()?;
        let mut command = Command::new(&lab.binaries.mesh_peer);
        command.arg("serve").arg(format!("127.0.0.1:{port}")).arg(instance);
        command.env("GRPC_XDS_BOOTSTRAP", bootstrap);
        let mut process = Process::start(instance, &mut command, &lab.logs)?;
        process.line("ready")?;
        Ok(Self { process, port })
    }

    /// Has it leave: it takes no new calls and ends when it has none.
    pub(super) fn drain(&mut self) -> Outcome {
        self.process.tell("drain")
    }
}

/// The variant of ADS that an Envoy is to use.
#[derive(Clone, Copy)]
pub(super) enum Ads {
    StateOfTheWorld,
    Delta,
}

/// An Envoy that proxies for the mesh's hosts on a port of its own.
pub(super) struct Envoy {
    _process: Process,
    pub(super) proxy_port: u16,
}

impl Envoy {
    /// Starts one with a static bootstrap: everything but the control plane's address comes over ADS.
    pub(super) fn start(
        lab: &Lab,
        ads: Ads,
        dir: &Path,
        control_plane: u16,
        certificate: &Path,
    ) -> Outcome<Self> {
        let (proxy_port, admin_port) = (ports::free()?, ports::free()?);
        let address =
            |port: u16| serde_json::json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        let api_type = match ads {
            Ads::StateOfTheWorld => "GRPC",
            Ads::Delta => "DELTA_GRPC",
        };
        let ads = serde_json::json!({"ads": {}, "resource_api_version": "V3"});
        let http = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
        let bootstrap = serde_json::json!({
            "node": {
                "id": "sidecar~127.0.0.1~envoy.default~default.svc.cluster.local",
                "cluster": "envoy.default",
                "metadata": {
                    "NAMESPACE": "default",
                    "HTTP_PROXY_PORT": proxy_port.to_string(),
                    "TLS_CLIENT_CERT_CHAIN": certificate.join("cert-chain.pem"),
                    "TLS_CLIENT_KEY": certificate.join("key.pem"),
                    "TLS_CLIENT_ROOT_CERT": certificate.join("root-cert.pem"),
                },
            },
            "admin": {"address": address(admin_port)},
            "dynamic_resources": {
                "ads_config": {
                    "api_type": api_type,
                    "transport_api_version": "V3",
                    "grpc_services": [{"envoy_grpc": {"cluster_name": "mesh-server"}}],
                },
                "cds_config": ads,
                "lds_config": ads,
            },
            "static_resources": {"clusters": [{
                "name": "mesh-server",
                "type": "STATIC",
                "typed_extension_protocol_options": {http: {
                    "@type": format!("type.googleapis.com/{http}"),
                    "explicit_http_config": {"http2_protocol_options": {}},
                }},
                "load_assignment": {
                    "cluster_name": "mesh-server",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(control_plane)}}]}],
                },
            }]},
        });
        let path = dir.join("envoy.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&bootstrap)?)?;
        let mut command = lab.peers.envoy();
        command.arg("-c").arg(path).args(["--use-dynamic-base-id", "--concurrency", "1"]);
        let process = Process::start("envoy", &mut command, &lab.logs)?;
        // It says nothing on its standard output; the port is there when the listener is.
        let until = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(("127.0.0.1", proxy_port)).is_err() {
            if Instant::now() > until {
                return Err("Envoy got no listener; see its log".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { _process: process, proxy_port })
    }
}
