//! Values on disk: `[format][crc32][JSON]`. The checksum covers the table and the key too, so that a value
//! that turned up under a damaged key is found out.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The only format so far.
const FORMAT: u8 = 1;

/// The bytes before the JSON.
const HEAD: usize = 5;

fn checksum(table: &str, key: &[u8], json: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(json);
    hasher.finalize()
}

/// The bytes of a value.
pub(crate) fn encode<T: Serialize>(
    table: &str,
    key: &[u8],
    value: &T,
) -> Result<Vec<u8>, serde_json::Error> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, value)?;
    let sum = checksum(table, key, &bytes[HEAD..]);
    bytes[0] = FORMAT;
    bytes[1..HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(bytes)
}

/// The JSON of a stored value whose checksum is right, or what is wrong with it.
pub(crate) fn verify<'b>(table: &str, key: &[u8], bytes: &'b [u8]) -> Result<&'b [u8], String> {
    let wrong = |what: &str| format!("a row of `{table}` {what}");
    let (head, json) = bytes
        .split_at_checked(HEAD)
        .ok_or_else(|| wrong("is too short"))?;
    if head[0] != FORMAT {
        return Err(wrong(&format!("has format {}", head[0])));
    }
    if head[1..] != checksum(table, key, json).to_le_bytes() {
        return Err(wrong("does not match its checksum"));
    }
    Ok(json)
}

/// A stored value, or what is wrong with it.
pub(crate) fn decode<T: DeserializeOwned>(
    table: &str,
    key: &[u8],
    bytes: &[u8],
) -> Result<T, String> {
    let json = verify(table, key, bytes)?;
    serde_json::from_slice(json)
        .map_err(|error| format!("a row of `{table}` can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn a_value_is_good_under_its_own_table_and_key_only() {
        let bytes = encode("sessions", b"k", &7_u64).unwrap();
        assert_eq!(decode::<u64>("sessions", b"k", &bytes), Ok(7));
        assert!(decode::<u64>("sessions", b"l", &bytes).is_err());
        assert!(decode::<u64>("operations", b"k", &bytes).is_err());
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(
                decode::<u64>("sessions", b"k", &damaged).is_err(),
                "byte {at}"
            );
            assert!(
                decode::<u64>("sessions", b"k", &bytes[..at]).is_err(),
                "{at} bytes"
            );
        }
    }
}
