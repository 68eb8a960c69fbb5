//! A JWT in a file, for the control plane (gRFC A97): what Kubernetes projects into a pod.
//!
//! Read when it is needed, and kept until half a minute before it expires; in its last minute the file is read in
//! the background while the old one still serves. A file that cannot be read fails the stream as UNAVAILABLE, one
//! that holds no usable token as UNAUTHENTICATED; it is read again only after a back-off.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{sync::Mutex, time::Instant};
use tonic::{
    Status,
    metadata::{Ascii, MetadataValue},
};

type Header = MetadataValue<Ascii>;

/// Not used for this long before it expires: it has to arrive, too.
const MARGIN: Duration = Duration::from_secs(30);
/// Replaced when it has less left.
const REPLACE: Duration = Duration::from_secs(60);
/// Between reads that fail: as between connections.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(120);

pub(super) struct TokenFile {
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    failure: Option<Failure>,
}

struct Token {
    header: Header,
    expires: SystemTime,
}

struct Failure {
    status: Status,
    until: Instant,
    wait: Duration,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, state: Arc::default() }
    }

    /// `Bearer …`, marked as sensitive. Who asks while it is read waits for that.
    pub(super) async fn bearer(&self) -> Result<Header, Status> {
        self.bearer_at(SystemTime::now()).await
    }

    async fn bearer_at(&self, now: SystemTime) -> Result<Header, Status> {
        let mut state = self.state.clone().lock_owned().await;
        let kept = state.token.as_ref().and_then(|token| {
            let left = token.expires.duration_since(now).ok()?;
            (left > MARGIN).then(|| (token.header.clone(), left))
        });
        if let Some((header, left)) = kept {
            if left < REPLACE && state.may_read() {
                let path = self.path.clone();
                // Ends with the reading of one file; meanwhile others wait for the lock no longer than for that.
                tokio::spawn(async move { drop(state.read(&path, now).await) });
            }
            return Ok(header);
        }
        if let Some(failure) = state.failure.as_ref().filter(|failure| Instant::now() < failure.until) {
            return Err(failure.status.clone());
        }
        state.read(&self.path, now).await
    }

    /// Waits for a read that is under way.
    #[cfg(test)]
    async fn settled(&self) -> tokio::sync::MutexGuard<'_, State> {
        self.state.lock().await
    }
}

impl State {
    fn may_read(&self) -> bool {
        self.failure.as_ref().is_none_or(|failure| Instant::now() >= failure.until)
    }

    async fn read(&mut self, path: &Path, now: SystemTime) -> Result<Header, Status> {
        let file = path.to_owned();
        let text = match tokio::task::spawn_blocking(move || std::fs::read_to_string(file)).await {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let token = text
            .map_err(|why| {
                Status::unavailable(format!("the token file {} cannot be read: {why}", path.display()))
            })
            .and_then(|text| {
                parse(text.trim(), now).map_err(|why| {
                    let path = path.display();
                    Status::unauthenticated(format!("the token file {path} holds no usable token: {why}"))
                })
            });
        match token {
            Ok(token) => {
                self.failure = None;
                Ok(self.token.insert(token).header.clone())
            }
            Err(status) => {
                let before = self.failure.take().map(|failure| failure.wait);
                let wait = before.map_or(FIRST_WAIT, |wait| wait.mul_f64(1.6).min(LONGEST_WAIT));
                let until = Instant::now() + wait.mul_f64(0.8 + 0.4 * fastrand::f64());
                self.failure = Some(Failure { status: status.clone(), until, wait });
                Err(status)
            }
        }
    }
}

/// Only when it ends is read from it: whether it is genuine is the control plane's business.
fn parse(jwt: &str, now: SystemTime) -> Result<Token, &'static str> {
    let mut parts = jwt.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it is no JWT");
    };
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(claims.trim_end_matches('='))
        .map_err(|_| "its claims are not base64")?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).map_err(|_| "its claims are not JSON")?;
    let expires =
        claims.get("exp").and_then(serde_json::Value::as_f64).ok_or("it does not say when it expires")?;
    let expires = Duration::try_from_secs_f64(expires).ok().and_then(|since| UNIX_EPOCH.checked_add(since));
    let expires = expires.ok_or("it does not say when it expires")?;
    if expires <= now {
        return Err("it has expired");
    }
    let mut header =
        Header::try_from(format!("Bearer {jwt}")).map_err(|_| "it cannot be sent as a header")?;
    header.set_sensitive(true);
    Ok(Token { header, expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.c2ln", BASE64_URL_SAFE_NO_PAD.encode(claims))
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A file of its own, removed at the end.
    struct Temporary(PathBuf);

    impl Temporary {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("mesh-token-{}-{name}", std::process::id())))
        }

        fn write(&self, text: &str) {
            std::fs::write(&self.0, text).unwrap();
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    #[tokio::test]
    async fn a_token_is_kept_until_shortly_before_its_end_and_replaced_before_that() {
        let path = Temporary::new("kept");
        let (old, new) = (jwt(r#"{"exp": 1000}"#), jwt(r#"{"exp": 2000}"#));
        let bearer = |token: &str| format!("Bearer {token}");
        path.write(&format!("{old}\n"));
        let file = TokenFile::new(path.0.clone());
        let header = file.bearer_at(at(0)).await.unwrap();
        assert_eq!(header, bearer(&old));
        assert!(header.is_sensitive());
        path.write(&new);
        assert_eq!(file.bearer_at(at(940)).await.unwrap(), bearer(&old), "a minute is left");
        assert_eq!(file.settled().await.token.as_ref().unwrap().header, bearer(&old));
        assert_eq!(file.bearer_at(at(941)).await.unwrap(), bearer(&old), "the old one serves");
        assert_eq!(
            file.settled().await.token.as_ref().unwrap().header,
            bearer(&new),
            "and is replaced meanwhile"
        );
        assert_eq!(file.bearer_at(at(970)).await.unwrap(), bearer(&new));
        // Nothing in the background: too close to its end.
        path.write(&jwt(r#"{"exp": 3000}"#));
        assert_eq!(file.bearer_at(at(1970)).await.unwrap(), bearer(&jwt(r#"{"exp": 3000}"#)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_wrong_has_its_status_and_is_not_tried_again_at_once() {
        let path = Temporary::new("wrong");
        let file = TokenFile::new(path.0.clone());
        let missing = file.bearer_at(at(0)).await.unwrap_err();
        assert_eq!(missing.code(), Code::Unavailable);
        assert!(missing.message().contains(&path.0.display().to_string()), "{missing}");
        path.write(&jwt(r#"{"exp": 1000}"#));
        assert_eq!(file.bearer_at(at(0)).await.unwrap_err().code(), Code::Unavailable, "it waits");
        tokio::time::advance(Duration::from_millis(1200)).await;
        file.bearer_at(at(0)).await.unwrap();
        for (text, why) in [
            ("secret", "it is no JWT"),
            ("a.b.c.d", "it is no JWT"),
            ("a.!.c", "not base64"),
            (&jwt("secret"), "not JSON"),
            (&jwt(r#"{"sub": "secret"}"#), "does not say when"),
            (&jwt(r#"{"exp": -1}"#), "does not say when"),
            (&jwt(r#"{"exp": 1000}"#), "it has expired"),
        ] {
            path.write(text);
            let file = TokenFile::new(path.0.clone());
            let status = file.bearer_at(at(1000)).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{text}");
            assert!(status.message().contains(why) && !status.message().contains("secret"), "{status}");
        }
    }
}
