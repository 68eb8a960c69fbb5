//! Composite, to and from protobuf.

use super::{Composite, CompositeAction};
use crate::{
    field_path::{Faults, Path},
    matcher::{Fraction, MatcherTree},
    resource::{
        Feature,
        canonical::{self, Inside, Shape},
        filter::{
            self, FilterConfig, FilterOverride,
            registry::{self, BOTH, Kind, Scope},
        },
        wire::{self, tree},
    },
};
use envoy_types::pb::{
    envoy::{
        config::core::v3::TypedExtensionConfig,
        extensions::{
            common::matching::v3::{ExtensionWithMatcher, ExtensionWithMatcherPerRoute},
            filters::{
                common::matcher::action::v3::SkipFilter,
                http::composite::v3::{Composite as Proto, ExecuteFilterAction, FilterChainConfiguration},
            },
        },
    },
    google::protobuf::Any,
};
use prost::{Message, Name};
use std::sync::Arc;

pub(in crate::resource) static KIND: Kind = Kind {
    message: "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
    sides: BOTH,
    feature: Some(Feature::CompositeFilter),
    read: |any, scope, at, faults| {
        let composite = parse(&wire::unpack(any, at, faults)?, scope, at, faults)?;
        Some(FilterConfig::Composite(Arc::new(composite)))
    },
    per_route: Some((
        "envoy.extensions.common.matching.v3.ExtensionWithMatcherPerRoute",
        |any, scope, at, faults| {
            let proto: ExtensionWithMatcherPerRoute = wire::unpack(any, at, faults)?;
            let at = at.field("xds_matcher");
            let matcher = faults.required(&at, &proto.xds_matcher)?;
            let read = |any: &Any, at: &Path<'_>, faults: &mut Faults| action(any, scope, at, faults);
            let tree = tree::parse(matcher, &read, &at, faults)?;
            Some(FilterOverride::Composite(Arc::new(tree)))
        },
    )),
};

// `matcher` is deprecated, and refused.
#[allow(deprecated)]
fn parse(
    proto: &ExtensionWithMatcher,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<Composite> {
    if proto.matcher.is_some() {
        return faults.reject(&at.field("matcher"), "is not supported; use xds_matcher");
    }
    let extension_at = at.field("extension_config");
    let config = faults.required(&extension_at, &proto.extension_config)?;
    let config_at = extension_at.field("typed_config");
    let inner: Proto = wire::unpack(faults.required(&config_at, &config.typed_config)?, &config_at, faults)?;
    for (unsupported, field) in
        [(!inner.named_filter_chains.is_empty(), "named_filter_chains"), (inner.matcher.is_some(), "matcher")]
    {
        if unsupported {
            return faults.reject(&config_at.field(field), "is not supported");
        }
    }
    let at = at.field("xds_matcher");
    let matcher = faults.required(&at, &proto.xds_matcher)?;
    let read = |any: &Any, at: &Path<'_>, faults: &mut Faults| action(any, scope, at, faults);
    Some(Composite { matcher: tree::parse(matcher, &read, &at, faults)? })
}

fn action(any: &Any, scope: &Scope<'_>, at: &Path<'_>, faults: &mut Faults) -> Option<CompositeAction> {
    if any.type_url == SkipFilter::type_url() {
        return Some(CompositeAction::Skip);
    }
    let proto: ExecuteFilterAction = wire::unpack(any, at, faults)?;
    for (unsupported, field) in [
        (proto.dynamic_config.is_some(), "dynamic_config"),
        (!proto.filter_chain_name.is_empty(), "filter_chain_name"),
    ] {
        if unsupported {
            return faults.reject(&at.field(field), "is not supported");
        }
    }
    let Some(depth) = scope.depth.checked_sub(1) else {
        return faults.reject(at, "more than 8 filters stand in one another");
    };
    let scope = Scope { depth, ..*scope };
    let filters = match (&proto.typed_config, &proto.filter_chain) {
        (Some(one), None) => vec![filter(one, &scope, &at.field("typed_config"), faults)?],
        (None, Some(chain)) if !chain.typed_config.is_empty() => {
            let at = at.field("filter_chain");
            wire::every(&chain.typed_config, &at.field("typed_config"), faults, |one, at, faults| {
                filter(one, &scope, at, faults)
            })?
        }
        _ => return faults.reject(at, "typed_config or a filter_chain that is not empty is required"),
    };
    let sample = match &proto.sample_percent {
        Some(fraction) => wire::runtime_fraction(fraction, &at.field("sample_percent"), faults)?,
        None => Fraction::ONE,
    };
    Some(CompositeAction::Execute { filters, sample })
}

fn filter(
    proto: &TypedExtensionConfig,
    scope: &Scope<'_>,
    at: &Path<'_>,
    faults: &mut Faults,
) -> Option<(Arc<str>, FilterConfig)> {
    if proto.name.is_empty() {
        faults.reject::<()>(&at.field("name"), "is required");
    }
    let at = at.field("typed_config");
    let any = faults.required(&at, &proto.typed_config)?;
    match filter::wire::config(any, false, scope, &at, faults)? {
        None | Some(FilterConfig::Router) => faults.reject(&at, "the router cannot stand in another filter"),
        Some(config) => Some((proto.name.as_str().into(), config)),
    }
}

static SHAPE: Shape = Shape(&[(3, Inside::Message(&tree::SHAPE))]);
static OVERRIDE: Shape = Shape(&[(1, Inside::Message(&tree::SHAPE))]);

fn tree_proto(tree: &MatcherTree<CompositeAction>) -> envoy_types::pb::xds::r#type::matcher::v3::Matcher {
    tree::encode(tree, &|action| match action {
        CompositeAction::Skip => wire::any(&SkipFilter {}),
        CompositeAction::Execute { filters, sample } => {
            let typed_config = filters
                .iter()
                .map(|(name, config)| TypedExtensionConfig {
                    name: name.to_string(),
                    typed_config: Some(registry::encode(config)),
                })
                .collect();
            wire::any(&ExecuteFilterAction {
                filter_chain: Some(FilterChainConfiguration { typed_config }),
                sample_percent: Some(wire::runtime_fraction_proto(*sample)),
                ..Default::default()
            })
        }
    })
}

pub(in crate::resource) fn encode(composite: &Composite) -> Any {
    let message = ExtensionWithMatcher {
        extension_config: Some(TypedExtensionConfig {
            name: "composite".into(),
            typed_config: Some(wire::any(&Proto::default())),
        }),
        xds_matcher: Some(tree_proto(&composite.matcher)),
        ..Default::default()
    };
    let value = canonical::sorted(&message.encode_to_vec(), &SHAPE);
    Any { type_url: ExtensionWithMatcher::type_url(), value }
}

pub(in crate::resource) fn encode_override(tree: &MatcherTree<CompositeAction>) -> Any {
    let message = ExtensionWithMatcherPerRoute { xds_matcher: Some(tree_proto(tree)) };
    let value = canonical::sorted(&message.encode_to_vec(), &OVERRIDE);
    Any { type_url: ExtensionWithMatcherPerRoute::type_url(), value }
}
