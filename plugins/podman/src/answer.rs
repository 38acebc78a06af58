//! Reads what podman says and its client has no word for.

use bollard::errors::Error;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The answer, also where it tells of a container that podman calls `stopped`: its command has ended, and nothing has
/// cleaned up after it yet. Docker's API has no such state, and its client refuses the whole answer.
pub(crate) fn understood<T: DeserializeOwned>(answer: Result<T, Error>) -> Result<T, Error> {
    let Err(Error::JsonDataError { contents, .. }) = &answer else {
        return answer;
    };
    let reworded = serde_json::from_str(contents).map(|mut said| {
        reword(&mut said);
        said
    });
    match reworded.and_then(serde_json::from_value) {
        Ok(understood) => Ok(understood),
        Err(_) => answer,
    }
}

/// A container has `State` as a word in a list, and as an object with the word in it where it is looked at alone.
fn reword(said: &mut Value) {
    match said {
        Value::Array(all) => all.iter_mut().for_each(reword),
        Value::Object(fields) => {
            for name in ["State", "Status"] {
                match fields.get_mut(name) {
                    Some(word) if word == "stopped" => *word = "exited".into(),
                    Some(inner) => reword(inner),
                    None => {}
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
