//! Whether calls to a service prefer endpoints near the caller: `spec.trafficDistribution` of a Service, and the
//! annotation `networking.istio.io/traffic-distribution` of a Service or a ServiceEntry.
//!
//! As in Istio, it is a `failoverPriority` that needs no outlier detection, a DestinationRule with a
//! `localityLbSetting` goes before it, and the field goes before the annotation.

use super::read::Report;
use super::value::Labels;
use crate::analysis::{Code, Position};

pub(crate) const ANNOTATION: &str = "networking.istio.io/traffic-distribution";
/// The label of the node that a workload runs on.
pub(crate) const NODE_LABEL: &str = "kubernetes.io/hostname";
const NAMES: [(&str, TrafficDistribution); 3] = [
    ("PreferClose", TrafficDistribution::PreferSameZone),
    ("PreferSameZone", TrafficDistribution::PreferSameZone),
    ("PreferSameNode", TrafficDistribution::PreferSameNode),
];

/// Which endpoints of a service its callers prefer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficDistribution {
    /// None.
    #[default]
    Any,
    /// Those of their network, then of their region there, then of their zone there: the more agrees, the better.
    PreferSameZone,
    /// Likewise, and then of their sub-zone, and of their node.
    PreferSameNode,
}

impl TrafficDistribution {
    /// What a service says. An unknown word is reported and prefers nothing: newer Kubernetes may have more.
    pub(crate) fn of(
        field: Option<(&str, Position)>,
        annotations: &Labels,
        at: Position,
        report: &mut Report,
    ) -> Self {
        let known = |word: &str, same: fn(&str, &str) -> bool| {
            NAMES.iter().find(|(name, _)| same(name, word)).map(|(_, meaning)| *meaning)
        };
        if let Some((word, at)) = field {
            if let Some(meaning) = known(word, |name, word| name == word) {
                return meaning;
            }
            report.warn(Code::SchemaWarning, at, unknown("`trafficDistribution`", word));
        }
        let Some(word) = annotations.get(ANNOTATION) else { return Self::Any };
        if word.is_empty() || word.eq_ignore_ascii_case("any") {
            return Self::Any;
        }
        known(word, str::eq_ignore_ascii_case).unwrap_or_else(|| {
            report.warn(Code::SchemaWarning, at, unknown(&format!("annotation `{ANNOTATION}`"), word));
            Self::Any
        })
    }

    /// Labels that caller and endpoint should agree on, the first one first.
    pub fn labels(self) -> &'static [&'static str] {
        const ALL: [&str; 5] = [
            "topology.istio.io/network",
            "topology.kubernetes.io/region",
            "topology.kubernetes.io/zone",
            "topology.istio.io/subzone",
            NODE_LABEL,
        ];
        match self {
            Self::Any => &[],
            Self::PreferSameZone => ALL.first_chunk::<3>().map_or(&[], |labels| labels),
            Self::PreferSameNode => &ALL,
        }
    }
}

fn unknown(what: &str, word: &str) -> String {
    format!(
        "{what}: {word:?} is not known and prefers nothing: write PreferSameZone, PreferClose or PreferSameNode"
    )
}

#[cfg(test)]
mod tests {
    use super::{TrafficDistribution::*, *};
    use crate::model::{
        Object,
        fixture::{lines, parsed},
    };

    fn of(field: &str, annotation: &str) -> (TrafficDistribution, Vec<String>) {
        let parsed = parsed(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a, annotations: {{{ANNOTATION}: {annotation:?}}}}}\n\
             spec: {{{field}ports: [{{port: 1}}]}}\n"
        ));
        match parsed.objects.as_slice() {
            [Object::Service(object)] => (object.service.distribution, lines(&parsed)),
            _ => panic!("refused: {:#?}", lines(&parsed)),
        }
    }

    #[test]
    fn the_field_goes_before_the_annotation_which_has_no_case() {
        for (field, annotation, expected) in [
            ("", "", Any),
            ("", "any", Any),
            ("", "preferclose", PreferSameZone),
            ("", "PreferSameNode", PreferSameNode),
            ("trafficDistribution: PreferClose, ", "PreferSameNode", PreferSameZone),
            ("trafficDistribution: PreferSameZone, ", "", PreferSameZone),
            ("trafficDistribution: PreferSameNode, ", "any", PreferSameNode),
        ] {
            assert_eq!(of(field, annotation), (expected, vec![]), "{field} {annotation}");
        }
    }

    #[test]
    fn an_unknown_word_is_reported_and_prefers_nothing() {
        for (field, annotation, word) in
            [("trafficDistribution: PreferMoon, ", "", "PreferMoon"), ("", "PreferSun", "PreferSun")]
        {
            let (distribution, lines) = of(field, annotation);
            assert_eq!(distribution, Any);
            assert!(
                lines.len() == 1 && lines[0].contains(word) && lines[0].contains("PreferSameZone"),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn a_service_entry_says_it_by_its_annotation() {
        let parsed = parsed(&format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: a, annotations: {{{ANNOTATION}: PreferClose}}}}\n\
             spec: {{hosts: [a.example], ports: [{{number: 1, name: grpc, protocol: GRPC}}], resolution: STATIC, \
             endpoints: [{{address: 10.0.0.1}}]}}\n"
        ));
        let [Object::ServiceEntry(object)] = parsed.objects.as_slice() else {
            panic!("{:#?}", lines(&parsed))
        };
        assert_eq!(object.services[0].distribution, PreferSameZone);
    }
}
