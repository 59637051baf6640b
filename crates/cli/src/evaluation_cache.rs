//! Intermediate results of evaluations, kept in files that are named by a hash of everything the results depend on.

use std::path::PathBuf;

use burn::tensor::TensorData;
use checkpoint::file::{TensorFile, write};
use files::create_folder;
use sha2::{Digest, Sha256};

/// Entry of the metadata that holds the key.
const KEY: &str = "diffuse-evaluation";

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The folder `evaluation` beside the cache of datasets; without a folder nothing is kept.
pub struct Cache {
    folder: Option<PathBuf>,
}

impl Cache {
    /// The user's cache, or one that keeps nothing.
    pub fn new(is_enabled: bool) -> Self {
        let datasets = data::Places::from_environment().cache.filter(|_| is_enabled);
        Self { folder: datasets.and_then(|folder| Some(folder.parent()?.join("evaluation"))) }
    }

    /// Returns the tensors `names` that are kept under `key`, which holds everything that they depend on; otherwise makes them with
    /// `make` and keeps them. A file that cannot be read or written is a warning, not an error.
    pub fn get_or(
        &self,
        key: &str,
        names: &[&str],
        make: impl FnOnce() -> anyhow::Result<Vec<TensorData>>,
    ) -> anyhow::Result<Vec<TensorData>> {
        let name = format!("{}.safetensors", sha256(key.as_bytes()));
        let path = self.folder.as_ref().map(|folder| folder.join(name));
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            let kept = TensorFile::read(path, KEY).and_then(|file| {
                if file.header() != key {
                    return Ok(None);
                }
                names.iter().map(|name| file.tensor(name)).collect::<Result<Option<Vec<_>>, _>>()
            });
            match kept {
                Ok(Some(kept)) => return Ok(kept),
                Ok(None) => eprintln!("warning: {} holds something else; it is made anew", path.display()),
                Err(error) => eprintln!("warning: {error}; it is made anew"),
            }
        }
        let made = make()?;
        if let (Some(path), Some(folder)) = (path, &self.folder) {
            let tensors: Vec<(String, TensorData)> =
                names.iter().map(|name| (*name).to_owned()).zip(made.iter().cloned()).collect();
            let kept = create_folder(folder)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(write(&path, KEY, key.to_owned(), &tensors)?));
            if let Err(error) = kept {
                eprintln!("warning: the evaluation's intermediate results are not kept: {error}");
            }
        }
        Ok(made)
    }
}
