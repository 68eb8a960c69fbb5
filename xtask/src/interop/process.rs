//! Processes: those that end by themselves, and those that are killed when their owner is done.

use super::Outcome;
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

/// Longer than anything a healthy process on a loaded machine takes to say its next line.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A running process, killed when dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts it; its standard error goes to `<logs>/<name>.log`.
    pub(super) fn start(name: &str, command: &mut Command, logs: &Path) -> Outcome<Self> {
        let log = logs.join(format!("{name}.log"));
        let mut child = without_proxy(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| format!("{name} ({}): {error}", command.get_program().display()))?;
        let (sender, lines) = channel();
        if let Some(stdout) = child.stdout.take() {
            // Ends with the process.
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let stdin = child.stdin.take();
        Ok(Self { name: name.to_owned(), child, stdin, lines, log })
    }

    /// The rest of the next line that starts with `prefix`; others are passed over.
    pub(super) fn line(&mut self, prefix: &str) -> Outcome<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            let why = match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.strip_prefix(prefix) {
                    Some(rest) => return Ok(rest.trim().to_owned()),
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) => format!("nothing within {PATIENCE:?}"),
                Err(RecvTimeoutError::Disconnected) => "it ended".to_owned(),
            };
            return Err(format!(
                "{} did not say `{prefix}`: {why}. Its log ends with:\n{}",
                self.name,
                tail(&self.log)
            )
            .into());
        }
    }

    /// Writes a line to its standard input.
    pub(super) fn tell(&mut self, line: &str) -> Outcome {
        let stdin = self.stdin.as_mut().ok_or("its standard input is closed")?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(|error| {
            format!("{} does not listen: {error}. Its log ends with:\n{}", self.name, tail(&self.log)).into()
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Peers must not look for the mesh behind a proxy of the machine's.
pub(super) fn without_proxy(command: &mut Command) -> &mut Command {
    for variable in ["http_proxy", "https_proxy", "grpc_proxy", "all_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command
}

/// Runs a command to its end, its output in `log`, and shows the end of that when it fails.
pub(super) fn finish(command: &mut Command, log: &Path, within: Duration) -> Outcome {
    let what = command.get_program().display().to_string();
    let file = File::create(log)?;
    let stderr = file.try_clone()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(stderr)
        .spawn()
        .map_err(|error| format!("{what}: {error}"))?;
    let begun = Instant::now();
    let why = loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => break status.to_string(),
            None if begun.elapsed() > within => {
                drop(child.kill());
                drop(child.wait());
                break format!("not done after {within:?}");
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    Err(format!("{what}: {why}:\n{}", tail(log)).into())
}

fn tail(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(15)).map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_process_that_ends_too_early_shows_its_log() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = Process::start("p", &mut sh("echo other; echo no port >&2"), logs.path()).unwrap();
        let error = process.line("ready").unwrap_err().to_string();
        assert!(error.contains("p did not say `ready`: it ended") && error.contains("no port"), "{error}");
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let logs = tempfile::tempdir().unwrap();
        let mut process = Process::start("p", &mut sh("echo pid $$; exec sleep 100"), logs.path()).unwrap();
        let pid = process.line("pid ").unwrap();
        drop(process);
        assert!(!sh(&format!("kill -0 {pid} 2>/dev/null")).status().unwrap().success());
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        finish(&mut sh("true"), &log, PATIENCE).unwrap();
        let error = finish(&mut sh("echo why; exit 3"), &log, PATIENCE).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.contains("why"), "{error}");
        let error = finish(&mut sh("exec sleep 100"), &log, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("not done after"), "{error}");
    }
}
