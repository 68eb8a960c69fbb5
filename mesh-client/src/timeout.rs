//! The `grpc-timeout` header: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").

use http::{HeaderName, HeaderValue};
use std::time::Duration;

/// The header's name.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Largest number of a timeout.
const MAX: u128 = 99_999_999;

/// Why a value is not a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTimeout {
    /// Not one to eight digits before the unit.
    #[error("grpc-timeout needs one to eight digits before its unit")]
    Digits,
    /// Not one of the six units.
    #[error("grpc-timeout needs one of the units H, M, S, m, u, n")]
    Unit,
}

/// Reads a timeout.
pub(crate) fn parse(value: &[u8]) -> Result<Duration, InvalidTimeout> {
    let (unit, digits) = value.split_last().ok_or(InvalidTimeout::Digits)?;
    if digits.is_empty() || digits.len() > 8 {
        return Err(InvalidTimeout::Digits);
    }
    let mut number = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(InvalidTimeout::Digits);
        }
        number = number * 10 + u64::from(digit - b'0');
    }
    Ok(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return Err(InvalidTimeout::Unit),
    })
}

/// Writes a timeout in the finest unit whose number fits, rounded down: the receiver must not believe in
/// more time than there is.
pub(crate) fn format(timeout: Duration) -> HeaderValue {
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let nanos = timeout.as_nanos();
    let (number, unit) = units
        .into_iter()
        .map(|(size, unit)| (nanos / size, unit))
        .find(|(number, _)| *number <= MAX)
        .unwrap_or_else(|| ((nanos / 3_600_000_000_000).min(MAX), 'H'));
    let mut text = [0u8; 9];
    let mut at = text.len() - 1;
    text[at] = unit as u8;
    let mut rest = number;
    loop {
        at -= 1;
        text[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    HeaderValue::from_bytes(&text[at..]).unwrap_or_else(|_| HeaderValue::from_static("0n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_unit_is_read() {
        for (text, expected) in [
            ("3H", Duration::from_secs(3 * 3600)),
            ("1M", Duration::from_secs(60)),
            ("42S", Duration::from_secs(42)),
            ("13m", Duration::from_millis(13)),
            ("2u", Duration::from_micros(2)),
            ("82n", Duration::from_nanos(82)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_is_refused() {
        for text in ["", "H", "abcS", "82f", "5§", "123456789S", "-1S", "+1S", " 1S", "1 S", "1.5S"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn the_finest_unit_that_fits_is_written() {
        for (timeout, expected) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(1), "1000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(format(timeout), expected);
        }
    }

    proptest! {
        #[test]
        fn a_written_timeout_is_read_back_never_longer(nanos in any::<u64>()) {
            let timeout = Duration::from_nanos(nanos);
            let back = parse(format(timeout).as_bytes()).unwrap();
            prop_assert!(back <= timeout);
            prop_assert!(timeout - back <= timeout / 1_000 + Duration::from_nanos(1));
        }

        #[test]
        fn arbitrary_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let _ = parse(&bytes);
        }
    }
}
