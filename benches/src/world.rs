//! The mesh that the arms belong to: a real control plane on its own thread, its configuration in a temporary
//! directory. It is silent while something is measured.

use crate::{Outcome, server::Addresses};
use mesh_ca::{channel::Target, source::ca::CaSource, spiffe_id::TrustDomain, workload::WorkloadIdentity};
use mesh_client::{Mesh, MeshBuilder};
use mesh_server::{
    App, Running, Settings,
    join::{Join, Security},
};
use std::{fs, net::SocketAddr};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// Label and service account of the server.
pub const SERVER: &str = "server";
/// Service account of the client.
pub const CLIENT: &str = "client";

const CONFIG: &str = include_str!("world.yaml");

/// The control plane. It ends with this value.
pub struct World {
    dir: TempDir,
    running: Option<Running>,
    runtime: Runtime,
    address: SocketAddr,
}

impl World {
    /// Starts it. Not to be called inside a runtime.
    pub fn start() -> Outcome<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("mesh.yaml"), CONFIG.to_owned() + &routed())?;
        let mut settings = Settings::dev(dir.path(), trust_domain()?);
        settings.xds_plaintext = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        settings.http = None;
        let running = runtime.block_on(App::start(settings))?;
        let address = running.addresses().xds_plaintext.ok_or("the control plane does not listen")?;
        Ok(Self { dir, running: Some(running), runtime, address })
    }

    /// Where the control plane listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the plain server the endpoint of every service without TLS. The other registers itself.
    pub fn list(&self, servers: Addresses) -> Outcome {
        let port = servers.plain.port();
        let slice = |service: &str, endpoints: u16| {
            let address = |index: u16| format!("\"127.0.{}.{}\"", index / 250, index % 250 + 1);
            let endpoints: Vec<_> =
                (0..endpoints).map(|index| format!("{{addresses: [{}]}}", address(index))).collect();
            format!(
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: {service}, labels: {{kubernetes.io/service-name: {service}}}}}\n\
                 addressType: IPv4\nports: [{{name: grpc, port: {port}}}]\n\
                 endpoints: [{}]\n",
                endpoints.join(", ")
            )
        };
        let one = ["once", "timed", "retried", "faulty", "routed"].map(|service| slice(service, 1));
        let slices = one.concat() + &slice("ten", 10) + &slice("thousand", 1000);
        // Through a rename, so that it is never read half-written.
        let staged = self.dir.path().join(".endpoints");
        fs::write(&staged, slices)?;
        Ok(fs::rename(staged, self.dir.path().join("endpoints.yaml"))?)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.shutdown());
        }
    }
}

/// A VirtualService with a thousand routes, of which the calls of a bench match the last.
fn routed() -> String {
    let to = "route: [{destination: {host: routed}}], retries: {attempts: 0}";
    let others: String = (0..1000)
        .map(|i| format!("  - {{match: [{{uri: {{exact: /x.S{}/M{i}}}}}], {to}}}\n", i % 50))
        .collect();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: routed}}\n\
         spec:\n  hosts: [routed]\n  http:\n{others}  - {{{to}}}\n"
    )
}

/// The trust domain of the mesh.
pub fn trust_domain() -> Outcome<TrustDomain> {
    Ok(TrustDomain::parse("cluster.local")?)
}

/// Joins the mesh as `account`. Needs a runtime.
pub fn member(control_plane: SocketAddr, account: &str) -> Outcome<Mesh> {
    Ok(builder(control_plane, account)?.build()?)
}

/// Joins the mesh as the client, with an identity that others may use as well. Needs a runtime.
pub fn client(control_plane: SocketAddr) -> Outcome<(Mesh, WorkloadIdentity)> {
    let source = CaSource::new(Target::plaintext(&control_plane.to_string())?);
    let identity = WorkloadIdentity::start(source.claim(&trust_domain()?, "default", CLIENT)?);
    let mesh = builder(control_plane, CLIENT)?.identity("default", identity.clone()).build()?;
    Ok((mesh, identity))
}

fn builder(control_plane: SocketAddr, account: &str) -> Outcome<MeshBuilder> {
    let mut join = Join::new(control_plane.to_string(), account, Security::Development);
    join.service_account = account.into();
    join.labels.insert("app".into(), account.into());
    // Said, because a registration without TLS proves no identity from which the control plane could tell.
    join.labels.insert("security.istio.io/tlsMode".into(), "istio".into());
    Ok(Mesh::builder().bootstrap(join.bootstrap()?))
}
