//! The running mesh: a temporary directory, the control plane, the replicas, and the runner's own
//! membership as `visitor`.

use crate::{
    http_get,
    identity::{TRUST_DOMAIN, account, issue},
    process::Process,
    yaml,
};
use mesh_ca::{
    issuer::{Authority, JoinTokens},
    spiffe_id::TrustDomain,
};
use mesh_client::{Mesh, MeshChannel};
use mesh_server::join::{Join, Security};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tonic::transport::Channel;

/// Lifetime that every process asks for: it is renewed at half of this.
pub(crate) const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(12);

const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// Bound of "the configuration reached everyone", on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

/// service, version, instance.
const REPLICAS: [(&str, &str, &str); 7] = [
    ("ratings", "v1", "ratings-v1"),
    ("details", "v1", "details-v1"),
    ("reviews", "v1", "reviews-v1-a"),
    ("reviews", "v1", "reviews-v1-b"),
    ("reviews", "v2", "reviews-v2"),
    ("reviews", "v3", "reviews-v3"),
    ("productpage", "v1", "productpage-v1"),
];

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Addresses of the control plane; the same after a restart.
#[derive(Clone, Copy)]
struct Ports {
    xds: SocketAddr,
    http: SocketAddr,
}

pub(crate) struct World {
    dir: TempDir,
    ports: Ports,
    control_plane: Option<Process>,
    replicas: BTreeMap<String, (Process, SocketAddr)>,
    visitor: Mesh,
    pub(crate) productpage: MeshChannel,
    pub(crate) reviews: MeshChannel,
    pub(crate) ratings: MeshChannel,
}

impl World {
    /// Starts the control plane and every replica, and joins the mesh.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("bookinfo-").tempdir()?;
        for name in ["config", "data", "logs", "identity"] {
            fs::create_dir(dir.path().join(name))?;
        }
        fs::write(dir.path().join("config/base.yaml"), yaml::BASE)?;
        let ports = Ports { xds: free_port()?, http: free_port()? };
        let control_plane = start_control_plane(&dir, ports).await?;

        let bootstrap = bootstrap(&dir, ports, "visitor", "visitor", &[])?;
        let visitor = Mesh::builder().bootstrap_file(&bootstrap)?.build()?;
        let mut world = Self {
            productpage: visitor.channel("xds:///productpage:9080")?,
            reviews: visitor.channel("xds:///reviews:9080")?,
            ratings: visitor.channel("xds:///ratings:9080")?,
            dir,
            ports,
            control_plane: Some(control_plane),
            replicas: BTreeMap::new(),
            visitor,
        };
        for (service, version, instance) in REPLICAS {
            world.start_replica(service, version, instance).await?;
        }
        world.warm_up().await?;
        Ok(world)
    }

    /// Calls until the first page comes whole: every process has then joined.
    async fn warm_up(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let failure = match crate::load::reviews_of_page(&self.productpage, None).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if begun.elapsed() > PATIENCE {
                return Err(format!("no page within {PATIENCE:?} of the start: {failure}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Replaces the scenario's configuration and waits until every connected process has acknowledged it.
    pub(crate) async fn apply<'a>(&self, documents: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.write(&[("base.yaml", yaml::BASE.to_owned()), ("scenario.yaml", yaml::documents(documents))])
            .await
    }

    /// Like `apply`, with documents that take the place of the base's DestinationRule.
    pub(crate) async fn apply_replacing_rule(&self, documents: &[&str]) -> Result<()> {
        let (base, _) = yaml::BASE
            .split_once("---\napiVersion: networking.istio.io/v1\nkind: DestinationRule")
            .ok_or("the base has no DestinationRule")?;
        let scenario = yaml::documents(documents.iter().copied());
        self.write(&[("base.yaml", base.to_owned()), ("scenario.yaml", scenario)]).await
    }

    /// The base alone, and replicas that behave.
    pub(crate) async fn restore(&mut self) -> Result<()> {
        self.write(&[("base.yaml", yaml::BASE.to_owned()), ("scenario.yaml", String::new())]).await?;
        for (replica, _) in self.replicas.values_mut() {
            for order in ["fail 0", "delay 0", "reset"] {
                replica.order(order).await?;
            }
        }
        Ok(())
    }

    /// Writes files of the configuration directory, each through a rename so that none is seen half; the renames follow
    /// one another at once, so that the control plane takes them for one change.
    async fn write(&self, files: &[(&str, String)]) -> Result<()> {
        let config = self.dir.path().join("config");
        let before = self.config_revision().await?;
        let mut staged_files = Vec::new();
        for (name, text) in files {
            let path = config.join(name);
            if fs::read_to_string(&path).is_ok_and(|old| old == *text) {
                continue;
            }
            let staged = config.join(format!(".{name}"));
            fs::write(&staged, text)?;
            staged_files.push((staged, path));
        }
        if staged_files.is_empty() {
            return Ok(());
        }
        for (staged, path) in staged_files {
            fs::rename(&staged, &path)?;
        }
        let begun = Instant::now();
        while self.config_revision().await? == before {
            if begun.elapsed() > PATIENCE {
                let findings = http_get::json(self.ports.http, "/debug/findings").await?;
                return Err(
                    format!("the control plane did not take the new configuration: {findings}").into()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.synced().await
    }

    async fn config_revision(&self) -> Result<Value> {
        Ok(http_get::json(self.ports.http, "/debug/syncz").await?["config_revision"].take())
    }

    /// Waits until every process of the mesh is connected and has acknowledged what it was sent, for ten looks in a row:
    /// one that has acknowledged routes has yet to ask for the clusters that they name.
    pub(crate) async fn synced(&self) -> Result<()> {
        let members = self.replicas.len() + 1;
        let begun = Instant::now();
        let mut looks = 0;
        loop {
            let status = http_get::json(self.ports.http, "/debug/syncz").await?;
            let streams = status["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
            let synced = streams.iter().filter(|stream| stream["synced"] == json!(true)).count();
            looks = if synced >= members && synced == streams.len() { looks + 1 } else { 0 };
            if looks == 10 {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                return Err(
                    format!("not all of {members} processes took the configuration: {status:#}").into()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Tells one replica how to behave.
    pub(crate) async fn order(&mut self, instance: &str, order: &str) -> Result<Value> {
        let (replica, _) = self.replicas.get_mut(instance).ok_or(format!("no replica {instance}"))?;
        replica.order(order).await
    }

    pub(crate) fn address(&self, instance: &str) -> Result<SocketAddr> {
        Ok(self.replicas.get(instance).ok_or(format!("no replica {instance}"))?.1)
    }

    pub(crate) async fn start_replica(&mut self, service: &str, version: &str, instance: &str) -> Result<()> {
        let account = format!("bookinfo-{service}");
        let labels = [("app", service), ("version", version)];
        let bootstrap = bootstrap(&self.dir, self.ports, instance, &account, &labels)?;
        let mut replica = Process::start(
            instance,
            ["service", service, "--version", version, "--instance", instance],
            [("GRPC_XDS_BOOTSTRAP", bootstrap.to_string_lossy().into_owned())],
            &self.dir.path().join("logs"),
        )?;
        let address = replica.line("listening").await?.parse()?;
        self.replicas.insert(instance.into(), (replica, address));
        Ok(())
    }

    /// Drains a replica; true when its process ended cleanly.
    pub(crate) async fn drain_replica(&mut self, instance: &str) -> Result<bool> {
        let (mut replica, _) = self.replicas.remove(instance).ok_or(format!("no replica {instance}"))?;
        replica.order("drain").await?;
        Ok(replica.ended().await)
    }

    /// As a crash would.
    pub(crate) async fn kill_control_plane(&mut self) {
        if let Some(process) = self.control_plane.take() {
            process.kill().await;
        }
    }

    pub(crate) async fn start_control_plane(&mut self) -> Result<()> {
        self.control_plane = Some(start_control_plane(&self.dir, self.ports).await?);
        Ok(())
    }

    /// How many certificates each process has had.
    pub(crate) async fn rotations(&mut self) -> Result<BTreeMap<String, u64>> {
        let mut rotations = BTreeMap::new();
        let of = |status: &Value| status["identities"]["default"]["issued"].as_u64().unwrap_or(0);
        rotations.insert("visitor".to_owned(), of(&serde_json::to_value(self.visitor.status())?));
        for (instance, (replica, _)) in &mut self.replicas {
            rotations.insert(instance.clone(), of(&replica.order("stats").await?["mesh"]));
        }
        Ok(rotations)
    }

    /// A channel that offers a certificate with the right name, of a CA that the mesh does not know.
    pub(crate) fn channel_with_foreign_certificate(&self, server: SocketAddr) -> Result<Channel> {
        crate::stranger::channel(server, &mesh_server::root_certificate(&self.dir.path().join("data")))
    }

    /// Prints how to use the mesh, and waits for Ctrl-C.
    pub(crate) async fn keep_running(&self, json: bool) -> Result<()> {
        let guest = self.guest()?;
        let text = format!(
            "The mesh is up until Ctrl-C.\n  \
             configuration   {} (edit it: it is live)\n  \
             status          http://{}/debug/syncz\n  \
             call it         GRPC_XDS_BOOTSTRAP={} {} call productpage --count 10",
            self.dir.path().join("config").display(),
            self.ports.http,
            guest.display(),
            std::env::current_exe()?.display(),
        );
        if json {
            eprintln!("{text}")
        } else {
            println!("{text}")
        }
        Ok(tokio::signal::ctrl_c().await?)
    }

    /// The bootstrap of a member that any number of programs may use: its certificate is in files, where a
    /// join token would be good for one of them.
    fn guest(&self) -> Result<PathBuf> {
        let data = self.dir.path().join("data");
        let file = |name: &str| self.dir.path().join("identity").join(name);
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        let authority = Authority::load_or_create(&mesh_server::ca_directory(&data), &domain)?;
        let issued = issue(&authority, "guest")?;
        let (certificate, key) = (file("guest-chain.pem"), file("guest-key.pem"));
        fs::write(&certificate, issued.chain)?;
        fs::write(&key, issued.key.to_pem().as_bytes())?;
        let roots = mesh_server::root_certificate(&data);
        let mut join =
            Join::new(self.ports.xds.to_string(), "guest", Security::Files { roots, certificate, key });
        join.service_account = "guest".into();
        let path = file("guest.json");
        fs::write(&path, format!("{:#}", join.bootstrap()?.to_json()))?;
        Ok(path)
    }

    /// Ends every process.
    pub(crate) async fn stop(mut self) {
        for (_, (replica, _)) in std::mem::take(&mut self.replicas) {
            replica.kill().await;
        }
        self.kill_control_plane().await;
    }
}

async fn start_control_plane(dir: &TempDir, ports: Ports) -> Result<Process> {
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let args = [
        "mesh-server".to_owned(),
        "run".to_owned(),
        format!("--config={}", path("config")),
        format!("--data={}", path("data")),
        format!("--xds={}", ports.xds),
        "--xds-plaintext=none".to_owned(),
        format!("--http={}", ports.http),
    ];
    let mut process = Process::start("mesh-server", args, [], &dir.path().join("logs"))?;
    process.line("ready").await?;
    Ok(process)
}

/// What `meshctl token create` and `meshctl bootstrap` write for a workload; the path of the file.
fn bootstrap(
    dir: &TempDir,
    ports: Ports,
    workload: &str,
    name: &str,
    labels: &[(&str, &str)],
) -> Result<PathBuf> {
    let data = dir.path().join("data");
    let identity = dir.path().join("identity");
    let id = account(name)?;
    let token =
        JoinTokens::in_directory(&mesh_server::token_directory(&data))?.create(&id, TOKEN_LIFETIME)?;
    let token_file = identity.join(format!("{workload}.token"));
    fs::write(&token_file, &*token)?;

    let security = Security::Token {
        roots: mesh_server::root_certificate(&data),
        token: Some(token_file),
        lifetime: Some(CERTIFICATE_LIFETIME),
    };
    let mut join = Join::new(ports.xds.to_string(), workload, security);
    join.service_account = name.into();
    join.labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let path = identity.join(format!("{workload}.json"));
    fs::write(&path, format!("{:#}", join.bootstrap()?.to_json()))?;
    Ok(path)
}

/// A port below the ephemeral range, so that no outgoing connection takes it while nobody listens.
fn free_port() -> Result<SocketAddr> {
    for _ in 0..200 {
        let address = SocketAddr::from(([127, 0, 0, 1], fastrand::u16(20_000..32_000)));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err("no free port between 20000 and 32000 on 127.0.0.1".into())
}
