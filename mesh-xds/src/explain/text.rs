//! An explanation as an indented tree, in which lines are ours: what others said stands escaped.

use super::{
    Cluster, Decision, Destination, Endpoint, EndpointState, Explanation, Hashed, Place, Route, Setting,
    Verdict,
};
use crate::{printable::line, resource::Origin};
use std::fmt::{self, Display, Formatter, Write};

impl Place {
    /// Where a setting of a resource was written. A control plane that says nothing of settings is not taken
    /// to mean that all of them are defaults.
    pub(super) fn of(origin: Option<&Origin>, setting: &str) -> Self {
        match origin {
            Some(origin) => match origin.setting(setting) {
                Some(place) => Self::Written(place.clone()),
                None if origin.settings().is_some() => Self::Default,
                None => Self::Unknown,
            },
            None => Self::Unknown,
        }
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Written(place) => f.write_str(&line(place)),
            Self::Default => f.write_str("default"),
            Self::Unknown => Ok(()),
        }
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", line(&self.target), line(&self.path))?;
        match &self.version {
            Some(version) => writeln!(f, "configuration {} of {}", line(version), line(&self.source))?,
            None => writeln!(f, "configuration of {}", line(&self.source))?,
        }
        if let Some(host) = &self.virtual_host {
            write!(f, "virtual host {}", line(&host.name))?;
            match &host.domain {
                Some(domain) => writeln!(f, ", by its domain {}", line(domain))?,
                None => f.write_char('\n')?,
            }
        }
        if !self.routes.is_empty() {
            f.write_str("\nroutes, the first that matches decides\n")?;
            routes(f, &self.routes)?;
        }
        for decision in &self.decisions {
            self.decision(f, decision)?;
        }
        for cluster in &self.clusters {
            self::cluster(f, cluster)?;
        }
        match &self.failure {
            Some(failure) => writeln!(f, "\nthe call fails: {}", line(failure)),
            None => Ok(()),
        }
    }
}

fn routes(f: &mut Formatter<'_>, routes: &[Route]) -> fmt::Result {
    for (index, route) in routes.iter().enumerate() {
        if route.verdict == Verdict::NotReached {
            let rest = routes.len() - index;
            let what = if rest == 1 { "the last one is".to_owned() } else { format!("{rest} more are") };
            return writeln!(f, "  {what} not looked at");
        }
        write!(f, "  {}. ", index + 1)?;
        named(f, &route.name, route.origin.as_deref())?;
        write!(f, "\n     takes {}", line(&route.condition))?;
        if let place @ Place::Written(_) = &route.condition_origin {
            write!(f, "  ({place})")?;
        }
        f.write_char('\n')?;
        match &route.verdict {
            Verdict::Matched => f.write_str("     MATCHES\n")?,
            Verdict::Sometimes { percent } => {
                writeln!(f, "     MATCHES, for {} of such requests", share(*percent))?
            }
            Verdict::Rejected { reason } => writeln!(f, "     no: {}", line(reason))?,
            Verdict::NotReached => {}
        }
    }
    Ok(())
}

/// `name (origin)`, either of which may be missing.
fn named(f: &mut Formatter<'_>, name: &str, origin: Option<&str>) -> fmt::Result {
    match (&*line(name), origin.map(line)) {
        ("", None) => f.write_str("(no name)"),
        ("", Some(origin)) => f.write_str(&origin),
        (name, None) => f.write_str(name),
        (name, Some(origin)) => write!(f, "{name} ({origin})"),
    }
}

impl Explanation {
    fn decision(&self, f: &mut Formatter<'_>, decision: &Decision) -> fmt::Result {
        match self.decisions.len() {
            1 => writeln!(f, "\nroute {} decides", decision.route + 1)?,
            _ => writeln!(f, "\nroute {} decides for {}", decision.route + 1, share(decision.share))?,
        }
        if let Some(failure) = &decision.failure {
            writeln!(f, "  it cannot be used by a client: {}", line(failure))?;
        }
        settings(f, 2, &decision.settings)?;
        let mirrored = decision.mirrors.iter().map(|mirror| ("copy", mirror));
        for (kind, destination) in decision.destinations.iter().map(|one| ("to", one)).chain(mirrored) {
            let Destination { cluster, share: percent, origin, settings: own, hashed } = destination;
            let how = match (kind, *percent) {
                ("to", 100.0) => String::new(),
                (_, percent) => format!("{} ", share(percent)),
            };
            write!(f, "  {how}{kind} {}", line(cluster))?;
            match origin {
                Place::Written(_) => writeln!(f, "  ({origin})")?,
                Place::Default | Place::Unknown => f.write_char('\n')?,
            }
            settings(f, 4, own)?;
            if let Some(hashed) = hashed {
                self::hashed(f, hashed)?;
            }
        }
        Ok(())
    }
}

fn hashed(f: &mut Formatter<'_>, hashed: &Hashed) -> fmt::Result {
    if let Some(session) = hashed.session {
        writeln!(
            f,
            "    its session is with {session}, which goes before its hash; if that one cannot be had:"
        )?;
    }
    match hashed {
        Hashed { hash: None, note: None, .. } => {
            f.write_str("    it has nothing that is hashed: any endpoint may be picked\n")
        }
        Hashed { hash: None, note: Some(note), .. } => {
            writeln!(f, "    its hash is not known here: {}", line(note))
        }
        Hashed { hash: Some(hash), endpoint: None, note: None, .. } => {
            writeln!(f, "    its hash {hash} leads nowhere: no endpoint takes calls")
        }
        Hashed { hash: Some(hash), endpoint: None, note: Some(note), .. } => {
            writeln!(f, "    where its hash {hash} leads is not known here: {}", line(note))
        }
        Hashed { hash: Some(hash), endpoint: Some(endpoint), ready, session: _, note } => {
            write!(f, "    its hash {hash} leads to {endpoint}")?;
            if *ready == Some(false) {
                f.write_str(", which is not connected: the call waits for it")?;
            }
            match note {
                Some(note) => writeln!(f, "; {}", line(note)),
                None => f.write_char('\n'),
            }
        }
    }
}

/// One a line, in columns: name, value, place.
fn settings(f: &mut Formatter<'_>, indent: usize, settings: &[Setting]) -> fmt::Result {
    const WIDEST: usize = 48;
    let name = settings.iter().map(|setting| setting.name.len()).max().unwrap_or(0);
    let lengths = settings.iter().map(|setting| line(&setting.value).chars().count());
    let value = lengths.filter(|length| *length <= WIDEST).max().unwrap_or(0);
    for setting in settings {
        let place = setting.origin.to_string();
        let row = format!("{:indent$}{:name$}  {:value$}  {place}", "", setting.name, line(&setting.value));
        writeln!(f, "{}", row.trim_end())?;
    }
    Ok(())
}

fn cluster(f: &mut Formatter<'_>, cluster: &Cluster) -> fmt::Result {
    f.write_str("\ncluster ")?;
    named(f, &cluster.name, cluster.origin.as_deref())?;
    f.write_char('\n')?;
    if let Some(failure) = &cluster.failure {
        return writeln!(f, "  calls cannot be sent to it: {}", line(failure));
    }
    settings(f, 2, &cluster.settings)?;
    if let Some(state) = &cluster.live {
        write!(f, "  {} calls in flight", state.in_flight)?;
        if state.high_priority_in_flight > 0 {
            write!(f, " ({} of priority HIGH)", state.high_priority_in_flight)?;
        }
        if state.refused > 0 {
            write!(f, ", {} refused by circuit breakers so far", state.refused)?;
        }
        if let Some(priority) = state.priority {
            write!(f, ", priority {priority} in use")?;
        }
        if let Some(leaf) = &state.leaf {
            write!(f, ", cluster {} in use", line(leaf))?;
        }
        if let Some(why) = &state.unavailable {
            write!(f, ", {}", line(why))?;
        }
        f.write_char('\n')?;
        if let Some(zones) = &state.zone_routing {
            writeln!(f, "  zone-aware routing: {}", line(zones))?;
        }
    }
    if let Some(note) = &cluster.note {
        writeln!(f, "  note: {}", line(note))?;
    }
    if !cluster.leaves.is_empty() {
        return Ok(());
    }
    if cluster.endpoints.is_empty() {
        return f.write_str("  no endpoints are known\n");
    }
    let picked = cluster.endpoints.iter().filter(|endpoint| endpoint.not_picked.is_none()).count();
    writeln!(f, "  endpoints: {picked} of {} may be picked", cluster.endpoints.len())?;
    cluster.endpoints.iter().try_for_each(|one| endpoint(f, one))
}

fn endpoint(f: &mut Formatter<'_>, endpoint: &Endpoint) -> fmt::Result {
    write!(f, "    {}  priority {}, ", endpoint.address, endpoint.priority)?;
    if !endpoint.locality.is_empty() {
        write!(f, "{} (weight {}), ", line(&endpoint.locality), endpoint.locality_weight)?;
    }
    let tls = if endpoint.tls { "TLS" } else { "plaintext" };
    write!(f, "weight {}, {tls}, ", endpoint.weight)?;
    if let Some(proxy) = endpoint.proxy {
        write!(f, "through proxy {proxy}, ")?;
    }
    f.write_str(health(endpoint.health))?;
    if let Some(live) = &endpoint.live {
        let EndpointState {
            connectivity,
            in_flight,
            ejected_for_ms,
            ejections,
            last_failure: _,
            load_weight,
            no_load_weight,
        } = live;
        write!(f, ", {connectivity}, {in_flight} in flight")?;
        if let Some(weight) = load_weight {
            write!(f, ", weight {weight:.3} by its load")?;
        }
        if let Some(why) = no_load_weight {
            write!(f, ", weighs as much as the others do on average ({why})")?;
        }
        if let Some(left) = ejected_for_ms {
            write!(f, ", ejected for {:.1} s more", std::time::Duration::from_millis(*left).as_secs_f64())?;
        }
        if *ejections > 0 {
            write!(f, ", ejected {ejections} times lately")?;
        }
    }
    match &endpoint.not_picked {
        Some(why) => writeln!(f, ": not picked, {}", line(why)),
        None => writeln!(f, ": may be picked"),
    }
}

fn health(health: &str) -> &str {
    if health == "unknown" { "health not said" } else { health }
}

/// A share in percent, with as many decimals as it takes, at most two.
fn share(percent: f64) -> String {
    let text = format!("{percent:.2}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}
