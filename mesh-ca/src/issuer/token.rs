//! Join tokens: 256 random bits that prove, once and before a deadline, that their bearer may be a
//! certain workload.
//!
//! Only the SHA-256 of a token is kept, so whoever reads the store cannot join. Using one is an atomic
//! rename (or removal from a map): of two simultaneous uses exactly one wins. The directory store is
//! shared between processes: a CLI creates tokens beside a running server.

use super::store::{StoreError, private_directory, write_private};
use crate::{
    clock::{self, Clock},
    spiffe_id::SpiffeId,
};
use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Marks a text as one of our tokens, for people and for secret scanners.
const PREFIX: &str = "mesh-join-";
const SUFFIX: &str = "token";

/// Why a token was not made or not accepted. Never quotes the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Not a text that we would have made.
    #[error("not a join token (expected `{PREFIX}…`)")]
    Malformed,
    /// Never made here, or used already.
    #[error("the join token is unknown, or has been used already")]
    Unknown,
    /// Too late.
    #[error("the join token for {id} expired at {}; the clock here says {}", clock::utc(*.expired), clock::utc(*.now))]
    Expired {
        /// Whom it was for.
        id: SpiffeId,
        /// When it ended.
        expired: SystemTime,
        /// The time here.
        now: SystemTime,
    },
    /// The store cannot be read or written.
    #[error("join tokens: {0}")]
    Store(#[from] StoreError),
    /// A stored token cannot be understood.
    #[error("join tokens: {path}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// No randomness.
    #[error("join tokens: the system's random generator failed")]
    Random,
}

/// What a token grants.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    id: String,
    /// Seconds since 1970.
    expires: u64,
}

type Hash = [u8; 32];

/// The tokens that have been made and not used. Cheap to clone.
#[derive(Clone)]
pub struct JoinTokens {
    store: Arc<TokenStore>,
    clock: Clock,
}

enum TokenStore {
    Directory(PathBuf),
    Memory(Mutex<HashMap<Hash, Grant>>),
}

impl JoinTokens {
    /// Tokens kept in a directory (made with mode 0700), one file each.
    pub fn in_directory(directory: &Path) -> Result<Self, TokenError> {
        private_directory(directory)?;
        Ok(Self::over(TokenStore::Directory(directory.to_owned())))
    }

    /// Tokens of this process only.
    pub fn in_memory() -> Self {
        Self::over(TokenStore::Memory(Mutex::default()))
    }

    fn over(store: TokenStore) -> Self {
        Self { store: Arc::new(store), clock: Clock::system() }
    }

    /// With another clock.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// A new token, with which one workload can become `id` within `lifetime`. This is the only time
    /// that it is seen.
    pub fn create(&self, id: &SpiffeId, lifetime: Duration) -> Result<Zeroizing<String>, TokenError> {
        let now = self.clock.now();
        self.remove_expired(now);
        let mut random = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *random).map_err(|_| TokenError::Random)?;
        let token = Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random.as_slice())));
        let expires = unix_seconds(now + lifetime);
        self.store.insert(hash(&token), Grant { id: id.to_string(), expires })?;
        Ok(token)
    }

    /// Uses a token up and says whom it makes its bearer. An expired one is used up too.
    pub fn redeem(&self, token: &str) -> Result<SpiffeId, TokenError> {
        // Before the store is touched: most wrong tokens are not even tokens.
        if !token.starts_with(PREFIX) || token.len() > 128 {
            return Err(TokenError::Malformed);
        }
        let grant = self.store.take(&hash(token))?.ok_or(TokenError::Unknown)?;
        let id = SpiffeId::parse(&grant.id).map_err(|error| TokenError::Damaged {
            path: self.store.path(&hash(token)),
            reason: error.to_string(),
        })?;
        let (now, expired) = (self.clock.now(), SystemTime::UNIX_EPOCH + Duration::from_secs(grant.expires));
        if now > expired {
            return Err(TokenError::Expired { id, expired, now });
        }
        Ok(id)
    }

    /// Expired tokens are of no use to anybody; that some may not be removable is no reason to fail.
    fn remove_expired(&self, now: SystemTime) {
        let now = unix_seconds(now);
        match &*self.store {
            TokenStore::Memory(grants) => {
                grants.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, grant| grant.expires >= now);
            }
            TokenStore::Directory(directory) => {
                for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                    let path = entry.path();
                    let ours = path.extension().is_some_and(|extension| extension == SUFFIX);
                    let expired = ours && read_grant(&path).is_ok_and(|grant| grant.expires < now);
                    if expired && fs::remove_file(&path).is_err() {
                        tracing::debug!(path = %path.display(), "an expired join token could not be removed");
                    }
                }
            }
        }
    }
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.store {
            TokenStore::Directory(directory) => write!(f, "JoinTokens({})", directory.display()),
            TokenStore::Memory(_) => f.write_str("JoinTokens(in memory)"),
        }
    }
}

impl TokenStore {
    fn insert(&self, hash: Hash, grant: Grant) -> Result<(), TokenError> {
        match self {
            Self::Memory(grants) => {
                grants.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, grant);
                Ok(())
            }
            Self::Directory(_) => {
                let path = self.path(&hash);
                let damaged = |reason: String| TokenError::Damaged { path: path.clone(), reason };
                let json = serde_json::to_vec(&grant).map_err(|error| damaged(error.to_string()))?;
                // Whole under its name or not there: a server may be looking.
                let temporary = path.with_extension("new");
                let io = |cause| TokenError::Store(StoreError::Io { path: path.clone(), cause });
                write_private(&temporary, &json).map_err(io)?;
                fs::rename(&temporary, &path).map_err(io)
            }
        }
    }

    fn take(&self, hash: &Hash) -> Result<Option<Grant>, TokenError> {
        match self {
            Self::Memory(grants) => Ok(grants.lock().unwrap_or_else(PoisonError::into_inner).remove(hash)),
            Self::Directory(_) => {
                let path = self.path(hash);
                // The winner of several is whoever renames it first; each renames to its own name.
                let taken = path.with_extension(format!("used-{:016x}", fastrand::u64(..)));
                match fs::rename(&path, &taken) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(cause) => return Err(StoreError::Io { path, cause }.into()),
                    Ok(()) => {}
                }
                let grant = read_grant(&taken);
                if let Err(error) = fs::remove_file(&taken) {
                    tracing::warn!(path = %taken.display(), %error, "a used join token could not be removed");
                }
                grant.map(Some).map_err(|reason| TokenError::Damaged { path, reason })
            }
        }
    }

    fn path(&self, hash: &Hash) -> PathBuf {
        let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Directory(directory) => directory.join(name).with_extension(SUFFIX),
            Self::Memory(_) => PathBuf::from(name),
        }
    }
}

fn read_grant(path: &Path) -> Result<Grant, String> {
    let json = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

fn hash(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
