//! A server on gRPC's C-core that our control plane configures: in plaintext, with mTLS, and whom it lets
//! in; and that its clients follow.

use crate::interop::{
    Lab, Outcome,
    control_plane::{ControlPlane, Member, Security},
    peer::{Client, Grpc, Server, Target},
    ports,
    report::Report,
    yaml,
};

const CALLS: u32 = 100;
const APP: &str = "reviews";

pub(super) fn core(lab: &Lab, report: &mut Report) -> Outcome {
    let port = ports::free()?;
    let services = yaml::service(APP) + &yaml::workload(APP, port);
    let files = [("services.yaml", services), ("security.yaml", yaml::mtls(APP, "DISABLE"))];
    let control_plane = ControlPlane::start(lab, &files)?;
    let member = Member { name: APP, labels: &[("app", APP)] };
    let bootstrap = control_plane.bootstrap(&member, &Security::Files)?;
    let _server = Server::xds(lab, APP, port, &bootstrap)?;
    let start = |name: &str, grpc: Grpc, security: &Security| {
        let bootstrap = control_plane.bootstrap(&Member { name, labels: &[] }, security)?;
        Client::start(lab, name, grpc, &Target::XdsCredentials("reviews:9080"), Some(&bootstrap))
    };
    let mut alice = start("alice", Grpc::Core, &Security::Files)?;
    let mut bob = start("bob", Grpc::Core, &Security::Files)?;
    let mut node = start("node", Grpc::Js, &Security::PlaintextWithFiles)?;
    let mut plaintext =
        Client::start(lab, "plaintext", Grpc::Core, &Target::Port(port, "reviews:9080"), None)?;

    alice.until("an answer", |batch| batch.is_from(&[APP]))?;
    report.check("DISABLE: a C-core client", alice.call(CALLS, &[])?.exactly(&[APP]));
    report.check("DISABLE: a grpc-js client", node.call(CALLS, &[])?.exactly(&[APP]));
    report.check("DISABLE: a client without the mesh", plaintext.call(CALLS, &[])?.exactly(&[APP]));

    control_plane.apply("security.yaml", &yaml::mtls(APP, "STRICT"))?;
    plaintext.until("plaintext refused", |batch| batch.is_refused())?;
    report.check("STRICT: plaintext refused", plaintext.call(CALLS, &[])?.refused_with("UNAVAILABLE"));
    for (name, client) in [("C-core", &mut alice), ("grpc-js", &mut node)] {
        // Server and client are told at the same moment, and neither waits for the other.
        client.until("an answer over mTLS", |batch| batch.is_from(&[APP]))?;
        report.check(format_args!("STRICT: a {name} client"), client.call(CALLS, &[])?.exactly(&[APP]));
    }

    let policy = yaml::mtls(APP, "STRICT") + &yaml::only(APP, "alice");
    control_plane.apply("security.yaml", &policy)?;
    bob.until("bob refused", |batch| batch.is_refused())?;
    report.check("policy: others refused", bob.call(CALLS, &[])?.refused_with("PERMISSION_DENIED"));
    report.check("policy: others refused, grpc-js", node.call(CALLS, &[])?.refused_with("PERMISSION_DENIED"));
    report.check("policy: the principal allowed", alice.call(CALLS, &[])?.exactly(&[APP]));
    for member in [APP, "alice", "node"] {
        report.check(format_args!("nothing rejected by {member}"), control_plane.acknowledged(member));
    }
    Ok(())
}
