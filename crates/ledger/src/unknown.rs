//! Fields that a newer version wrote: an older one that writes a record again keeps them.

use serde_json::Value;

/// The record `new` with what is only in the row that it replaces. `known` is what this version reads of that row.
pub(crate) fn kept(row: Value, known: &Value, mut new: Value) -> Value {
    if let (Value::Object(row), Value::Object(new)) = (row, &mut new) {
        for (name, old) in row {
            match (known.get(&name), new.get_mut(&name)) {
                (Some(known), Some(new)) => keep_in(old, known, new),
                (None, None) => drop(new.insert(name, old)),
                (Some(_), None) | (None, Some(_)) => {}
            }
        }
    }
    new
}

/// What is in a record stays whole where it was not changed; what was put in its place is another's.
fn keep_in(old: Value, known: &Value, new: &mut Value) {
    if new == known {
        *new = old;
    } else if let (Value::Array(old), Value::Array(known), Value::Array(new)) = (old, known, new) {
        for ((old, known), new) in old.into_iter().zip(known).zip(new) {
            keep_in(old, known, new);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::kept;
    use serde_json::json;

    #[test]
    fn what_is_unknown_stays_and_what_was_changed_is_as_it_was_changed() {
        let row = json!({
            "a": 1, "later": 2, "same": {"b": 3, "later": 4}, "other": {"b": 5, "later": 6},
            "list": [{"b": 7, "later": 8}, {"b": 9, "later": 10}], "gone": 11,
        });
        let known = json!({
            "a": 1, "same": {"b": 3}, "other": {"b": 5}, "list": [{"b": 7}, {"b": 9}], "gone": 11,
        });
        let new = json!({
            "a": 12, "same": {"b": 3}, "other": {"b": 13}, "list": [{"b": 7}, {"b": 14}, {"b": 15}],
        });
        let expected = json!({
            "a": 12, "later": 2, "same": {"b": 3, "later": 4}, "other": {"b": 13},
            "list": [{"b": 7, "later": 8}, {"b": 14}, {"b": 15}],
        });
        assert_eq!(kept(row, &known, new), expected);
    }
}
