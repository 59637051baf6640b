//! Safetensors files of named f32 tensors with one JSON header, written atomically.

use std::{
    borrow::Cow,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use files::{Action, FileError};
use safetensors::{Dtype, SafeTensors, View, tensor::Metadata};
use serde::{Deserialize, de::DeserializeOwned};
use unet::NetworkConfig;

use crate::CheckpointError;

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 36;

/// The tensors and the header of a file.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    /// The place of each tensor, counted from `data_start`.
    metadata: Metadata,
    data_start: usize,
    header: String,
}

impl TensorFile {
    /// Reads and checks a file; `key` is the metadata entry of the header. The sizes in the metadata are checked against the size of the
    /// file before anything is allocated.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn read(path: &Path, key: &'static str) -> Result<Self, CheckpointError> {
        let io = |source| FileError::new(Action::Read, path, source);
        let length = fs::metadata(path).map_err(io)?.len();
        let broken = |reason: String| CheckpointError::NotSafetensors { path: path.to_owned(), reason };
        if length > LARGEST {
            return Err(broken(format!("it is {length} bytes long, more than any model here")));
        }
        let bytes = fs::read(path).map_err(io)?;
        SafeTensors::deserialize(&bytes).map_err(|error| broken(error.to_string()))?;
        let (metadata_length, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| broken(error.to_string()))?;
        let header = metadata.metadata().as_ref().and_then(|entries| entries.get(key)).cloned();
        let header = header.ok_or(CheckpointError::NoHeader { path: path.to_owned(), key })?;
        // 8 bytes before the metadata are its length
        Ok(Self { path: path.to_owned(), bytes, metadata, data_start: 8 + metadata_length, header })
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
        let broken =
            |error: serde_json::Error| CheckpointError::Header { path: self.path.clone(), reason: error.to_string() };
        let Version { format_version: found } = serde_json::from_str(&self.header).map_err(broken)?;
        if found > supported {
            return Err(CheckpointError::Version { path: self.path.clone(), found, supported });
        }
        serde_json::from_str(&self.header).map_err(broken)
    }

    /// Checks that the network of a header is possible, and its size against that of the file, before it is allocated; smaller
    /// differences are found by tensor.
    ///
    /// # Errors
    /// [`CheckpointError::Network`] and [`CheckpointError::Header`].
    pub fn check_network(&self, unet: &NetworkConfig) -> Result<(), CheckpointError> {
        unet.validate().map_err(|source| CheckpointError::Network { path: self.path.clone(), source })?;
        let (claimed, there) = (4 * unet.parameters(), self.data_bytes() as u128);
        if claimed > 16 * there + (1 << 20) {
            let sizes = unet.sizes();
            let reason = format!(
                "its network ({sizes}) has {claimed} bytes of weights, which do not fit the {there} of the file"
            );
            return Err(CheckpointError::Header { path: self.path.clone(), reason });
        }
        Ok(())
    }

    /// Bytes of all tensors.
    pub fn data_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(self.data_start)
    }

    /// The names of all tensors, in the order of the file.
    pub fn names(&self) -> Vec<String> {
        self.metadata.offset_keys()
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An f32 tensor by its name; None if there is none of this name.
    ///
    /// # Errors
    /// [`CheckpointError::NotSafetensors`] if it has another dtype.
    pub fn tensor(&self, name: &str) -> Result<Option<TensorData>, CheckpointError> {
        let broken = |reason: String| CheckpointError::NotSafetensors { path: self.path.clone(), reason };
        let Some(info) = self.metadata.info(name) else { return Ok(None) };
        if info.dtype != Dtype::F32 {
            return Err(broken(format!("the tensor `{name}` is of type {:?}, not F32", info.dtype)));
        }
        let (start, end) = info.data_offsets;
        // `read` has checked all offsets against the size of the file
        let Some(data) = self.bytes.get(self.data_start + start..self.data_start + end) else {
            return Err(broken(format!("the tensor `{name}` lies outside of the file")));
        };
        let values: Vec<f32> = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
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
    let metadata = HashMap::from([(key.to_owned(), header)]);
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(|error| invalid(error.to_string()))?;
    Ok(files::write_atomically(path, &bytes)?)
}
