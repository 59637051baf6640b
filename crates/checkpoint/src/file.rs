//! Safetensors files: those of this project, of named f32 tensors with one JSON header, written atomically; and any, to read.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, TensorData};
use files::{Action, FileError};
use safetensors::{
    Dtype, SafeTensors, View,
    tensor::{Metadata, TensorInfo},
};
use serde::{Deserialize, de::DeserializeOwned};
use unet::NetworkConfig;

use crate::CheckpointError;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 36;

/// A safetensors file of any program.
#[derive(Debug)]
pub struct Safetensors {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The place of each tensor, counted from `data_start`.
    metadata: Metadata,
    data_start: usize,
}

impl Safetensors {
    /// Reads and checks a file. The sizes in the metadata are checked against the size of the file before anything is allocated.
    ///
    /// # Errors
    /// [`CheckpointError::File`] and [`CheckpointError::NotSafetensors`].
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let io = |source| FileError::new(Action::Read, path, source);
        let length = fs::metadata(path).map_err(io)?.len();
        let broken = |reason: String| CheckpointError::NotSafetensors { path: path.to_owned(), reason };
        if length > LARGEST {
            return Err(broken(format!("it is {length} bytes long, more than any model here")));
        }
        Self::of_bytes(path, fs::read(path).map_err(io)?)
    }

    /// Checks the bytes of a file; `path` is its name in errors.
    ///
    /// # Errors
    /// [`CheckpointError::NotSafetensors`].
    pub fn of_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, CheckpointError> {
        let broken = |reason: String| CheckpointError::NotSafetensors { path: path.to_owned(), reason };
        SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let (metadata_length, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        // 8 bytes before the metadata are its length
        Ok(Self { path: path.to_owned(), bytes, metadata, data_start: 8 + metadata_length })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// An entry of the metadata.
    pub fn entry(&self, key: &str) -> Option<&str> {
        self.metadata.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.metadata.info(name).map(|info| &info.shape[..])
    }

    /// A tensor by its name, in f32, whatever its number format; None if there is none of this name.
    ///
    /// # Errors
    /// [`CheckpointError::NotSafetensors`] if it has a number format that is not read.
    pub fn tensor(&self, name: &str) -> Result<Option<TensorData>, CheckpointError> {
        let Some((info, bytes)) = self.data(name)? else { return Ok(None) };
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
            other => {
                return Err(self.broken(format!("tensors of type {other:?} are not read; save it as F32")));
            }
        };
        let data = TensorData::try_from_bytes_vec(bytes.to_vec(), info.shape.clone(), dtype);
        Ok(Some(data.map_err(|error| self.broken(format!("{error:?}")))?.convert::<f32>()))
    }

    /// Format and bytes of a tensor.
    fn data(&self, name: &str) -> Result<Option<(&TensorInfo, &[u8])>, CheckpointError> {
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        let (start, end) = info.data_offsets;
        // `of_bytes` has checked all offsets against the size of the file
        match self.bytes.get(self.data_start + start..self.data_start + end) {
            Some(bytes) => Ok(Some((info, bytes))),
            None => Err(self.broken(format!("the tensor `{name}` lies outside of the file"))),
        }
    }

    fn broken(&self, reason: String) -> CheckpointError {
        CheckpointError::NotSafetensors { path: self.path.clone(), reason }
    }
}

/// The tensors and the header of a file of this project.
#[derive(Debug)]
pub struct TensorFile {
    file: Safetensors,
    header: String,
}

impl TensorFile {
    /// Reads and checks a file; `key` is the metadata entry of the header.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn read(path: &Path, key: &'static str) -> Result<Self, CheckpointError> {
        Self::of(Safetensors::open(path)?, key)
    }

    /// As [`read`](Self::read), of a file that is open.
    ///
    /// # Errors
    /// [`CheckpointError::NoHeader`].
    pub fn of(file: Safetensors, key: &'static str) -> Result<Self, CheckpointError> {
        let no_header = || CheckpointError::NoHeader { path: file.path().to_owned(), key };
        let header = file.entry(key).ok_or_else(no_header)?.to_owned();
        Ok(Self { file, header })
    }

    /// The text of the header.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Parses the header from JSON. Its `format_version` is checked first: a newer version may have other keys.
    ///
    /// # Errors
    /// [`CheckpointError::Version`] if it is above `supported`, [`CheckpointError::Header`] if it is no such header.
    pub fn header_as<T: DeserializeOwned>(&self, supported: u32) -> Result<T, CheckpointError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let broken = |error: serde_json::Error| CheckpointError::Header {
            path: self.path().to_owned(),
            reason: error.to_string(),
        };
        let Version { format_version: found } = serde_json::from_str(&self.header).map_err(broken)?;
        if found > supported {
            return Err(CheckpointError::Version { path: self.path().to_owned(), found, supported });
        }
        serde_json::from_str(&self.header).map_err(broken)
    }

    /// Checks that the network of a header is possible, and its size against that of the file, before it is allocated; smaller
    /// differences are found by tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Network`] and [`CheckpointError::Header`].
    pub fn check_network(&self, unet: &NetworkConfig) -> Result<(), CheckpointError> {
        unet.validate().map_err(|source| CheckpointError::Network { path: self.path().to_owned(), source })?;
        let (claimed, there) = (4 * unet.parameters(), self.data_bytes() as u128);
        if claimed > 16 * there + (1 << 20) {
            let sizes = unet.sizes();
            let reason = format!(
                "its network ({sizes}) has {claimed} bytes of weights, which do not fit the {there} of the file"
            );
            return Err(CheckpointError::Header { path: self.path().to_owned(), reason });
        }
        Ok(())
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> usize {
        self.file.bytes.len().saturating_sub(self.file.data_start)
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.file.names()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// An f32 tensor by its name; None if there is none of this name.
    ///
    /// # Errors
    /// [`CheckpointError::NotSafetensors`] if it has another dtype.
    pub fn tensor(&self, name: &str) -> Result<Option<TensorData>, CheckpointError> {
        let Some((info, bytes)) = self.file.data(name)? else { return Ok(None) };
        if info.dtype != Dtype::F32 {
            return Err(self.file.broken(format!("the tensor `{name}` is of type {:?}, not F32", info.dtype)));
        }
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Ok(Some(TensorData::new(values, info.shape.clone())))
    }
}

/// Writes named f32 tensors and a header. The bytes depend on the arguments alone.
///
/// # Errors
/// [`CheckpointError::File`] names the file. A previous file stays if writing fails.
pub fn write(
    path: &Path,
    key: &'static str,
    header: String,
    tensors: &[(String, TensorData)],
) -> Result<(), CheckpointError> {
    Ok(files::write_atomically(path, &encode(path, key, header, tensors)?)?)
}

/// The bytes of a safetensors file of named f32 tensors with one entry of metadata; `path` is for messages.
///
/// # Errors
/// [`CheckpointError::Header`] if a tensor is not f32.
pub fn encode(
    path: &Path,
    key: &'static str,
    entry: String,
    tensors: &[(String, TensorData)],
) -> Result<Vec<u8>, CheckpointError> {
    struct Floats<'a> {
        shape: &'a [usize],
        values: &'a [f32],
    }
    impl View for Floats<'_> {
        fn dtype(&self) -> Dtype {
            Dtype::F32
        }
        fn shape(&self) -> &[usize] {
            self.shape
        }
        fn data(&self) -> Cow<'_, [u8]> {
            Cow::Owned(self.values.iter().flat_map(|value| value.to_le_bytes()).collect())
        }
        fn data_len(&self) -> usize {
            self.values.len() * 4
        }
    }
    let invalid = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
    let mut views = Vec::with_capacity(tensors.len());
    for (name, data) in tensors {
        let values = data.as_slice::<f32>().map_err(|error| invalid(format!("`{name}` is not f32: {error:?}")))?;
        views.push((name.as_str(), Floats { shape: data.shape(), values }));
    }
    // only one entry: several would be written in random order
    let metadata = HashMap::from([(key.to_owned(), entry)]);
    safetensors::serialize(views, Some(metadata)).map_err(|error| invalid(error.to_string()))
}
