//! Named tensors of a file, in either format that weights are exchanged in.

use std::path::Path;

use burn::tensor::TensorData;
use checkpoint::{CheckpointError, file::Safetensors};

use crate::{
    InterchangeError,
    torch_file::{TorchFile, is_torch_file},
};

/// Tensors of a file, read on demand.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file of torch.save.
    Torch(TorchFile),
    /// A safetensors file.
    Safetensors(Safetensors),
}

impl Source {
    /// Opens a file of torch.save, or else a safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, InterchangeError> {
        let looks_like_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if is_torch_file(path) || !looks_like_safetensors {
            return Ok(Self::Torch(TorchFile::open(path)?));
        }
        let file = Safetensors::open(path).map_err(|error| match error {
            CheckpointError::NotSafetensors { path, reason } => InterchangeError::File {
                path,
                reason: format!("it is not a whole safetensors file ({reason}); save or copy it again"),
            },
            error => error.into(),
        })?;
        Ok(Self::Safetensors(file))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Torch(file) => file.path(),
            Self::Safetensors(file) => file.path(),
        }
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Torch(file) => file.length(),
            Self::Safetensors(file) => file.length() as u64,
        }
    }

    /// The names of all tensors, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Torch(file) => file.names().map(str::to_owned).collect(),
            Self::Safetensors(file) => file.names(),
        };
        names.sort_unstable();
        names
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Self::Torch(file) => file.shape(name),
            Self::Safetensors(file) => file.shape(name),
        }
    }

    /// A tensor in f32; None if there is none of this name.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<TensorData>, InterchangeError> {
        match self {
            Self::Torch(file) => file.tensor(name),
            Self::Safetensors(file) => file.tensor(name).map_err(|error| match error {
                CheckpointError::NotSafetensors { reason, .. } => self.key_error(name, reason),
                error => error.into(),
            }),
        }
    }

    /// The error of a tensor of this file.
    pub(crate) fn key_error(&self, key: impl Into<String>, reason: impl Into<String>) -> InterchangeError {
        InterchangeError::Key { path: self.path().to_owned(), key: key.into(), reason: reason.into() }
    }

    /// The error of the whole file.
    pub(crate) fn file_error(&self, reason: impl Into<String>) -> InterchangeError {
        InterchangeError::File { path: self.path().to_owned(), reason: reason.into() }
    }
}
