//! What the mesh's owner does to it: restarting the control plane, adding and draining replicas.

use super::{Observations, Outcome, all_answered};
use crate::{
    load::{Background, calls, instance, reviews_of_page, version},
    world::World,
    yaml::weights,
};
use std::{error::Error, time::Duration};

type Result = std::result::Result<Outcome, Box<dyn Error>>;

pub(crate) async fn control_plane_killed(world: &mut World) -> Result {
    world.apply([weights("reviews", &[("v2", 100)]).as_str()]).await?;
    let channel = world.productpage.clone();
    let call = move || {
        let channel = channel.clone();
        async move { version(reviews_of_page(&channel, None).await?) }
    };
    let mut observations = Observations::default();

    let traffic = Background::start(4, call.clone());
    world.kill_control_plane().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let without = traffic.stop().await;
    all_answered(&mut observations, "without it", &without, "v2");

    let traffic = Background::start(4, call.clone());
    world.start_control_plane().await?;
    world.synced().await?;
    let meanwhile = traffic.stop().await;
    all_answered(&mut observations, "while it came back", &meanwhile, "v2");

    world.apply([weights("reviews", &[("v3", 100)]).as_str()]).await?;
    let after = calls(200, 4, call).await;
    all_answered(&mut observations, "new configuration", &after, "v3");
    Ok(observations.outcome(
        "mesh-server killed, 3 s later started again, then reviews switched from v2 to v3",
        format!("{} pages without it, {} while it came back, 200 after", without.sent(), meanwhile.sent()),
    ))
}

pub(crate) async fn endpoint_added_and_drained(world: &mut World) -> Result {
    world.apply([weights("reviews", &[("v1", 100)]).as_str()]).await?;
    let channel = world.productpage.clone();
    let call = move || {
        let channel = channel.clone();
        async move { instance(reviews_of_page(&channel, None).await?) }
    };
    let mut observations = Observations::default();

    let traffic = Background::start(4, call.clone());
    world.start_replica("reviews", "v1", "reviews-v1-c").await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let added = traffic.stop().await;
    observations.note(added.failed() == 0, format!("while added: {} failed", added.failed()));
    observations.note(
        added.answered("reviews-v1-c") > 0,
        format!("the new replica answered {}", added.answered("reviews-v1-c")),
    );

    let traffic = Background::start(4, call.clone());
    let clean = world.drain_replica("reviews-v1-c").await?;
    let drained = traffic.stop().await;
    observations.note(drained.failed() == 0, format!("while drained: {} failed", drained.failed()));
    observations.note(clean, if clean { "it ended cleanly" } else { "it did not end cleanly" });

    let after = calls(200, 4, call).await;
    observations.note(
        after.failed() == 0 && after.answered("reviews-v1-c") == 0,
        format!("afterwards: {}", after.text()),
    );
    Ok(observations.outcome(
        "a third reviews-v1 replica started, then drained",
        format!("{} pages under both, 200 after", added.sent() + drained.sent()),
    ))
}
