//! What Istio's kinds do not say, from our ADS server by hand-made resources: aggregate clusters, ring hash and the
//! statistics of outlier detection, as other implementations of gRPC and ours follow them.

use crate::interop::{
    Lab, Outcome,
    peer::{Client, Grpc, Server, Target},
    ports,
    process::Process,
    report::Report,
};
use serde_json::json;
use std::{collections::BTreeSet, path::PathBuf, process::Command};

const CALLS: u32 = 100;
const HOST: &str = "reviews:9080";

pub(super) fn core(lab: &Lab, report: &mut Report) -> Outcome {
    followed(lab, report, Grpc::Core)
}

pub(super) fn js(lab: &Lab, report: &mut Report) -> Outcome {
    followed(lab, report, Grpc::Js)
}

pub(super) fn ours(lab: &Lab, report: &mut Report) -> Outcome {
    followed(lab, report, Grpc::Mesh)
}

fn followed(lab: &Lab, report: &mut Report, grpc: Grpc) -> Outcome {
    let mut control = Control::start(lab)?;
    let bootstrap = control.bootstrap()?;
    let [a, b, c] = [Server::plain(lab, "a")?, Server::plain(lab, "b")?, Server::plain(lab, "c")?];
    let failing = Server::failing(lab, "failing")?;

    // An aggregate: the first of its clusters that can be reached.
    control.serve(&format!("aggregate {} {}", a.port, b.port))?;
    let mut client = Client::start(lab, grpc.name(), grpc, &Target::Xds(HOST), Some(&bootstrap))?;
    client.until("an answer", |batch| batch.is_from(&["a"]))?;
    report.check("aggregate: the first cluster alone", client.call(CALLS, &[])?.exactly(&["a"]));
    drop(a);
    client.until("the second cluster", |batch| batch.is_from(&["b"]))?;
    report.check("aggregate: the second while the first is away", client.call(CALLS, &[])?.exactly(&["b"]));

    // A ring: a key has one endpoint, and keys are spread.
    // A client of its own: C-core aborts when an aggregate becomes a cluster with endpoints.
    drop(client);
    control.serve(&format!("ring-hash {} {}", b.port, c.port))?;
    let mut client = Client::start(lab, grpc.name(), grpc, &Target::Xds(HOST), Some(&bootstrap))?;
    client.until("the ring", |batch| batch.is_from(&["b", "c"]))?;
    hashed(&mut client, ["b", "c"], report)?;

    // Statistics: an endpoint that fails more than its share is left alone.
    drop(client);
    control.serve(&format!("outliers {} {}", b.port, failing.port))?;
    let mut client = Client::start(lab, grpc.name(), grpc, &Target::Xds(HOST), Some(&bootstrap))?;
    let tally = client.until("failures seen", |batch| !batch.is_from(&["b", "c"]))?;
    report.check("outlier detection: it did call the failing one", failed(&tally));
    client.until("the failing endpoint ejected", |batch| batch.is_from(&["b"]))?;
    report.check(
        "outlier detection: the failing endpoint is ejected",
        client.call(CALLS, &[])?.exactly(&["b"]),
    );
    report.check("nothing rejected", control.accepted());
    Ok(())
}

/// Each value of the header `x-key` has one of the instances, and each instance some of the values.
pub(super) fn hashed(client: &mut Client, instances: [&str; 2], report: &mut Report) -> Outcome {
    let mut homes = BTreeSet::new();
    let mut faithful = Ok(());
    for key in 0..24 {
        let tally = client.call(CALLS / 10, &[&format!("x-key=key-{key}")])?;
        match instances.into_iter().find(|instance| tally.is_from(&[*instance])) {
            Some(home) => drop(homes.insert(home)),
            None => faithful = Err(format!("expected one home of key-{key}, got {tally}").into()),
        }
    }
    report.check("ring hash: each key has one home", faithful);
    let spread = if homes.len() == 2 { Ok(()) } else { Err(format!("got only {homes:?}").into()) };
    report.check("ring hash: keys are spread", spread);
    Ok(())
}

fn failed(tally: &crate::interop::tally::Tally) -> Outcome {
    match tally.complete() {
        Ok(()) => Err(format!("expected failures, got {tally}").into()),
        Err(_) => Ok(()),
    }
}

/// `mesh-peer control`, running.
struct Control {
    process: Process,
    dir: tempfile::TempDir,
    port: u16,
    revision: String,
}

impl Control {
    fn start(lab: &Lab) -> Outcome<Self> {
        let port = ports::free()?;
        let mut command = Command::new(&lab.binaries.mesh_peer);
        command.arg("control").arg(format!("127.0.0.1:{port}"));
        let mut process = Process::start("control", &mut command, &lab.logs)?;
        process.line("ready")?;
        Ok(Self { process, dir: tempfile::tempdir()?, port, revision: String::new() })
    }

    fn serve(&mut self, order: &str) -> Outcome {
        self.process.tell(order)?;
        self.revision = self.process.line("serving ")?;
        Ok(())
    }

    /// The last revision was acknowledged, which a rejection would have prevented.
    fn accepted(&mut self) -> Outcome {
        self.process.line(&format!("acknowledged peer {}", self.revision)).map(drop)
    }

    fn bootstrap(&self) -> Outcome<PathBuf> {
        let file = self.dir.path().join("bootstrap.json");
        let bootstrap = json!({
            "xds_servers": [{
                "server_uri": format!("127.0.0.1:{}", self.port),
                "channel_creds": [{"type": "insecure"}],
                "server_features": ["xds_v3"],
            }],
            // grpc-js insists on a locality.
            "node": {"id": "peer", "locality": {"region": "here"}},
        });
        std::fs::write(&file, serde_json::to_vec(&bootstrap)?)?;
        Ok(file)
    }
}
