//! Mutual TLS, authorization, and the rotation of certificates.

use super::{Observations, Outcome};
use crate::{
    load::{Background, calls, page, request, reviews_of_page, text, version},
    world::World,
    yaml::weights,
};
use mesh_examples::bookinfo::ratings_client::RatingsClient;
use std::{error::Error, time::Duration};
use tonic::Code;

type Result = std::result::Result<Outcome, Box<dyn Error>>;

pub(crate) async fn strangers_refused(world: &mut World) -> Result {
    let address = world.address("ratings-v1")?;
    let mut observations = Observations::default();

    let refused_before = refused_connections(world).await?;
    let plaintext = tonic::transport::Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    let refused = RatingsClient::new(plaintext).get_ratings(request(None)).await;
    observations.note(
        refused.is_err(),
        match refused {
            Err(status) => format!("plaintext: {}", text(&status)),
            Ok(_) => "plaintext: answered".into(),
        },
    );

    let foreign = world.channel_with_foreign_certificate(address)?;
    let refused = RatingsClient::new(foreign).get_ratings(request(None)).await;
    observations.note(
        refused.is_err(),
        match refused {
            Err(status) => format!("certificate of another CA: {}", text(&mesh_ca::channel::clarify(status))),
            Ok(_) => "certificate of another CA: answered".into(),
        },
    );

    // The other process counts a refusal a moment after its client has seen it.
    let mut refusals = 0;
    for _ in 0..100 {
        refusals = refused_connections(world).await? - refused_before;
        if refusals >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    observations.note(refusals >= 2, format!("ratings refused {refusals} connections"));

    let member = RatingsClient::new(world.ratings.clone()).get_ratings(request(None)).await;
    observations.note(
        member.is_ok(),
        match member {
            Err(status) => format!("a member of the mesh: {}", text(&status)),
            Ok(_) => "a member of the mesh: answered".into(),
        },
    );
    Ok(observations.outcome(
        "PeerAuthentication istio-system/default: STRICT",
        "a call to ratings in plaintext, one with a certificate of another CA, one by a member",
    ))
}

async fn refused_connections(world: &mut World) -> std::result::Result<u64, Box<dyn Error>> {
    let stats = world.order("ratings-v1", "stats").await?;
    Ok(stats["server"]["refused_connections"].as_u64().unwrap_or(0))
}

pub(crate) async fn only_reviews_may_call_ratings(world: &mut World) -> Result {
    let policy = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: ratings-for-reviews
spec:
  selector:
    matchLabels: {app: ratings}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [cluster.local/ns/default/sa/bookinfo-reviews]}
    to:
    - operation: {paths: [/bookinfo.v1.Ratings/*]}
";
    world.apply([weights("reviews", &[("v2", 100)]).as_str(), policy]).await?;
    let mut observations = Observations::default();

    let direct = RatingsClient::new(world.ratings.clone()).get_ratings(request(None)).await;
    observations.note(
        direct.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied),
        match direct {
            Err(status) => format!("the visitor: {}", text(&status)),
            Ok(_) => "the visitor: answered".into(),
        },
    );

    let channel = world.productpage.clone();
    let tally = calls(50, 4, move || {
        let channel = channel.clone();
        async move { version(reviews_of_page(&channel, None).await?) }
    })
    .await;
    observations.note(tally.answered("v2") == 50, format!("through reviews: {}", tally.text()));
    Ok(observations.outcome(
        "AuthorizationPolicy ratings: ALLOW principal bookinfo-reviews",
        "a call to ratings by the visitor, 50 pages through reviews",
    ))
}

/// Every process asked for certificates of a few seconds; see `world::CERTIFICATE_LIFETIME`.
pub(crate) async fn rotation(world: &mut World) -> Result {
    world.apply([weights("reviews", &[("v2", 50), ("v3", 50)]).as_str()]).await?;
    let before = world.rotations().await?;
    let channel = world.productpage.clone();
    let traffic = Background::start(4, move || {
        let channel = channel.clone();
        async move {
            let page = page(&channel, None).await.map_err(|status| text(&status))?;
            version(page.reviews.ok_or(page.reviews_error)?).map(|_| "answered".to_owned())
        }
    });
    tokio::time::sleep(Duration::from_secs(15)).await;
    let tally = traffic.stop().await;
    let after = world.rotations().await?;

    let mut observations = Observations::default();
    observations.note(tally.failed() == 0 && tally.sent() > 0, tally.text());
    let fewest = after
        .iter()
        .map(|(process, count)| count - before.get(process).copied().unwrap_or(0))
        .min()
        .unwrap_or(0);
    observations.note(fewest >= 2, format!("each process got at least {fewest} new certificates"));
    Ok(observations.outcome(
        format!("certificates live {} s", crate::world::CERTIFICATE_LIFETIME.as_secs()),
        format!("{} pages in 15 s, 4 at a time", tally.sent()),
    ))
}
