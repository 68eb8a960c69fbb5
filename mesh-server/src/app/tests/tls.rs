//! The TLS port: who is asked for what.

use super::*;
use crate::resources::Inventory;
use mesh_ca::{
    channel::{Target, connect},
    csr,
    issuer::{ServerNames, SigningRequest},
    key::PrivateKey,
    rustls::ServerTrust,
    source::ca::{CaSource, JoinToken},
    spiffe_id::SpiffeId,
    verifier::ServerCheck,
};
use mesh_xds::name::ResourceType;
use tonic::Code;

struct World {
    running: Running,
    _dirs: (TempDir, TempDir),
}

impl World {
    async fn start() -> Self {
        let (dir, data) = (config(SERVICE), tempfile::tempdir().unwrap());
        let running = App::start(run(&dir, &data)).await.unwrap();
        Self { running, _dirs: (dir, data) }
    }

    fn address(&self) -> SocketAddr {
        self.running.addresses().xds.unwrap()
    }

    /// The port, verified by the mesh's root, with nothing presented.
    fn target(&self) -> Target {
        let bundles = self.running.authority().bundles();
        let server = ServerCheck::exact(SpiffeId::mesh_server(&trust_domain()));
        Target::tls(&self.address().to_string(), ServerTrust::Bundles(bundles, server), None).unwrap()
    }

    fn id(account: &str) -> SpiffeId {
        SpiffeId::workload(&trust_domain(), "default", account).unwrap()
    }

    /// Joins with a token, as a workload would.
    async fn join(&self, account: &str) -> WorkloadIdentity {
        let token = self.running.tokens().create(&Self::id(account), PATIENCE).unwrap();
        let source = CaSource::new(self.target()).token(JoinToken::value(token.as_str()));
        let identity = WorkloadIdentity::start(source);
        assert_eq!(*identity.ready_within(PATIENCE).await.unwrap().id(), Self::id(account));
        identity
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_joins_with_a_token_and_gets_its_configuration_and_endpoint() {
    let world = World::start().await;
    let identity = world.join("reviews").await;
    let channel = connect(&world.target().presenting(&identity).unwrap());
    let client = client(world.address(), Some(channel.clone()), "default", "reviews");
    let mut watch = client.config("reviews:9080", "reviews:9080");
    let (_stream, _) = Registration::open(channel, workload("127.0.0.1", 5001)).await.unwrap();
    let found = until(&mut watch, |config| addresses(config) == ["127.0.0.1:5001 Healthy"]).await;
    // Who has a certificate speaks mTLS, and is expected to be who it proved to be.
    let endpoint = &endpoints(&found).unwrap().priorities[0].localities[0].endpoints[0];
    assert!(endpoint.mesh_tls);
    let cluster = found.clusters.get(CLUSTER).unwrap().as_ref().unwrap();
    let tls = cluster.cluster.tls.as_ref().unwrap();
    assert!(
        tls.sans.iter().any(|san| san.name.matches("spiffe://cluster.local/ns/default/sa/reviews")),
        "{tls:?}"
    );
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_certificate_there_is_no_configuration_and_no_registration() {
    let world = World::start().await;
    let channel = connect(&world.target());
    let Err(status) = Registration::open(channel.clone(), workload("127.0.0.1", 5001)).await.map(|_| ())
    else {
        panic!("registered")
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let client = client(world.address(), Some(channel), "default", "reviews");
    let error = timeout(PATIENCE, client.config("reviews:9080", "reviews:9080").known()).await.unwrap();
    let text = error.unwrap().unwrap_err().to_string();
    assert!(text.contains("no client certificate"), "{text}");
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_somebody_else() {
    let world = World::start().await;
    let identity = world.join("ratings").await;
    let channel = connect(&world.target().presenting(&identity).unwrap());
    // The workload says `reviews`, the certificate `ratings`.
    let Err(status) = Registration::open(channel.clone(), workload("127.0.0.1", 5001)).await.map(|_| ())
    else {
        panic!("registered")
    };
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    for (namespace, account) in [("default", "reviews"), ("other", "ratings")] {
        let client = client(world.address(), Some(channel.clone()), namespace, account);
        let error = timeout(PATIENCE, client.config("reviews:9080", "reviews:9080").known()).await.unwrap();
        let text = error.unwrap().unwrap_err().to_string();
        assert!(text.contains("cannot be namespace"), "{text}");
    }
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_is_its_service_accounts_own_and_speaks_mtls_whatever_it_says() {
    let world = World::start().await;
    let mut open = Vec::new();
    for (account, expected) in [
        ("reviews", Some("reviews-v1-127.0.0.1")),
        ("ratings", Some("reviews-v1-127.0.0.1-5001")),
        ("details", None),
        ("reviews", Some("reviews-v1-127.0.0.1")),
    ] {
        let identity = world.join(account).await;
        let channel = connect(&world.target().presenting(&identity).unwrap());
        let labels = [("app", "reviews"), ("security.istio.io/tlsMode", "disabled")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let said = Workload { service_account: account.into(), labels, ..workload("127.0.0.1", 5001) };
        match (Registration::open(channel, said).await, expected) {
            (Ok((registration, answer)), Some(name)) => {
                assert_eq!(answer.workload_entry, name, "{account}");
                open.push((identity, registration));
            }
            (Err(status), None) => assert_eq!(status.code(), Code::PermissionDenied, "{status:?}"),
            (Ok((_, answer)), None) => panic!("{account} got {answer:?}"),
            (Err(status), Some(_)) => panic!("{account}: {status:?}"),
        }
        let snapshot = world.running.publisher().current();
        let first = snapshot.model.workloads.find("default", "reviews-v1-127.0.0.1").unwrap();
        assert_eq!(first.service_account, "reviews");
        assert!(
            snapshot.model.workloads.iter().all(|one| one.labels["security.istio.io/tlsMode"] == "istio")
        );
    }
    // The first stream's entry is the last one's now: it has no say in it any more.
    let (_, stale) = &mut open[0];
    let status = stale.health(Health::Draining).await.unwrap_err();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_eq!(world.running.publisher().current().model.workloads.len(), 2);
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_believed_on_the_plaintext_port_of_a_production_mesh() {
    let world = World::start().await;
    let address = world.running.addresses().xds_plaintext.unwrap().to_string();
    let source =
        CaSource::new(Target::plaintext(&address).unwrap()).claim(&trust_domain(), "default", "reviews");
    let identity = WorkloadIdentity::start(source.unwrap());
    assert!(identity.ready_within(Duration::from_secs(1)).await.is_err());
    let Err(status) = Registration::open(plaintext(&address), workload("127.0.0.1", 5001)).await.map(|_| ())
    else {
        panic!("registered")
    };
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    assert!(status.message().contains("TLS port (--xds)"), "{status:?}");
    assert!(world.running.publisher().current().model.workloads.is_empty());
    world.running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_development_whoever_asks_on_loopback_gets_a_certificate() {
    let dir = config(SERVICE);
    let running = App::start(dev(&dir)).await.unwrap();
    let address = running.addresses().xds_plaintext.unwrap().to_string();
    let source =
        CaSource::new(Target::plaintext(&address).unwrap()).claim(&trust_domain(), "default", "reviews");
    let identity = WorkloadIdentity::start(source.unwrap());
    assert_eq!(*identity.ready_within(PATIENCE).await.unwrap().id(), World::id("reviews"));
    running.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_root_namespace_is_told_who_is_connected() {
    use mesh_xds::csds::{ClientStatusDiscoveryServiceClient, ClientStatusRequest};
    let world = World::start().await;
    let ask = async |channel| {
        let request = ClientStatusRequest::default();
        ClientStatusDiscoveryServiceClient::new(channel).fetch_client_status(request).await
    };
    let refused = ask(connect(&world.target())).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let workload = connect(&world.target().presenting(&world.join("reviews").await).unwrap());
    let client = client(world.address(), Some(workload.clone()), "default", "reviews");
    until(&mut client.config("reviews:9080", "reviews:9080"), |_| true).await;
    let refused = ask(workload).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("root namespace istio-system"), "{refused}");

    let operator = SpiffeId::workload(&trust_domain(), "istio-system", "operator").unwrap();
    let token = world.running.tokens().create(&operator, PATIENCE).unwrap();
    let source = CaSource::new(world.target()).token(JoinToken::value(token.as_str()));
    let identity = WorkloadIdentity::start(source);
    identity.ready_within(PATIENCE).await.unwrap();
    let told = ask(connect(&world.target().presenting(&identity).unwrap())).await.unwrap().into_inner();
    let [config] = told.config.try_into().unwrap();
    assert!(config.node.unwrap().id.contains("default"), "the workload's");
    assert!(!config.generic_xds_configs.is_empty());
    // In plaintext this machine is told the same.
    let plaintext = plaintext(&world.running.addresses().xds_plaintext.unwrap().to_string());
    assert_eq!(ask(plaintext).await.unwrap().into_inner().config.len(), 1);
    world.running.shutdown().await;
}

/// As `meshctl cert issue` writes them, and `meshctl resources` reads them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_served_is_listed_for_who_has_a_certificate_in_files() {
    let world = World::start().await;
    let authority = world.running.authority();
    let files = tempfile::tempdir().unwrap();
    let (id, key) = (World::id("lister"), PrivateKey::generate().unwrap());
    let request = SigningRequest::parse(&csr::request(&key, Some(&id)).unwrap()).unwrap();
    let issued = authority.issue(&request, &id, PATIENCE * 60, &ServerNames::default()).unwrap();
    let file = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let roots = file("root.pem", &issued.roots);
    let (certificate, key) = (file("cert.pem", &issued.chain.concat()), file("key.pem", &key.to_pem()));
    let list = async |account: &str, security: Security| {
        let mut join = Join::new(world.address().to_string(), "lister", security);
        join.service_account = account.to_owned();
        Inventory::start(&join.bootstrap().unwrap(), &[ResourceType::Cluster]).inventoried().await
    };
    let files =
        || Security::Files { roots: roots.clone(), certificate: certificate.clone(), key: key.clone() };
    let found = timeout(PATIENCE, list("lister", files())).await.unwrap().unwrap();
    assert!(found.is_sound() && found.resources.iter().any(|row| &*row.name == CLUSTER), "{found}");
    let error = timeout(PATIENCE, list("reviews", files())).await.unwrap().unwrap_err();
    assert!(error.contains("cannot be namespace default, service account reviews"), "{error}");
    let nobody = Security::Token { roots: roots.clone(), token: None, lifetime: None };
    let error = timeout(PATIENCE, list("lister", nobody)).await.unwrap().unwrap_err();
    assert!(error.contains("no client certificate"), "{error}");
    world.running.shutdown().await;
}
