//! The targets of the data path and of the control plane with what was measured beside each: read from the tables of the same document, so
//! that a value stands nowhere twice and none is written by hand.

const INSTRUCTIONS: &str = "Instructions for a call";
const ALLOCATIONS: &str = "Allocations for a call";
const MEMORY: &str = "Memory of a client that sends 1 GiB";
const ONE_THREAD: &str = "Client and server on one thread";
const LOAD: &str = "Two processes, one thread each, pinned: 64 bytes, 64 in flight";
const LOAD_OF_TWO: &str = "Two processes, 2 threads each: 64 bytes, 64 in flight";
const ONE_CALLER: &str = "Two processes, one thread each, pinned: 64 bytes, 1 in flight";
const PEERS_LOAD: &str = "Beside peers, one thread each, pinned: 64 bytes, 64 in flight";
const PEERS_LOAD_OF_TWO: &str = "Beside peers, 2 threads each: 64 bytes, 64 in flight";
const PEERS_ONE_CALLER: &str = "Beside peers, one thread each, pinned: 64 bytes, 1 in flight";

const CHANGE: &str = "Times of a change of one endpoint";
const PICK: &str = "Times of a pick";
const REST: &str = "Memory at rest";
const SCALE: &str = "A change in a large mesh";
/// Sizes of a mesh, services and endpoints of each.
const LARGE: &str = "1000 × 10";
const SMALL: &str = "100 × 10";

const TONIC: &str = "tonic `Channel`";
const MESH: &str = "`MeshChannel`, one route";
const MESH_TLS: &str = "`MeshChannel`, mTLS";
const MESH_RETRY: &str = "`MeshChannel`, default retries";
const TONIC_XDS: &str = "tonic-xds, one route";
const ENVOY: &str = "Envoy, one hop";
const ENVOY_TLS: &str = "Envoy, two hops with mTLS";

const BENCH: &str = "`cargo xtask bench`";
const GATE_ALLOCATIONS: &str = "`cargo test -p mesh-bench --test allocations`";
const GATE_INSTRUCTIONS: &str = "`cargo test -p mesh-bench --test instructions` (where valgrind is)";
const BENCH_SCALE: &str = "`cargo xtask bench --scale`";
const GATE_STREAMS: &str =
    "`cargo test -p mesh-bench --test streams`, `cargo test -p mesh-xds --lib server::counts`";
/// What prints the tables that stand in the document by hand.
const TIMES: &str = "`cargo test --release -p mesh-client --lib the_times_of -- --ignored`";
const NONE: &str = "–";
const MISSING: &str = "not measured";

/// The tables of a document.
struct Tables<'a>(&'a str);

impl Tables<'_> {
    /// The cells in this column (0 is the label) of the rows with this label, under this heading.
    fn cells<'a>(&'a self, heading: &str, label: &'a str, column: usize) -> impl Iterator<Item = &'a str> {
        let is_it = |line: &&str| line.strip_prefix("### ").is_some_and(|title| title.starts_with(heading));
        let mut lines = self.0.lines();
        lines.by_ref().find(is_it);
        lines.take_while(|line| !line.starts_with('#')).filter_map(move |line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            (cells.first() == Some(&label)).then(|| cells.get(column).copied())?
        })
    }

    /// Of a change of an endpoint's weight in a large mesh of this size: incremental streams and state of the world.
    fn scale<'a>(&'a self, mesh: &'a str, column: usize) -> [Option<&'a str>; 2] {
        let all = |column| self.cells(SCALE, mesh, column).collect::<Vec<_>>();
        let (kinds, changes, cells) = (all(1), all(2), all(column));
        ["Delta", "Sotw"].map(|kind| {
            let is_it = |at: &usize| kinds.get(*at) == Some(&kind) && changes[*at] == "an endpoint's weight";
            (0..kinds.len()).find(is_it).and_then(|at| cells.get(at).copied())
        })
    }

    /// The same, to be read.
    fn scale_shown(&self, mesh: &str, column: usize) -> String {
        self.scale(mesh, column).map(|cell| cell.unwrap_or(MISSING)).join(" / ")
    }

    /// What it costs in the large mesh against the small one.
    fn scale_ratio(&self, column: usize) -> String {
        let number = |cell: Option<&str>| cell?.parse::<f64>().ok();
        let (large, small) = (self.scale(LARGE, column).map(number), self.scale(SMALL, column).map(number));
        let ratio = |(large, small): (Option<f64>, Option<f64>)| {
            large.zip(small).map_or(MISSING.to_owned(), |(large, small)| format!("{:.2}", large / small))
        };
        [ratio((large[0], small[0])), ratio((large[1], small[1]))].join(" / ")
    }

    /// That of the first row.
    fn cell<'a>(&'a self, heading: &str, label: &'a str, column: usize) -> Option<&'a str> {
        self.cells(heading, label, column).next()
    }

    /// The largest number of them.
    fn largest(&self, heading: &str, label: &str, column: usize) -> String {
        let numbers = self.cells(heading, label, column).filter_map(|cell| cell.parse::<f64>().ok());
        let largest = numbers.reduce(f64::max);
        largest.map_or(MISSING.to_owned(), |number| number.to_string())
    }

    /// The same, to be read; what is not there is said to be missing.
    fn shown(&self, heading: &str, label: &str, column: usize) -> String {
        self.cell(heading, label, column).unwrap_or(MISSING).to_owned()
    }

    fn number(&self, heading: &str, label: &str, column: usize) -> Option<f64> {
        self.cell(heading, label, column)?.split(' ').next()?.parse().ok()
    }

    /// One row's number against another's.
    fn compared(
        &self,
        (heading, column): (&str, usize),
        of: &str,
        to: &str,
        relation: fn(f64, f64) -> String,
    ) -> String {
        let numbers = self.number(heading, of, column).zip(self.number(heading, to, column));
        numbers.map_or(MISSING.to_owned(), |(of, to)| relation(of, to))
    }

    fn ratio(&self, at: (&str, usize), of: &str, to: &str) -> String {
        self.compared(at, of, to, |of, to| format!("{:.3}", of / to))
    }

    fn added(&self, at: (&str, usize), of: &str, to: &str) -> String {
        self.compared(at, of, to, |of, to| format!("{:+.0}", of - to))
    }

    /// The rows that compare loads: ours, and the peers' where they were measured.
    fn load(&self, what: &str, target: &str, ours: (&str, &str), peers: &str, column: usize) -> [String; 7] {
        let mut envoy = self.shown(peers, ENVOY, column);
        envoy += &format!(" (two hops with mTLS: {})", self.shown(peers, ENVOY_TLS, column));
        let (heading, label) = ours;
        [
            what.into(),
            target.into(),
            self.shown(heading, label, column),
            "1".into(),
            self.shown(peers, TONIC_XDS, column),
            envoy,
            format!("{BENCH}, `--peers`"),
        ]
    }
}

/// Made of what the document says.
pub(super) fn table(document: &str) -> String {
    let tables = Tables(document);
    let row = |what: &str, target: &str, measured: String, tonic: String, held: &str| {
        [what.into(), target.into(), measured, tonic, NONE.into(), NONE.into(), format!("{BENCH}; {held}")]
    };
    let own = |what: &str, target: &str, measured: String, by: String| {
        [what.into(), target.into(), measured, NONE.into(), NONE.into(), NONE.into(), by]
    };
    let many = |what: &str| tables.ratio((INSTRUCTIONS, 2), what, MESH);
    let memory = |of: &str| tables.added((MEMORY, 3), of, TONIC);
    let rows: Vec<[String; 7]> = vec![
        row(
            "added to a raw hyper HTTP/2 call by the whole stack: instructions",
            "≤ 1,500 (hard 3,000)",
            tables.shown(INSTRUCTIONS, MESH, 4),
            tables.shown(INSTRUCTIONS, TONIC, 4),
            GATE_INSTRUCTIONS,
        ),
        row(
            "… nanoseconds of processor time, both ends",
            "≤ 300 (hard 500)",
            tables.shown(ONE_THREAD, MESH, 4),
            tables.shown(ONE_THREAD, TONIC, 4),
            "no gate: a time",
        ),
        row(
            "… allocations",
            "≤ 3",
            tables.shown(ALLOCATIONS, MESH, 3),
            tables.shown(ALLOCATIONS, TONIC, 3),
            GATE_ALLOCATIONS,
        ),
        tables.load(
            "throughput against a plain tonic channel, 64 B unary, 64 callers, pinned",
            "≥ 1.00",
            (LOAD, MESH),
            PEERS_LOAD,
            2,
        ),
        tables.load("same, 2 workers unpinned", "≥ 1.00", (LOAD_OF_TWO, MESH), PEERS_LOAD_OF_TWO, 2),
        row(
            "mTLS against tonic mTLS, same load, pinned",
            "≥ 1.00",
            tables.shown(LOAD, MESH_TLS, 2),
            "1".into(),
            "no gate: a time",
        ),
        tables.load("p50, one caller", "≤ 1.00 ×", (ONE_CALLER, MESH), PEERS_ONE_CALLER, 4),
        row(
            "1,000 routes before the match: instructions against one",
            "0.90 to 1.10",
            many("`MeshChannel`, 1,000 routes"),
            NONE.into(),
            GATE_INSTRUCTIONS,
        ),
        row(
            "1,000 virtual hosts before the match: instructions against one",
            "0.90 to 1.10",
            many("`MeshChannel`, 1,000 virtual hosts"),
            NONE.into(),
            GATE_INSTRUCTIONS,
        ),
        row(
            "retry policy present, call succeeds at once: allocations added",
            "≤ 3",
            tables.compared((ALLOCATIONS, 1), MESH_RETRY, MESH, |of, to| format!("{:+.1}", of - to)),
            NONE.into(),
            GATE_ALLOCATIONS,
        ),
        row(
            "1 GiB client stream: peak resident KiB more than plain tonic's, without / with retry policy",
            "≤ 1,024 (+ 64 that may be replayed)",
            format!("{} / {}", memory(MESH), memory(MESH_RETRY)),
            "0".into(),
            GATE_ALLOCATIONS,
        ),
        own(
            "a pick among 10,000 endpoints / among 10, ns",
            "as with 10",
            ["round robin", "Maglev", "least request"]
                .map(|policy| {
                    let (many, few) = (tables.shown(PICK, policy, 2), tables.shown(PICK, policy, 1));
                    format!("{policy} {many} / {few}")
                })
                .join(", "),
            format!("{TIMES}; no gate: a time"),
        ),
        own(
            "one of 10,000 endpoints changes: µs until calls see it, the longest",
            "≤ 1,000, no connection lost",
            tables.largest(CHANGE, "10000", 5),
            format!("{TIMES}; `cargo test -p mesh-client --lib among_many` (the connections, of 200)"),
        ),
        own(
            "an idle cluster / an idle endpoint: KiB",
            "≤ 16 / ≤ 2",
            format!(
                "{} / {}",
                tables.shown(REST, "an idle cluster", 1),
                tables.shown(REST, "an idle endpoint", 1)
            ),
            "`cargo test -p mesh-client --lib an_idle_endpoint_and_an_idle_cluster`".into(),
        ),
        own(
            "control plane of 1,000 services × 10 endpoints with 2,000 streams: an endpoint changes: ms until the \
             last stream that follows it has it, the longest; incremental / state of the world",
            "≤ 250",
            tables.scale_shown(LARGE, 7),
            format!("{BENCH_SCALE}; no gate: a time"),
        ),
        own(
            "… processor time of that change, with 1,000 services against 100; incremental / state of the world",
            "as with 100 (≤ 1.25)",
            tables.scale_ratio(3),
            format!("{BENCH_SCALE}; {GATE_STREAMS} (allocations, and what a view is asked)"),
        ),
        own(
            "… resident KiB of an idle stream that follows 50 services; incremental / state of the world",
            "≤ 64",
            tables.scale_shown(LARGE, 8),
            format!("{BENCH_SCALE}; {GATE_STREAMS} (bytes allocated)"),
        ),
    ];
    let mut text = String::from(
        "| what | target | measured | plain tonic | tonic-xds | Envoy sidecar | measured by; held by |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for cells in rows {
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
### Times of a change of one endpoint

| endpoints | one of them | compare µs | adopt µs | settle and publish µs | together µs | allocations |
|---|---|---|---|---|---|---|
| 1000 | joins or leaves | 0.1 | 35.2 | 32.1 | 867.5 | 56 |
| 10000 | changes its weight | 0.3 | 190.0 | 118.3 | 308.7 | 52 |
| 10000 | joins or leaves | 0.7 | 394.0 | 298.6 | 693.3 | 64 |
| 10000 | is lost or comes back | 0.0 | 0.1 | 44.9 | 45.0 | 36 |

### A change in a large mesh: 2000 streams

| services × endpoints | streams | what changes | CPU ms | bytes | resources | median ms | most ms | KiB |
|---|---|---|---|---|---|---|---|---|
| 1000 × 10 | Delta | a cluster's identities | 99 | 9 | 9 | 99 | 99 | 99 |
| 1000 × 10 | Delta | an endpoint's weight | 24.0 | 1120 | 1.0 | 16.9 | 22.1 | 40.3 |
| 1000 × 10 | Sotw | an endpoint's weight | 21.0 | 1054 | 1.0 | 15.0 | 19.9 | 41.2 |
| 100 × 10 | Delta | an endpoint's weight | 20.0 | 1119 | 1.0 | 14.0 | 24.2 | 40.0 |

### Memory at rest

| | KiB |
|---|---|
| an idle cluster | 10.7 |
| an idle endpoint | 1.9 |

### Instructions for a call, client only

| | bytes | instructions | added to tonic | added to hyper |
|---|---|---|---|---|
| tonic `Channel` | 64 | 200 | +0 | +50 |
| `MeshChannel`, one route | 64 | 100 | -100 | -50 |
| `MeshChannel`, 1,000 routes | 64 | 105 | -95 | -45 |
| `MeshChannel`, one route | 16384 | 900 | -100 | -50 |

### Beside peers, one thread each, pinned: 64 bytes, 64 in flight

| | calls/s | ratio |
|---|---|---|
| tonic-xds, one route | 870 | 0.870 [0.860 .. 0.880] |
";

    #[test]
    fn a_value_is_that_of_the_first_row_with_the_label() {
        let tables = Tables(DOCUMENT);
        assert_eq!(tables.cell(INSTRUCTIONS, MESH, 2), Some("100"));
        assert_eq!(tables.cell(INSTRUCTIONS, TONIC_XDS, 2), None, "it is in another table");
        assert_eq!(tables.ratio((INSTRUCTIONS, 2), "`MeshChannel`, 1,000 routes", MESH), "1.050");
        assert_eq!(tables.added((INSTRUCTIONS, 2), MESH, TONIC), "-100");
    }

    #[test]
    fn the_table_has_what_was_measured_and_says_what_was_not() {
        let table = table(DOCUMENT);
        let row = |what: &str| table.lines().find(|line| line.contains(what)).unwrap().to_owned();
        assert!(row("whole stack: instructions").contains("| -50 | +50 |"), "{table}");
        assert!(row("throughput").contains("| not measured | 1 | 0.870 [0.860 .. 0.880] |"), "{table}");
        assert!(
            row("one of 10,000 endpoints").contains("| ≤ 1,000, no connection lost | 693.3 |"),
            "{table}"
        );
        assert!(row("an idle cluster").contains("| ≤ 16 / ≤ 2 | 10.7 / 1.9 |"), "{table}");
        assert!(row("≤ 250").contains("| ≤ 250 | 22.1 / 19.9 |"), "{table}");
        assert!(row("processor time of that change").contains("| 1.20 / not measured |"), "{table}");
        assert!(row("resident KiB of an idle stream").contains("| ≤ 64 | 40.3 / 41.2 |"), "{table}");
        assert!(row("a pick among").contains("least request not measured / not measured |"), "{table}");
        assert!(
            table.lines().skip(2).filter(|line| !line.is_empty()).all(|line| line.split('|').count() == 9)
        );
    }
}
