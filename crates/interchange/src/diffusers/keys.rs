//! A JSON file of keys, of which each is used once.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Account, InterchangeError};

/// The largest file that is read, in bytes: betas of a long chain take most.
const LARGEST: u64 = 1 << 24;

/// The keys that were not read yet.
#[derive(Debug)]
pub struct Keys {
    path: PathBuf,
    keys: Map<String, Value>,
}

impl Keys {
    pub fn read(path: &Path) -> Result<Self, InterchangeError> {
        let file = |reason: String| InterchangeError::File { path: path.to_owned(), reason };
        let unreadable = |error: std::io::Error| file(format!("cannot be read: {error}"));
        let length = fs::metadata(path).map_err(unreadable)?.len();
        if length > LARGEST {
            return Err(file(format!("it is {length} bytes long, more than any configuration")));
        }
        let bytes = fs::read(path).map_err(unreadable)?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(keys)) => Ok(Self { path: path.to_owned(), keys }),
            Ok(_) => Err(file("it is not a table of keys, as diffusers writes it".to_owned())),
            Err(error) => Err(file(format!("it is not JSON: {error}; use another copy"))),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about a key.
    pub fn error(&self, key: &str, reason: impl Into<String>) -> InterchangeError {
        InterchangeError::Key { path: self.path.clone(), key: key.to_owned(), reason: reason.into() }
    }

    /// The value of a key, or `default` where it is missing.
    pub fn get<T: DeserializeOwned>(&mut self, key: &str, default: T) -> Result<T, InterchangeError> {
        match self.keys.remove(key) {
            None => Ok(default),
            Some(value) => self.parse(key, value),
        }
    }

    /// The value of a key; None where it is missing or null.
    pub fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, InterchangeError> {
        self.get(key, None)
    }

    fn parse<T: DeserializeOwned>(&self, key: &str, value: Value) -> Result<T, InterchangeError> {
        let text = value.to_string();
        serde_json::from_value(value).map_err(|error| {
            let shown: String = text.chars().take(80).collect();
            self.error(key, format!("{shown} is not possible: {error}"))
        })
    }

    /// Says which keys were not read. Those that begin with `_` are about the file.
    pub fn account_for_rest(self, account: &mut Account) {
        let name = self.path.file_name().unwrap_or_default().display();
        for (key, value) in self.keys {
            if !key.starts_with('_') && !value.is_null() {
                let shown: String = value.to_string().chars().take(80).collect();
                account.not_used.push(format!("{key} = {shown} in {name}: there is no such option"));
            }
        }
    }
}
