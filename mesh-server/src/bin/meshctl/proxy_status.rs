//! `meshctl proxy-status`: `/debug/syncz` as a table. What clients say of themselves stands escaped in it.

use crate::{
    Outcome,
    output::{show, show_json},
};
use clap::Args;
use mesh_xds::printable::line;
use serde::Deserialize;
use std::{
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Show who is connected and what each has acknowledged.
///
/// Exits with 1 when some client is not in sync.
#[derive(Debug, Args)]
pub(crate) struct ProxyStatus {
    /// The server's HTTP port.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    http: SocketAddr,
    /// Print the JSON as it comes.
    #[arg(long)]
    json: bool,
}

#[derive(Deserialize)]
struct Syncz {
    revision: String,
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    node: String,
    user_agent: String,
    peer: String,
    connected_since: f64,
    synced: bool,
    acked_revision: Option<String>,
    types: Vec<Type>,
}

#[derive(Deserialize)]
struct Type {
    #[serde(rename = "type")]
    kind: String,
    sent_revision: Option<String>,
    acked_revision: Option<String>,
    #[serde(default)]
    rejected: Vec<String>,
    last_nack: Option<Nack>,
}

#[derive(Deserialize)]
struct Nack {
    revision: String,
    text: String,
}

const TYPES: [&str; 4] = ["CDS", "EDS", "LDS", "RDS"];
const PATIENCE: Duration = Duration::from_secs(5);

impl ProxyStatus {
    pub(crate) fn run(self) -> Outcome {
        let body = fetch(self.http, "/debug/syncz")
            .map_err(|error| format!("http://{}/debug/syncz: {error} (--http)", self.http))?;
        let status: Syncz = serde_json::from_str(&body)?;
        if self.json {
            show_json(&body)?;
        } else {
            show(&table(&status, now()))?;
        }
        let synced = status.streams.iter().all(|stream| stream.synced);
        Ok(if synced { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// One GET over HTTP/1.1; the server is ours.
fn fetch(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(status.to_owned().into());
    }
    Ok(body.to_owned())
}

fn table(status: &Syncz, now: f64) -> String {
    let mut rows = vec![["NODE", "PEER", "CLIENT", "SINCE"].map(str::to_owned).to_vec()];
    if let Some(header) = rows.first_mut() {
        header.extend(TYPES.map(str::to_owned));
        header.push("ACKNOWLEDGED".to_owned());
    }
    for stream in &status.streams {
        let mut row = vec![
            line(&stream.node).into_owned(),
            line(&stream.peer).into_owned(),
            line(&stream.user_agent).into_owned(),
            ago(now - stream.connected_since),
        ];
        row.extend(TYPES.map(|kind| {
            let found = stream.types.iter().find(|one| one.kind == kind);
            found.map_or("-", |one| one.word(&status.revision)).to_owned()
        }));
        row.push(line(stream.acked_revision.as_deref().unwrap_or("-")).into_owned());
        rows.push(row);
    }
    let columns = rows.first().map_or(0, Vec::len);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out.push_str(&format!("{} clients; revision {}\n", status.streams.len(), line(&status.revision)));
    for stream in &status.streams {
        for (kind, nack) in stream.types.iter().filter_map(|one| Some((one, one.last_nack.as_ref()?))) {
            let now = if kind.rejected.is_empty() { "rejected" } else { "rejects" };
            out.push_str(&format!(
                "\n{} {now} {} of revision {}:\n",
                line(&stream.node),
                line(&kind.kind),
                line(&nack.revision)
            ));
            // Our clients name one fault a line.
            nack.text.lines().for_each(|fault| out.push_str(&format!("  {}\n", line(fault))));
        }
    }
    out
}

impl Type {
    fn word(&self, revision: &str) -> &'static str {
        match (&self.sent_revision, &self.acked_revision) {
            _ if !self.rejected.is_empty() => "REJECTED",
            (None, _) => "NOT SENT",
            (_, Some(acked)) if acked == revision => "SYNCED",
            _ => "STALE",
        }
    }
}

fn ago(seconds: f64) -> String {
    match seconds.max(0.0) {
        seconds if seconds < 60.0 => format!("{seconds:.0}s"),
        seconds if seconds < 3600.0 => format!("{:.0}m", seconds / 60.0),
        seconds => format!("{:.0}h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_says_whether_the_client_has_what_is_served() {
        let kind = |kind: &str, sent: Option<&str>, acked: Option<&str>, nack: Option<&str>| {
            let nack = nack.map(|text| serde_json::json!({"revision": "r2", "text": text, "at": 0.0}));
            serde_json::json!({
                "type": kind, "sent_revision": sent, "acked_revision": acked,
                "rejected": nack.iter().map(|_| "x").collect::<Vec<_>>(), "last_nack": nack,
            })
        };
        let json = serde_json::json!({
            "revision": "r2",
            "streams": [{
                "node": "n", "user_agent": "gRPC", "peer": "anonymous", "connected_since": 0.0,
                "synced": false, "acked_revision": "r1",
                "types": [
                    kind("LDS", Some("r2"), Some("r2"), None),
                    kind("RDS", Some("r2"), Some("r1"), None),
                    kind("CDS", Some("r2"), Some("r1"), Some("bad cluster")),
                    kind("EDS", None, None, None),
                ],
            }],
        });
        let status: Syncz = serde_json::from_value(json).unwrap();
        let text = table(&status, 90.0);
        assert_eq!(
            text,
            "NODE  PEER       CLIENT  SINCE  CDS       EDS       LDS     RDS    ACKNOWLEDGED\n\
             n     anonymous  gRPC    2m     REJECTED  NOT SENT  SYNCED  STALE  r1\n\
             1 clients; revision r2\n\n\
             n rejects CDS of revision r2:\n  bad cluster\n"
        );
    }

    #[test]
    fn what_a_client_says_begins_no_row_and_drives_no_terminal() {
        let said = "x\nforged\r\u{1b}[2J\u{9b}2J\u{202e}";
        let nack = serde_json::json!({"revision": said, "text": said, "at": 0.0});
        let json = serde_json::json!({
            "revision": said,
            "streams": [{
                "node": said, "user_agent": said, "peer": said, "connected_since": 0.0,
                "synced": false, "acked_revision": said,
                "types": [{"type": "CDS", "rejected": ["x"], "last_nack": nack}],
            }],
        });
        let text = table(&serde_json::from_value(json).unwrap(), 90.0);
        assert_eq!(mesh_xds::printable::except(&text, &['\n']), text);
        let rows: Vec<_> = text.lines().collect();
        assert_eq!(rows.len(), 7, "{text}");
        assert!(rows[1].starts_with(r"x\nforged\r\u{1b}[2J\u{9b}2J\u{202e}  x\n"), "{text}");
        assert_eq!(rows[5..], ["  x", r"  forged\r\u{1b}[2J\u{9b}2J\u{202e}"], "a fault a line, below");
    }
}
