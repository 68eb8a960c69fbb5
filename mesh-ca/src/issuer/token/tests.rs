//! Tokens, in both stores.

use super::*;
use std::sync::Barrier;

const HOUR: Duration = Duration::from_secs(3600);

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://td/ns/a/sa/b").unwrap()
}

/// Runs a test over each kind of store, with a clock to move.
fn each(test: impl Fn(JoinTokens, &crate::clock::ManualClock)) {
    let directory = tempfile::tempdir().unwrap();
    let stores =
        [JoinTokens::in_memory(), JoinTokens::in_directory(&directory.path().join("tokens")).unwrap()];
    for tokens in stores {
        let (clock, hand) = Clock::manual(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        test(tokens.clock(clock), &hand);
    }
}

#[test]
fn a_token_works_once() {
    each(|tokens, _| {
        let token = tokens.create(&id(), HOUR).unwrap();
        assert_eq!(tokens.redeem(&token).unwrap(), id());
        assert!(matches!(tokens.redeem(&token).unwrap_err(), TokenError::Unknown));
    });
}

#[test]
fn an_expired_token_is_refused_and_used_up() {
    each(|tokens, hand| {
        let token = tokens.create(&id(), HOUR).unwrap();
        hand.advance(HOUR);
        let on_time = tokens.create(&id(), HOUR).unwrap();
        hand.advance(Duration::from_secs(1));
        let error = tokens.redeem(&token).unwrap_err();
        assert!(error.to_string().contains("expired at 2027-01-15T09:00:00Z"), "{error}");
        assert!(matches!(tokens.redeem(&token).unwrap_err(), TokenError::Unknown));
        tokens.redeem(&on_time).unwrap();
    });
}

#[test]
fn what_is_not_a_token_is_refused() {
    each(|tokens, _| {
        tokens.create(&id(), HOUR).unwrap();
        for text in ["", "hello", "../../etc/passwd", &format!("{PREFIX}{}", "a".repeat(4096))] {
            assert!(matches!(tokens.redeem(text).unwrap_err(), TokenError::Malformed), "{text:.40}");
        }
        for text in [PREFIX, "mesh-join-AAAA", "mesh-join-../../x"] {
            assert!(matches!(tokens.redeem(text).unwrap_err(), TokenError::Unknown), "{text}");
        }
    });
}

#[test]
fn of_simultaneous_uses_exactly_one_wins() {
    each(|tokens, _| {
        for _ in 0..20 {
            let token = tokens.create(&id(), HOUR).unwrap();
            let barrier = Barrier::new(8);
            let wins = std::thread::scope(|scope| {
                let uses: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            barrier.wait();
                            tokens.redeem(&token).is_ok()
                        })
                    })
                    .collect();
                uses.into_iter().map(|u| u.join().unwrap()).filter(|won| *won).count()
            });
            assert_eq!(wins, 1);
        }
    });
}

#[test]
fn tokens_differ_and_are_neither_stored_nor_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let tokens = JoinTokens::in_directory(&path).unwrap();
    let (one, two) = (tokens.create(&id(), HOUR).unwrap(), tokens.create(&id(), HOUR).unwrap());
    assert_ne!(*one, *two);
    assert_eq!(URL_SAFE_NO_PAD.decode(one.trim_start_matches(PREFIX)).unwrap().len(), 32);
    let secret = one.trim_start_matches(PREFIX);
    for file in fs::read_dir(&path).unwrap() {
        let file = file.unwrap().path();
        assert!(!file.to_str().unwrap().contains(secret));
        assert!(!fs::read_to_string(&file).unwrap().contains(secret));
    }
    assert!(!format!("{tokens:?}").contains(secret));
}

#[test]
fn a_token_made_by_another_process_works_and_expired_ones_are_cleared_away() {
    let directory = tempfile::tempdir().unwrap();
    let (clock, hand) = Clock::manual(SystemTime::now());
    let server = JoinTokens::in_directory(directory.path().join("t").as_path()).unwrap().clock(clock.clone());
    let cli = JoinTokens::in_directory(directory.path().join("t").as_path()).unwrap().clock(clock);
    let token = cli.create(&id(), HOUR).unwrap();
    server.redeem(&token).unwrap();
    cli.create(&id(), HOUR).unwrap();
    hand.advance(2 * HOUR);
    cli.create(&id(), HOUR).unwrap();
    assert_eq!(fs::read_dir(directory.path().join("t")).unwrap().count(), 1);
}

#[cfg(unix)]
#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let error = JoinTokens::in_directory(directory.path()).unwrap_err().to_string();
    assert!(error.contains("chmod 700"), "{error}");
}

#[test]
fn a_damaged_token_file_makes_nobody_anybody() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let tokens = JoinTokens::in_directory(&path).unwrap();
    let token = tokens.create(&id(), HOUR).unwrap();
    for file in fs::read_dir(&path).unwrap() {
        fs::write(file.unwrap().path(), r#"{"id":"spiffe://td/x","expires":9999999999,"admin":true}"#)
            .unwrap();
    }
    let error = tokens.redeem(&token).unwrap_err();
    assert!(matches!(&error, TokenError::Damaged { reason, .. } if reason.contains("admin")), "{error}");
}
