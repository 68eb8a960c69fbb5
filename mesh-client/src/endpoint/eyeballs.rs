//! Happy eyeballs: several addresses of one endpoint, and the first that answers (gRFC A61, RFC 8305).
//!
//! Promises: families alternate, beginning with the first address's; the next address is dialled when one
//! failed, or 250 ms after the last was begun; the first connection that is up wins and the other dials end.

use futures_util::{StreamExt, stream::FuturesUnordered};
use std::{fmt::Write, future::Future, net::SocketAddr, time::Duration};

/// Between the beginnings of two dials.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Dials the addresses until one is up; none: all failed. Every failure is added to `failures`.
pub(super) async fn race<T, F>(
    addresses: &[SocketAddr],
    failures: &mut String,
    dial: impl Fn(SocketAddr) -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, String>>,
{
    let attempt = |address: SocketAddr| {
        let dialling = dial(address);
        async move { (address, dialling.await) }
    };
    let mut rest = interleaved(addresses).into_iter();
    let mut dialling = FuturesUnordered::new();
    dialling.push(attempt(rest.next()?));
    loop {
        let late = async {
            match rest.len() {
                0 => std::future::pending().await,
                _ => tokio::time::sleep(ATTEMPT_DELAY).await,
            }
        };
        tokio::select! {
            ended = dialling.next() => match ended {
                Some((_, Ok(up))) => return Some(up),
                Some((address, Err(reason))) => {
                    let comma = if failures.is_empty() { "" } else { ", " };
                    let _ = write!(failures, "{comma}{address}: {reason}");
                }
                None => return None,
            },
            () = late => {}
        }
        dialling.extend(rest.next().map(attempt));
    }
}

fn interleaved(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let Some(first) = addresses.first() else { return Vec::new() };
    let of =
        |same: bool| addresses.iter().filter(move |address| (address.is_ipv4() == first.is_ipv4()) == same);
    let (mut same, mut other) = (of(true), of(false));
    let mut order = Vec::with_capacity(addresses.len());
    while order.len() < addresses.len() {
        order.extend(same.next());
        order.extend(other.next());
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::time::Instant;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    const MIXED: [&str; 4] = ["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1", "10.0.0.2:1"];

    /// Who won, when, the failures, and when each address was dialled; an address takes as long as `dials` says.
    async fn race(
        texts: &[&str],
        dials: &[(u64, bool)],
    ) -> (Option<SocketAddr>, u64, String, Vec<(SocketAddr, u64)>) {
        let (began, begun, mut failures) = (Instant::now(), Mutex::new(Vec::new()), String::new());
        let elapsed = || u64::try_from(began.elapsed().as_millis()).unwrap();
        let addresses = addresses(texts);
        let won = super::race(&addresses, &mut failures, |address| {
            let mut begun = begun.lock().unwrap();
            let (takes, works) = dials[begun.len()];
            begun.push((address, elapsed()));
            async move {
                tokio::time::sleep(Duration::from_millis(takes)).await;
                if works { Ok(address) } else { Err("refused".to_owned()) }
            }
        });
        let won = won.await;
        (won, elapsed(), failures, begun.into_inner().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_is_joined_by_the_other_family_after_250_ms() {
        let (won, at, _, begun) = race(&MIXED, &[(9000, true), (20, true)]).await;
        let order = addresses(&MIXED);
        assert_eq!((won, at), (Some(order[2]), 270));
        assert_eq!(begun, [(order[0], 0), (order[2], 250)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_address_is_followed_at_once() {
        let (won, at, failures, _) = race(&MIXED, &[(5, false), (5, false), (5, true)]).await;
        assert_eq!((won, at), (Some(addresses(&MIXED)[1]), 15));
        assert_eq!(failures, "[fd00::1]:1: refused, 10.0.0.1:1: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_that_is_up_wins_though_it_was_begun_first() {
        let (won, at, ..) = race(&MIXED, &[(300, true), (100, true), (1, true), (1, true)]).await;
        assert_eq!((won, at), (Some(addresses(&MIXED)[0]), 300));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_failed_each_failure_is_named() {
        let (won, at, failures, begun) = race(&MIXED[2..], &[(10, false), (400, false)]).await;
        assert_eq!((won, at, begun.len()), (None, 410, 2));
        assert_eq!(failures, "10.0.0.1:1: refused, 10.0.0.2:1: refused");
        assert_eq!(race(&[], &[]).await.0, None);
    }

    #[test]
    fn families_alternate_beginning_with_the_first() {
        let texts = ["[fd00::1]:1", "[fd00::2]:1", "10.0.0.1:1", "[fd00::3]:1", "10.0.0.2:1"];
        let order = ["[fd00::1]:1", "10.0.0.1:1", "[fd00::2]:1", "10.0.0.2:1", "[fd00::3]:1"];
        assert_eq!(interleaved(&addresses(&texts)), addresses(&order));
        assert_eq!(
            interleaved(&addresses(&["10.0.0.1:1", "10.0.0.2:1"])),
            addresses(&["10.0.0.1:1", "10.0.0.2:1"])
        );
    }
}
