//! Our own servers, which register themselves, called by foreign clients: as they come and go, in plaintext,
//! with mTLS, and let in or not.

use crate::interop::{
    Lab, Outcome,
    control_plane::{ControlPlane, Member, Security},
    peer::{Client, Grpc, MeshServer, Target},
    report::Report,
    yaml,
};

const CALLS: u32 = 400;
const APP: &str = "reviews";

pub(super) fn servers(lab: &Lab, report: &mut Report) -> Outcome {
    let services = yaml::service(APP) + yaml::SUBSETS;
    let files = [
        ("services.yaml", services),
        ("routes.yaml", yaml::weights(80, 20)),
        ("security.yaml", yaml::mtls(APP, "PERMISSIVE")),
    ];
    let control_plane = ControlPlane::start(lab, &files)?;
    let server = |name: &str, version: &str| {
        let labels = [("app", APP), ("version", version)];
        let bootstrap = control_plane.bootstrap(&Member { name, labels: &labels }, &Security::Token)?;
        MeshServer::start(lab, name, &bootstrap)
    };
    let client = |name: &str, grpc: Grpc, security: &Security| {
        let bootstrap = control_plane.bootstrap(&Member { name, labels: &[] }, security)?;
        Client::start(lab, name, grpc, &Target::XdsCredentials("reviews:9080"), Some(&bootstrap))
    };
    let (v1, _v2) = (server("v1", "v1")?, server("v2", "v2")?);
    let mut core = client("alice", Grpc::Core, &Security::Files)?;
    let mut js = client("node", Grpc::Js, &Security::PlaintextWithFiles)?;
    let outside = Target::Port(v1.port, "reviews:9080");
    let mut outside = Client::start(lab, "outside", Grpc::Core, &outside, None)?;

    for (name, client) in [("C-core", &mut core), ("grpc-js", &mut js)] {
        client.until("an answer", |batch| batch.is_from(&["v1", "v2"]))?;
        report.check(format_args!("PERMISSIVE: a {name} client"), client.call(CALLS, &[])?.share("v1", 80));
    }
    report.check("PERMISSIVE: a client without the mesh", outside.call(CALLS, &[])?.exactly(&["v1"]));

    let mut spare = server("v1-spare", "v1")?;
    for (name, client) in [("C-core", &mut core), ("grpc-js", &mut js)] {
        let changing = client.until("the server that registered", |batch| batch.has("v1-spare"))?;
        report.check(format_args!("{name}: no failed call while a server registers"), changing.complete());
    }
    spare.drain()?;
    for (name, client) in [("C-core", &mut core), ("grpc-js", &mut js)] {
        let changing = client.until("the drained server gone", |batch| !batch.has("v1-spare"))?;
        report.check(format_args!("{name}: no failed call while a server drains"), changing.complete());
    }

    control_plane.apply("security.yaml", &yaml::mtls(APP, "STRICT"))?;
    outside.until("plaintext refused", |batch| batch.is_refused("UNAVAILABLE"))?;
    report.check("STRICT: plaintext refused", outside.call(CALLS, &[])?.refused_with("UNAVAILABLE"));
    for (name, client) in [("C-core", &mut core), ("grpc-js", &mut js)] {
        client.until("an answer over mTLS", |batch| batch.is_from(&["v1", "v2"]))?;
        report
            .check(format_args!("STRICT: a {name} client"), client.call(CALLS, &[])?.exactly(&["v1", "v2"]));
    }

    let policy = yaml::mtls(APP, "STRICT") + &yaml::only(APP, "alice");
    control_plane.apply("security.yaml", &policy)?;
    js.until("others refused", |batch| batch.is_refused("PERMISSION_DENIED"))?;
    report.check("policy: others refused", js.call(CALLS, &[])?.refused_with("PERMISSION_DENIED"));
    report.check("policy: the principal allowed", core.call(CALLS, &[])?.exactly(&["v1", "v2"]));
    for member in ["v1", "v2", "alice", "node"] {
        report.check(format_args!("nothing rejected by {member}"), control_plane.acknowledged(member));
    }
    Ok(())
}
