//! Named tensors of a file, in either format that weights are exchanged in.

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use safetensors::{Dtype, SafeTensors, tensor::Metadata};

use crate::{
    InterchangeError,
    torch_file::{TorchFile, is_torch_file},
};

/// The largest safetensors file that is read, in bytes.
const LARGEST: u64 = 1 << 36;

/// Tensors of a file, read on demand.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file of torch.save.
    Torch(TorchFile),
    /// A safetensors file.
    Safetensors(SafetensorsFile),
}

impl Source {
    /// Opens a file of torch.save, or else a safetensors file.
    pub(crate) fn open(path: &Path) -> Result<Self, InterchangeError> {
        let looks_like_safetensors = path.extension().is_some_and(|extension| extension == "safetensors");
        if is_torch_file(path) || !looks_like_safetensors {
            return Ok(Self::Torch(TorchFile::open(path)?));
        }
        Ok(Self::Safetensors(SafetensorsFile::open(path)?))
    }

    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Torch(file) => file.path(),
            Self::Safetensors(file) => &file.path,
        }
    }

    /// Bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Self::Torch(file) => file.length(),
            Self::Safetensors(file) => file.bytes.len() as u64,
        }
    }

    /// The names of all tensors, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = match self {
            Self::Torch(file) => file.names().map(str::to_owned).collect(),
            Self::Safetensors(file) => file.metadata.offset_keys(),
        };
        names.sort_unstable();
        names
    }

    pub(crate) fn shape(&self, name: &str) -> Option<&[usize]> {
        match self {
            Self::Torch(file) => file.shape(name),
            Self::Safetensors(file) => file.metadata.info(name).map(|info| &info.shape[..]),
        }
    }

    /// A tensor in f32; None if there is none of this name.
    pub(crate) fn tensor(&self, name: &str) -> Result<Option<TensorData>, InterchangeError> {
        match self {
            Self::Torch(file) => file.tensor(name),
            Self::Safetensors(file) => file.tensor(name),
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

/// A safetensors file of any header.
#[derive(Debug)]
pub(crate) struct SafetensorsFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: Metadata,
    data_start: usize,
}

impl SafetensorsFile {
    fn open(path: &Path) -> Result<Self, InterchangeError> {
        let refuse = |reason: String| InterchangeError::File { path: path.to_owned(), reason };
        let io = |source| refuse(files::FileError::new(files::Action::Read, path, source).to_string());
        let length = fs::metadata(path).map_err(io)?.len();
        if length > LARGEST {
            return Err(refuse(format!("it is {length} bytes long, more than any model here")));
        }
        let bytes = fs::read(path).map_err(io)?;
        let broken = |error: safetensors::SafeTensorError| {
            refuse(format!("it is not a whole safetensors file ({error}); save or copy it again"))
        };
        SafeTensors::deserialize(&bytes).map_err(broken)?;
        let (metadata_length, metadata) = SafeTensors::read_metadata(&bytes).map_err(broken)?;
        // 8 bytes before the metadata are its length
        Ok(Self { path: path.to_owned(), bytes, metadata, data_start: 8 + metadata_length })
    }

    /// An entry of the metadata.
    pub(crate) fn entry(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    fn tensor(&self, name: &str) -> Result<Option<TensorData>, InterchangeError> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let refuse = |reason: String| InterchangeError::Key { path: self.path.clone(), key: name.to_owned(), reason };
        let dtype = match info.dtype {
            Dtype::F64 => DType::F64,
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I64 => DType::I64,
            Dtype::I32 => DType::I32,
            Dtype::I16 => DType::I16,
            Dtype::I8 => DType::I8,
            Dtype::U8 => DType::U8,
            other => return Err(refuse(format!("tensors of type {other:?} are not read; save it as F32"))),
        };
        let (start, end) = info.data_offsets;
        let bytes = self.bytes.get(self.data_start + start..self.data_start + end);
        let bytes = bytes.ok_or_else(|| refuse("it lies outside of the file; save or copy it again".to_owned()))?;
        let data = TensorData::try_from_bytes_vec(bytes.to_vec(), info.shape.clone(), dtype);
        Ok(Some(data.map_err(|error| refuse(format!("{error:?}")))?.convert::<f32>()))
    }
}
