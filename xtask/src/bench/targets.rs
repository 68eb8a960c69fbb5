//! The targets of the data path with what was measured beside each: read from the tables of the same document, so
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
const NONE: &str = "–";

/// The tables of a document.
struct Tables<'a>(&'a str);

impl Tables<'_> {
    /// The cell in this column (0 is the label) of the first row with this label, under this heading.
    fn cell(&self, heading: &str, label: &str, column: usize) -> Option<&str> {
        let mut lines = self.0.lines();
        lines.find(|line| line.strip_prefix("### ").is_some_and(|title| title.starts_with(heading)))?;
        let mut section = lines.take_while(|line| !line.starts_with('#'));
        section.find_map(|line| {
            let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
            (cells.first() == Some(&label)).then(|| cells.get(column).copied())?
        })
    }

    /// The same, to be read; what is not there is said to be missing.
    fn shown(&self, heading: &str, label: &str, column: usize) -> String {
        self.cell(heading, label, column).unwrap_or("not measured").to_owned()
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
        numbers.map_or("not measured".to_owned(), |(of, to)| relation(of, to))
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
    ];
    let mut text = String::from(
        "| what, client side | target | measured | plain tonic | tonic-xds | Envoy sidecar | measured by; held by |\n\
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
            table.lines().skip(2).filter(|line| !line.is_empty()).all(|line| line.split('|').count() == 9)
        );
    }
}
