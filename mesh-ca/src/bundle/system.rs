//! The operating system's root certificates (gRFC A82), for servers outside the mesh.
//!
//! They are where the system keeps them, or where `SSL_CERT_FILE` and `SSL_CERT_DIR` say. A store holds certificates
//! of all ages: those that cannot serve as a root are passed over, and only a store without any good one is an error.

use super::{InvalidBundle, Roots};
use rustls_pki_types::CertificateDer;

impl Roots {
    /// Those of the operating system, read now. Reads files: some milliseconds.
    pub fn system() -> Result<Self, InvalidBundle> {
        let found = rustls_native_certs::load_native_certs();
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        Self::usable(found.certs).ok_or_else(|| {
            let why = if errors.is_empty() { "there are none".to_owned() } else { errors.join("; ") };
            InvalidBundle::System(why)
        })
    }

    /// Of these the ones that can be roots; none when there is none.
    fn usable(found: Vec<CertificateDer<'static>>) -> Option<Self> {
        let count = found.len();
        let good: Vec<_> = found.into_iter().filter(|one| Self::new(vec![one.clone()]).is_ok()).collect();
        if good.len() < count {
            tracing::debug!(passed_over = count - good.len(), "root certificates of the operating system");
        }
        Self::new(good).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Ca, Leaf};
    use std::{fs, process::Command};

    #[test]
    fn what_cannot_be_a_root_is_passed_over() {
        let (ca, leaf) = (Ca::new("root"), Leaf::new("spiffe://td/a").issue());
        let roots = Roots::usable(vec![vec![1, 2, 3].into(), ca.der.clone(), leaf.der.clone()]).unwrap();
        assert_eq!(roots.certificates(), [ca.der]);
        assert!(Roots::usable(vec![leaf.der]).is_none());
    }

    /// The environment of a process cannot be changed from within, so this runs itself once more.
    #[test]
    fn the_environment_says_where_they_are() {
        const INSIDE: &str = "MESH_CA_TEST_INSIDE";
        if let Ok(expected) = std::env::var(INSIDE) {
            match Roots::system() {
                Ok(roots) => assert_eq!(roots.pem(), expected),
                Err(error) => assert!(error.to_string().contains(&expected), "{error}"),
            }
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (file, ca) = (directory.path().join("roots.pem"), Ca::new("root"));
        let inside = |expected: &str| {
            let mut again = Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", "bundle::system::tests::the_environment_says_where_they_are"]);
            again.env("SSL_CERT_FILE", &file).env_remove("SSL_CERT_DIR").env(INSIDE, expected);
            let output = again.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        };
        inside("SSL_CERT_FILE");
        fs::write(&file, ca.pem()).unwrap();
        inside(&ca.pem());
    }
}
