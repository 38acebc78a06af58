//! PAX records: what a tar header has no room for. The values are bytes, line feeds included.

use crate::error::SnapshotError;

/// Appends a record, `length key=value\n`; the length counts itself.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// A record's key and its value.
pub(crate) type Record<'a> = (&'a [u8], &'a [u8]);

/// Reads all records.
pub(crate) fn parse(mut records: &[u8]) -> Result<Vec<Record<'_>>, SnapshotError> {
    let wrong = || SnapshotError::damaged("a record of a header is malformed");
    let mut found = Vec::new();
    while !records.is_empty() {
        let space = records
            .iter()
            .position(|&byte| byte == b' ')
            .ok_or_else(wrong)?;
        let length: usize = std::str::from_utf8(&records[..space])
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(wrong)?;
        if length > records.len() || length < space + 3 {
            return Err(wrong());
        }
        let (record, rest) = records.split_at(length);
        let body = record[space + 1..].strip_suffix(b"\n").ok_or_else(wrong)?;
        let equals = body
            .iter()
            .position(|&byte| byte == b'=')
            .ok_or_else(wrong)?;
        found.push((&body[..equals], &body[equals + 1..]));
        records = rest;
    }
    Ok(found)
}

/// Seconds with nanoseconds, as a decimal fraction; before 1970, as a negative number.
pub(crate) fn time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        seconds.to_string()
    } else if seconds < 0 {
        // -1 s + 250 ms is written as -0.75.
        let whole = -(seconds + 1);
        format!("-{whole}.{:09}", 1_000_000_000 - nanoseconds)
    } else {
        format!("{seconds}.{nanoseconds:09}")
    }
}

/// The inverse of [`time`].
pub(crate) fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9}").parse().ok()?;
    match (negative, nanoseconds) {
        (false, _) => Some((seconds, nanoseconds)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanoseconds)),
    }
}

#[cfg(test)]
mod tests {
    use super::{parse, parse_time, push, time};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(records in prop::collection::vec(("[a-zA-Z.]{1,20}", prop::collection::vec(any::<u8>(), 0..2000)), 0..5)) {
            let mut bytes = Vec::new();
            for (key, value) in &records {
                push(&mut bytes, key.as_bytes(), value);
            }
            let found = parse(&bytes).unwrap();
            prop_assert_eq!(found.len(), records.len());
            for ((key, value), (found_key, found_value)) in records.iter().zip(found) {
                prop_assert_eq!(key.as_bytes(), found_key);
                prop_assert_eq!(value.as_slice(), found_value);
            }
        }

        #[test]
        fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[0-9 =\n]{0,30}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
            let _ = parse_time(&bytes);
            let _ = parse_time(text.as_bytes());
        }

        #[test]
        fn times_round_trip(seconds in -9_000_000_000i64..9_000_000_000, nanoseconds in 0u32..1_000_000_000) {
            prop_assert_eq!(parse_time(time(seconds, nanoseconds).as_bytes()), Some((seconds, nanoseconds)));
        }
    }
}
