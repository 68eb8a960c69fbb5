//! A child process: its output read line by line, its log kept, killed when dropped.

use serde_json::Value;
use std::{
    error::Error,
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// Longer than anything a healthy process on a loaded machine takes to say its next line.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Starts this very binary with `args`; its standard error goes to `<logs>/<name>.log`.
    pub(crate) fn start<A, E>(
        name: &str,
        args: A,
        environment: E,
        logs: &Path,
    ) -> Result<Self, Box<dyn Error>>
    where
        A: IntoIterator,
        A::Item: AsRef<OsStr>,
        E: IntoIterator<Item = (&'static str, String)>,
    {
        let log = logs.join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log)?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {name}: {e}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{name} has no pipes").into());
        };
        let stdout = BufReader::new(stdout).lines();
        Ok(Self { name: name.into(), child, stdin, stdout, log })
    }

    /// The rest of the first line that starts with `prefix`; other lines are passed over.
    pub(crate) async fn line(&mut self, prefix: &str) -> Result<String, Box<dyn Error>> {
        let wanted = async {
            while let Some(line) = self.stdout.next_line().await? {
                if let Some(rest) = line.strip_prefix(prefix) {
                    return Ok(rest.trim().to_owned());
                }
            }
            Err("it ended".into())
        };
        let result: Result<String, Box<dyn Error>> = match timeout(PATIENCE, wanted).await {
            Ok(result) => result,
            Err(_) => Err(format!("nothing within {PATIENCE:?}").into()),
        };
        result.map_err(|why| {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            let tail = tail.into_iter().rev().collect::<Vec<_>>().join("\n  ");
            format!("{} did not say `{prefix}`: {why}. Its log ends with:\n  {tail}", self.name).into()
        })
    }

    /// Gives an order and returns the JSON it is answered with.
    pub(crate) async fn order(&mut self, order: &str) -> Result<Value, Box<dyn Error>> {
        self.stdin.write_all(format!("{order}\n").as_bytes()).await?;
        self.stdin.flush().await?;
        let answer = format!("{{{}", self.line("{").await?);
        Ok(serde_json::from_str(&answer)?)
    }

    /// Ends it at once, as a crash would.
    pub(crate) async fn kill(mut self) {
        let _ = self.child.kill().await;
    }

    /// Waits until it ends by itself; true when it did so cleanly.
    pub(crate) async fn ended(mut self) -> bool {
        matches!(timeout(PATIENCE, self.child.wait()).await, Ok(Ok(status)) if status.success())
    }
}
