//! The tensors of a network.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;

use super::keys::Keys;
use crate::{Account, InterchangeError, source::Source};

/// The name of all files of weights, without ending.
const STEM: &str = "diffusion_pytorch_model";
/// The kinds of weights, the preferred ones first.
const VARIANTS: [&str; 4] = ["", ".fp16", ".bf16", ".non_ema"];

/// The files of the weights.
#[derive(Debug)]
pub struct Weights {
    files: Vec<Source>,
    /// The file and the name there of each tensor, by its name of today.
    places: BTreeMap<String, (usize, String)>,
}

impl Weights {
    /// Opens the files of a folder: whole or in shards, safetensors before pickles, and without a variant before `fp16`.
    pub fn open(folder: &Path, account: &mut Account) -> Result<Self, InterchangeError> {
        let paths = paths(folder)?;
        let name = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
        account.used.push(format!("weights: {}", paths.iter().map(name).collect::<Vec<_>>().join(", ")));
        let files = paths.iter().map(|path| Source::open(path)).collect::<Result<Vec<_>, _>>()?;
        let mut places = BTreeMap::new();
        let mut renamed = Vec::new();
        for (index, file) in files.iter().enumerate() {
            for old in file.names() {
                let name = named_as_now(&old);
                if name.is_some() {
                    renamed.push(old.clone());
                }
                places.insert(name.unwrap_or_else(|| old.clone()), (index, old));
            }
        }
        if let Some(first) = renamed.first() {
            let count = renamed.len();
            account
                .used
                .push(format!("{count} weights of attentions under their names of early versions, as in `{first}`"));
        }
        Ok(Self { files, places })
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(Source::length).sum()
    }

    /// Takes a tensor out, in f32; None if there is none of this name.
    pub fn take(&mut self, name: &str) -> Result<Option<TensorData>, InterchangeError> {
        let Some((file, old)) = self.places.remove(name) else { return Ok(None) };
        let data = self.files[file].tensor(&old)?;
        if data.as_ref().is_some_and(|data| !data.iter::<f32>().all(f32::is_finite)) {
            return Err(self.files[file].key_error(old, "it is not finite; use another copy of the file"));
        }
        Ok(data)
    }

    /// The names of the tensors that were not taken.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        self.places.values().map(|(_, name)| name.as_str())
    }
}

/// The files, in the order in which they are preferred.
fn paths(folder: &Path) -> Result<Vec<PathBuf>, InterchangeError> {
    let candidates = ["safetensors", "bin"].into_iter().flat_map(|ending| {
        VARIANTS.into_iter().flat_map(move |variant| {
            let whole = format!("{STEM}{variant}.{ending}");
            let index = format!("{STEM}.{ending}.index{variant}.json");
            [whole, index]
        })
    });
    let Some(found) = candidates.map(|name| folder.join(name)).find(|path| path.is_file()) else {
        return Err(InterchangeError::File {
            path: folder.to_owned(),
            reason: format!("it has no weights: neither {STEM}.safetensors nor {STEM}.bin; download the whole folder"),
        });
    };
    if found.extension().is_some_and(|ending| ending == "json") {
        let names = shards(&found)?;
        return Ok(names.into_iter().map(|name| folder.join(name)).collect());
    }
    Ok(vec![found])
}

/// The names of the shards, which lie beside their index.
pub fn shards(index: &Path) -> Result<BTreeSet<String>, InterchangeError> {
    let mut keys = Keys::read(index)?;
    let places: BTreeMap<String, String> = keys.get("weight_map", BTreeMap::new())?;
    let names: BTreeSet<String> = places.into_values().collect();
    if names.is_empty() {
        return Err(keys.error("weight_map", "it names no file; download the whole folder"));
    }
    let is_beside = |name: &&String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    if let Some(name) = names.iter().find(|name| !is_beside(name)) {
        return Err(keys.error("weight_map", format!("`{name}` is not the name of a file beside the index")));
    }
    Ok(names)
}

/// The name that a weight of an attention has since diffusers 0.17, if it has that of an earlier version.
fn named_as_now(name: &str) -> Option<String> {
    let (path, kind) = name.rsplit_once('.')?;
    let (path, layer) = path.rsplit_once('.')?;
    let (parent, _) = path.rsplit_once('.')?;
    let layer = match layer {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        _ => return None,
    };
    parent.ends_with("attentions").then(|| format!("{path}.{layer}.{kind}"))
}
