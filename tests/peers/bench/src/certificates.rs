//! Certificates of the two Envoys, of an authority that ends with this run.

use mesh_bench::Outcome;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Name in the certificate of the Envoy beside the server.
pub(crate) const INBOUND: &str = "inbound.example";

/// Files of an Envoy.
pub(crate) struct Files {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) roots: PathBuf,
}

/// Writes those of the Envoy beside the client and of the one beside the server into `dir`.
pub(crate) fn write(dir: &Path) -> Outcome<(Files, Files)> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Names that differ: a certificate whose subject is its issuer counts as self-signed.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let root = params.self_signed(&key)?;
    let roots = dir.join("roots.pem");
    fs::write(&roots, root.pem())?;
    let issuer = Issuer::new(params, key);
    let leaf = |name: &str| -> Outcome<Files> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        let leaf = params.signed_by(&key, &issuer)?;
        let files = Files {
            chain: dir.join(format!("{name}.pem")),
            key: dir.join(format!("{name}.key")),
            roots: roots.clone(),
        };
        fs::write(&files.chain, leaf.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    };
    Ok((leaf("outbound.example")?, leaf(INBOUND)?))
}
