//! Connections to the control plane, with the credentials of the bootstrap.

use super::token::TokenFile;
use futures_util::{FutureExt, future::BoxFuture};
use mesh_ca::{
    bundle::Roots,
    channel::{self, Keepalive, Target},
    rustls::ServerTrust,
    source::file::{FileSource, RootsFile},
    workload::WorkloadIdentity,
};
use mesh_xds::{
    bootstrap::{CallCredentials, ChannelCredentials, ServerConfig},
    client::Connector,
};
use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tonic::{Status, metadata::MetadataMap, transport::Channel};

/// Makes them.
pub(super) struct ControlPlaneConnector {
    /// Shown where the credentials name no certificate of their own.
    identity: Option<WorkloadIdentity>,
    keepalive: Keepalive,
    /// The certificates that credentials name, each watched once, however often it is connected with.
    own: Mutex<HashMap<Files, WorkloadIdentity>>,
    /// Each read once for all control planes.
    tokens: Mutex<HashMap<PathBuf, Arc<TokenFile>>>,
    /// The latest channel of ADS, until its control plane is let go: load reports use the same connection. Of what is told
    /// a server, its credentials count as much as its address.
    latest: Mutex<HashMap<ServerConfig, Channel>>,
}

/// Certificate, key and roots, and how often they are read.
type Files = (PathBuf, PathBuf, RootsFile, Duration);

impl ControlPlaneConnector {
    pub(super) fn new(identity: Option<WorkloadIdentity>, keepalive: Keepalive) -> Self {
        let (own, tokens, latest) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { identity, keepalive, own, tokens, latest }
    }

    /// A lazy channel. Roots are read anew for each.
    pub(super) fn channel(&self, server: &ServerConfig) -> Result<Channel, String> {
        if server.credentials == ChannelCredentials::Insecure && !server.call_credentials.is_empty() {
            return Err(
                "call_creds are sent over an encrypted connection only (gRFC A97), and channel_creds is \
                        `insecure`"
                    .into(),
            );
        }
        let target = match &server.credentials {
            ChannelCredentials::Insecure => match server.socket() {
                Some(socket) => Target::unix(socket),
                None => Target::plaintext(&server.address),
            },
            ChannelCredentials::Tls {
                ca_certificate_file,
                spiffe_trust_bundle_map_file,
                identity,
                refresh_interval,
            } => {
                let roots =
                    RootsFile::named(ca_certificate_file.as_ref(), spiffe_trust_bundle_map_file.as_ref());
                let trust = match &roots {
                    Some(file) => file.servers().map_err(|error| error.to_string())?,
                    None => ServerTrust::Roots(
                        Roots::system()
                            .map_err(|error| format!("no ca_certificate_file is named, and {error}"))?,
                    ),
                };
                let own = match (identity, roots) {
                    (None, _) => self.identity.clone(),
                    (Some((certificate, key)), Some(roots)) => {
                        Some(self.watched((certificate.clone(), key.clone(), roots, *refresh_interval)))
                    }
                    (Some(_), None) => {
                        return Err(
                            "channel_creds `tls` with certificate_file needs ca_certificate_file or \
                             spiffe_trust_bundle_map_file too: a certificate is believed together with the roots \
                             of its own trust domain"
                                .into(),
                        );
                    }
                };
                Target::tls(&server.address, trust, own.as_ref())
            }
            other => return Err(format!("credentials {other:?} are not supported")),
        };
        let target = target.map_err(|error| error.to_string())?;
        Ok(channel::connect(&target.keepalive(self.keepalive)))
    }

    /// The tokens that go with each stream.
    async fn call_credentials(&self, server: &ServerConfig) -> Result<MetadataMap, Status> {
        let mut metadata = MetadataMap::new();
        for credentials in &server.call_credentials {
            let CallCredentials::JwtTokenFile(path) = credentials else {
                return Err(Status::unavailable(format!("call_creds {credentials:?} are not supported")));
            };
            let file = {
                let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
                let open = || Arc::new(TokenFile::new(path.clone()));
                tokens.entry(path.clone()).or_insert_with(open).clone()
            };
            metadata.append("authorization", file.bearer().await?);
        }
        Ok(metadata)
    }

    fn watched(&self, files: Files) -> WorkloadIdentity {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        let start = |(certificate, key, roots, refresh): &Files| {
            let source = FileSource::with_roots(certificate, key, roots.clone());
            WorkloadIdentity::start(source.refresh(*refresh))
        };
        own.entry(files).or_insert_with_key(start).clone()
    }
}

impl Connector for ControlPlaneConnector {
    fn connect(&self, server: &ServerConfig) -> Result<Channel, String> {
        let channel = self.channel(server)?;
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.insert(server.clone(), channel.clone());
        Ok(channel)
    }

    fn shared(&self, server: &ServerConfig) -> Result<Channel, String> {
        let latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned();
        // What ADS has let go nobody would forget.
        latest.map_or_else(|| self.channel(server), Ok)
    }

    fn let_go(&self, server: &ServerConfig) {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).remove(server);
    }

    fn metadata<'a>(&'a self, server: &'a ServerConfig) -> BoxFuture<'a, Result<MetadataMap, Status>> {
        self.call_credentials(server).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, prelude::BASE64_STANDARD};
    use mesh_ca::{
        issuer::{Authority, ServerNames},
        rustls::{ClientAuth, default_provider, server_config},
        spiffe_id::TrustDomain,
    };
    use mesh_xds::{
        bootstrap::{Bootstrap, Node},
        client::{BackoffSettings, ClientSettings, XdsClient},
    };
    use std::path::Path;
    use tokio::net::TcpListener;

    fn server(credentials: ChannelCredentials, token: &Path) -> ServerConfig {
        let mut server = ServerConfig::new("localhost:15012", credentials).unwrap();
        server.call_credentials = vec![CallCredentials::JwtTokenFile(token.to_owned())];
        server
    }

    #[tokio::test]
    async fn a_token_is_sent_with_a_stream_over_tls_and_never_in_plaintext() {
        let connector = ControlPlaneConnector::new(None, Keepalive::default());
        let path = std::env::temp_dir().join(format!("mesh-connect-{}", std::process::id()));
        // `exp` is far away.
        std::fs::write(&path, "e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln").unwrap();
        let tls = ChannelCredentials::Tls {
            ca_certificate_file: None,
            spiffe_trust_bundle_map_file: None,
            identity: None,
            refresh_interval: Duration::from_secs(600),
        };
        let metadata = connector.metadata(&server(tls, &path)).await.unwrap();
        assert_eq!(metadata.get("authorization").unwrap(), "Bearer e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln");
        assert!(!format!("{metadata:?}").contains("e30"), "it is not shown");
        std::fs::remove_file(&path).unwrap();
        let why = connector.channel(&server(ChannelCredentials::Insecure, &path)).unwrap_err();
        assert!(why.contains("over an encrypted connection only"), "{why}");
    }

    #[tokio::test]
    async fn what_credentials_name_and_is_not_there_is_named() {
        let connector = ControlPlaneConnector::new(None, Keepalive::default());
        let with = |roots: Option<&str>, bundles: Option<&str>, identity: Option<(PathBuf, PathBuf)>| {
            let credentials = ChannelCredentials::Tls {
                ca_certificate_file: roots.map(PathBuf::from),
                spiffe_trust_bundle_map_file: bundles.map(PathBuf::from),
                identity,
                refresh_interval: Duration::from_secs(600),
            };
            connector.channel(&ServerConfig::new("localhost:1", credentials).unwrap()).unwrap_err()
        };
        assert!(with(Some("/nowhere/roots.pem"), None, None).contains("/nowhere/roots.pem"));
        assert!(
            with(Some("/nowhere/roots.pem"), Some("/nowhere/map.json"), None).contains("/nowhere/map.json")
        );
    }

    #[tokio::test]
    async fn files_are_watched_once_and_a_channel_is_shared_with_the_same_credentials_only() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let bundles = Authority::in_memory(&domain).unwrap().bundles();
        let root = BASE64_STANDARD.encode(&bundles.roots(&domain).unwrap().certificates()[0]);
        let roots =
            file("roots", &format!("-----BEGIN CERTIFICATE-----\n{root}\n-----END CERTIFICATE-----\n"));
        let with = |address: &str, identity: Option<(PathBuf, PathBuf)>| {
            let credentials = ChannelCredentials::Tls {
                ca_certificate_file: Some(roots.clone()),
                spiffe_trust_bundle_map_file: None,
                identity,
                refresh_interval: Duration::from_secs(600),
            };
            ServerConfig::new(address, credentials).unwrap()
        };
        let own = || Some(("/nowhere/cert.pem".into(), "/nowhere/key.pem".into()));
        let connector = ControlPlaneConnector::new(None, Keepalive::default());
        for _ in 0..3 {
            connector.connect(&with("one:1", own())).unwrap();
            connector.connect(&with("two:1", own())).unwrap();
        }
        assert_eq!(connector.own.lock().unwrap().len(), 1, "one watch, however many connections");
        let channels = || connector.latest.lock().unwrap().len();
        assert_eq!(channels(), 2);
        connector.shared(&with("one:1", own())).unwrap();
        assert_eq!(channels(), 2, "the one of ADS");
        connector.shared(&with("one:1", None)).unwrap();
        assert_eq!(channels(), 2, "another identity is another connection, and only ADS's are kept");
        connector.let_go(&with("one:1", None));
        assert_eq!(channels(), 2);
        connector.let_go(&with("one:1", own()));
        assert_eq!(channels(), 1, "a connection that nobody uses ends");
        connector.shared(&with("one:1", own())).unwrap();
        assert_eq!(channels(), 1);
        // Roots are read for each connection.
        std::fs::remove_file(&roots).unwrap();
        let why = connector.connect(&with("one:1", own())).unwrap_err();
        assert!(why.contains("roots"), "{why}");
    }

    /// A temporary file of this content.
    fn file(name: &str, content: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("mesh-connect-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        path
    }

    #[tokio::test]
    async fn a_control_plane_is_known_by_a_bundle_map_and_gets_the_token_over_that_connection_only() {
        let domain = TrustDomain::parse("cluster.local").unwrap();
        let (ours, other) =
            (Arc::new(Authority::in_memory(&domain).unwrap()), Authority::in_memory(&domain).unwrap());
        let map = |authority: &Authority| {
            let bundles = authority.bundles();
            let root = &bundles.roots(&domain).unwrap().certificates()[0];
            let key =
                serde_json::json!({"kty": "EC", "use": "x509-svid", "x5c": [BASE64_STANDARD.encode(root)]});
            serde_json::json!({"trust_domains": {"cluster.local": {"keys": [key]}}}).to_string()
        };
        let (good, bad) = (file("good", &map(&ours)), file("bad", &map(&other)));
        let token = file("token", "e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln");
        let identity = ours.server_identity(ServerNames { dns: vec![], ips: vec![] });
        identity.ready().await.unwrap();
        let config = server_config(&identity, ClientAuth::None, &[b"h2"], default_provider()).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let join = |map: &Path| {
            let credentials = ChannelCredentials::Tls {
                ca_certificate_file: None,
                spiffe_trust_bundle_map_file: Some(map.to_owned()),
                identity: None,
                refresh_interval: Duration::from_secs(600),
            };
            let mut server = ServerConfig::new(&address, credentials).unwrap();
            server.call_credentials = vec![CallCredentials::JwtTokenFile(token.clone())];
            let bootstrap = Arc::new(Bootstrap::new(server, Node::default()));
            XdsClient::spawn(bootstrap, Arc::new(ControlPlaneConnector::new(None, Keepalive::default())))
        };
        // Of another authority of the same name.
        let client = join(&bad);
        let mut watch = client.config("t", "t");
        let refused = async {
            let (tcp, _) = listener.accept().await.unwrap();
            assert!(acceptor.accept(tcp).await.is_err(), "the client refuses");
        };
        let (known, ()) = tokio::join!(watch.known(), refused);
        let error = known.unwrap().unwrap_err().to_string();
        assert!(error.contains("TLS handshake with"), "{error}");
        drop((client, watch));

        let client = join(&good);
        let _watch = client.config("t", "t");
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(acceptor.accept(tcp).await.unwrap()).await.unwrap();
        let (request, _respond) = connection.accept().await.unwrap().unwrap();
        assert!(request.uri().path().ends_with("/StreamAggregatedResources"), "{}", request.uri());
        assert_eq!(request.headers()["authorization"], "Bearer e30.eyJleHAiOjk5OTk5OTk5OTl9.c2ln");
        for path in [good, bad, token] {
            std::fs::remove_file(path).unwrap();
        }
    }

    /// One stream of ADS, as a server without protobuf sees it.
    struct Stream {
        connection: h2::server::Connection<tokio::net::TcpStream, bytes::Bytes>,
        respond: h2::server::SendResponse<bytes::Bytes>,
        _request: http::Request<h2::RecvStream>,
    }

    impl Stream {
        async fn accept(listener: &TcpListener) -> Self {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(tcp).await.unwrap();
            let (_request, respond) = connection.accept().await.unwrap().unwrap();
            Self { connection, respond, _request }
        }
    }

    #[tokio::test]
    async fn the_connection_of_a_control_plane_that_is_let_go_ends() {
        let [first, second] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0"));
        let (first, second) = (first.await.unwrap(), second.await.unwrap());
        let server = |listener: &TcpListener| {
            let address = listener.local_addr().unwrap().to_string();
            ServerConfig::new(&address, ChannelCredentials::Insecure).unwrap()
        };
        let mut bootstrap = Bootstrap::new(server(&first), Node::default());
        bootstrap.servers.push(server(&second));
        let connector = Arc::new(ControlPlaneConnector::new(None, Keepalive::default()));
        let backoff = BackoffSettings { initial: Duration::from_millis(20), max: Duration::from_millis(50) };
        let settings = ClientSettings { backoff, ..ClientSettings::default() };
        let client = XdsClient::spawn_with(&bootstrap, connector.clone(), settings);
        let _watch = client.config("t", "t");
        drop(first.accept().await.unwrap());
        let mut second = Stream::accept(&second).await;

        // The first answers: the second is let go.
        let mut first = Stream::accept(&first).await;
        let answer = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
        let mut body = first.respond.send_response(answer, false).unwrap();
        let url = "type.googleapis.com/envoy.config.listener.v3.Listener";
        let message = [&[0x22, url.len() as u8][..], url.as_bytes()].concat();
        let framed = [&[0, 0, 0, 0, message.len() as u8][..], &message].concat();
        body.send_data(framed.into(), false).unwrap();
        let ended = async { while second.connection.accept().await.is_some() {} };
        let serve = async { while first.connection.accept().await.is_some() {} };
        tokio::select! {
            () = ended => {}
            () = serve => panic!("the first is in use"),
            () = tokio::time::sleep(Duration::from_secs(60)) => panic!("the second's connection stays open"),
        }
        assert!(!connector.latest.lock().unwrap().contains_key(&bootstrap.servers[1]));
        assert!(connector.latest.lock().unwrap().contains_key(&bootstrap.servers[0]));
    }
}
