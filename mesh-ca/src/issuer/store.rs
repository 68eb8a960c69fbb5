//! The root key and certificate on disk: two PEM files of mode 0600 in a directory of mode 0700.
//!
//! The key is written once, completely or not at all, and never over another one. A key that others
//! can read is refused, not repaired: somebody may have read it.

use crate::key::{KeyError, PrivateKey};
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

const KEY_FILE: &str = "root-key.pem";
const CERTIFICATE_FILE: &str = "root-cert.pem";

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system said no.
    #[error("{path}: {cause}")]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Others may read a secret, or write where secrets are.
    #[error(
        "{path} has mode {mode:o}, so others can {what} it; if nobody has, `chmod {should:o} {path}`, \
         else remove it and let every workload join again"
    )]
    Exposed {
        /// Which file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// `read` or `change`.
        what: &'static str,
        /// What they should be.
        should: u32,
    },
    /// The key file holds no usable key.
    #[error("{path}: {cause}")]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        cause: KeyError,
    },
    /// A certificate without its key.
    #[error(
        "{certificate} exists but {key} does not: restore the key, or remove the certificate to start anew"
    )]
    KeyMissing {
        /// The certificate's path.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |cause| StoreError::Io { path, cause }
}

/// The directory of an authority.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// Opens the directory, making it if there is none.
    pub(super) fn open(directory: &Path) -> Result<Self, StoreError> {
        private_directory(directory)?;
        Ok(Self { directory: directory.to_owned() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn certificate_path(&self) -> PathBuf {
        self.directory.join(CERTIFICATE_FILE)
    }

    /// The root key, made on first use.
    pub(super) fn key(&self) -> Result<PrivateKey, StoreError> {
        let path = self.directory.join(KEY_FILE);
        let key_error = |cause| StoreError::Key { path: path.clone(), cause };
        if !path.try_exists().map_err(io_error(&path))? {
            let certificate = self.certificate_path();
            if certificate.try_exists().map_err(io_error(&certificate))? {
                return Err(StoreError::KeyMissing { certificate, key: path });
            }
            let key = PrivateKey::generate().map_err(key_error)?;
            self.write(&path, key.to_pem().as_bytes(), Replace::Never)?;
        }
        // Read back even when just written: another process may have been first.
        refuse_exposed(&path, 0o077, "read", 0o600)?;
        let pem = Zeroizing::new(fs::read(&path).map_err(io_error(&path))?);
        PrivateKey::from_pem(&pem).map_err(key_error)
    }

    /// The root certificate, if there is one yet.
    pub(super) fn certificate(&self) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.certificate_path();
        match fs::read(&path) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    /// Replaces the root certificate.
    pub(super) fn write_certificate(&self, pem: &str) -> Result<(), StoreError> {
        self.write(&self.certificate_path(), pem.as_bytes(), Replace::Whole)
    }

    fn write(&self, path: &Path, contents: &[u8], replace: Replace) -> Result<(), StoreError> {
        let temporary = self.directory.join(format!(".new-{:016x}", fastrand::u64(..)));
        let outcome = write_private(&temporary, contents).and_then(|()| match replace {
            Replace::Whole => fs::rename(&temporary, path),
            // Unlike a rename, a link fails when the name is taken.
            Replace::Never => match fs::hard_link(&temporary, path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
                other => other,
            },
        });
        // Renamed away, or never made: then there is nothing to remove.
        let _ = fs::remove_file(&temporary);
        outcome.map_err(io_error(path))?;
        File::open(&self.directory)
            .and_then(|directory| directory.sync_all())
            .map_err(io_error(&self.directory))
    }
}

#[derive(Clone, Copy)]
enum Replace {
    Whole,
    Never,
}

/// Makes a directory that only its owner may use, or refuses one that others may write to.
pub(super) fn private_directory(path: &Path) -> Result<(), StoreError> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(path).map_err(io_error(path))?;
    refuse_exposed(path, 0o022, "change", 0o700)
}

/// A new file that only its owner may read, on disk when this returns.
pub(super) fn write_private(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(unix)]
fn refuse_exposed(path: &Path, forbidden: u32, what: &'static str, should: u32) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(io_error(path))?.permissions().mode() & 0o7777;
    // A sticky directory such as /tmp is not a place for a root key either: no exception.
    if mode & forbidden != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode, what, should });
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_exposed(_: &Path, _: u32, _: &'static str, _: u32) -> Result<(), StoreError> {
    Ok(())
}
