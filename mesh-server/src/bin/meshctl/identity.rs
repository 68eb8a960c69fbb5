//! `meshctl token create` and `meshctl cert issue`: both work on the data directory of a mesh-server, which
//! need not run meanwhile.

use crate::{
    Outcome,
    output::{say, show},
};
use clap::{Args, Subcommand};
use mesh_ca::{
    bundle::Roots,
    certificate::PeerCertificate,
    csr,
    issuer::{Authority, JoinTokens, ServerNames, SigningRequest},
    key::PrivateKey,
    spiffe_id::{SpiffeId, TrustDomain},
};
use mesh_server::{ca_directory, cli::duration, root_certificate, token_directory};
use std::{
    error::Error,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Print a new join token: with it, one workload gets its first certificate.
    Create(Create),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Cert {
    /// Issue a certificate and write `cert-chain.pem`, `key.pem` and `root-cert.pem`, readable by you only.
    Issue(Issue),
}

/// Whose identity.
#[derive(Debug, Args)]
struct Whose {
    /// The server's data directory.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Namespace of the workload.
    #[arg(long, value_name = "NAME")]
    namespace: String,
    /// Service account of the workload.
    #[arg(long, value_name = "NAME")]
    service_account: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    whose: Whose,
    /// How long it may wait to be used.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    ttl: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    whose: Whose,
    /// Where to write the files; made if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Lifetime of the certificate; nothing renews it.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    ttl: Duration,
    /// A DNS name or address to put into it besides the SPIFFE id. May be repeated.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
}

impl Token {
    pub(crate) fn run(self) -> Outcome {
        let Self::Create(Create { whose, ttl }) = self;
        let id = whose.id()?;
        let token = JoinTokens::in_directory(&token_directory(&whose.data))?.create(&id, ttl)?;
        say(&format!("for {id}, once, within {}", humantime(ttl)));
        show(&format!("{}\n", token.as_str()))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl Cert {
    pub(crate) fn run(self) -> Outcome {
        let Self::Issue(Issue { whose, out, ttl, names }) = self;
        let id = whose.id()?;
        let authority = Authority::load_or_create(&ca_directory(&whose.data), id.trust_domain())?;
        if ttl > authority.policy().longest_lifetime {
            return Err(format!("--ttl: at most {}", humantime(authority.policy().longest_lifetime)).into());
        }
        let mut server_names = ServerNames::default();
        for name in names {
            match name.parse() {
                Ok(ip) => server_names.ips.push(ip),
                Err(_) => server_names.dns.push(name),
            }
        }
        let key = PrivateKey::generate()?;
        let request = SigningRequest::parse(&csr::request(&key, Some(&id))?)?;
        let issued = authority.issue(&request, &id, ttl, &server_names)?;
        fs::create_dir_all(&out)?;
        write_private(&out.join("key.pem"), key.to_pem().as_bytes())?;
        write_private(&out.join("cert-chain.pem"), issued.chain.concat().as_bytes())?;
        write_private(&out.join("root-cert.pem"), issued.roots.as_bytes())?;
        say(&format!("{id}, for {}, in {}", humantime(ttl), out.display()));
        Ok(ExitCode::SUCCESS)
    }
}

impl Whose {
    fn id(&self) -> Result<SpiffeId, Box<dyn Error>> {
        let trust_domain = trust_domain(&self.data)?;
        Ok(SpiffeId::workload(&trust_domain, &self.namespace, &self.service_account)?)
    }
}

/// Whose data directory it is, by its root certificate.
fn trust_domain(data: &Path) -> Result<TrustDomain, Box<dyn Error>> {
    let path = root_certificate(data);
    let pem = fs::read(&path).map_err(|error| {
        format!(
            "{}: {error}; is {} the data directory of a mesh-server that has run?",
            path.display(),
            data.display()
        )
    })?;
    let roots = Roots::from_pem(&pem).map_err(|error| format!("{}: {error}", path.display()))?;
    let root = roots.certificates().first().ok_or_else(|| format!("{}: no certificate", path.display()))?;
    let certificate =
        PeerCertificate::from_der(root).map_err(|error| format!("{}: {error}", path.display()))?;
    let name = certificate.uri_sans.iter().find_map(|uri| uri.strip_prefix("spiffe://"));
    let name = name.ok_or_else(|| format!("{}: names no trust domain", path.display()))?;
    Ok(TrustDomain::parse(name)?)
}

/// Replaces a file by one that only its owner can read.
fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    // A leftover might have other permissions, which opening does not change.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

fn humantime(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds >= 60 && seconds % 60 == 0 => format!("{}m", seconds / 60),
        _ => format!("{duration:?}"),
    }
}
