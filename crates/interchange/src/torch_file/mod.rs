//! Files that torch.save writes.
//!
//! [`TorchFile`] reads them: dictionaries of tensors and numbers, nested at will, in the zip format and the older one. Such a file holds
//! a pickle, a program for a small stack machine. None of it is run: crate `pytorch-reader` interprets the few calls that make tensors
//! and dictionaries, and a file that names any other function is refused. [`write()`] writes a file that `torch.load(weights_only=True)`
//! reads.
//!
//! ```
//! use burn::tensor::TensorData;
//! use interchange::torch_file::{TorchFile, Value, write};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("small.pt");
//! let weight = TensorData::new(vec![1.0f32, 2.0], [2]);
//! write(&path, &Value::dict([("step", Value::Int(7)), ("weight", Value::Tensor(weight.clone()))]))?;
//! let file = TorchFile::open(&path)?;
//! assert_eq!(file.tensor("weight")?, Some(weight));
//! assert_eq!(file.number(&["step"]), Some(7.0));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod calls;
mod writer;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use burn::tensor::TensorData;
use files::{Action, FileError};
use pytorch_reader::{DType, PickleValue, PytorchReader, Tensor};
use zip::ZipArchive;

use crate::InterchangeError;

pub use writer::{Value, write};

/// The start of a file of the format before zip: the magic number of torch.save in a pickle of protocol 2.
const OLDER_FORMAT: [u8; 15] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];

/// The pickles at the start of a file of the older format: magic number, version, system, content, keys of the storages.
const OLDER_PICKLES: usize = 5;

/// A file of torch.save whose tensors are read on demand.
#[derive(Debug)]
pub struct TorchFile {
    path: PathBuf,
    /// Bytes of the file.
    length: u64,
    /// Tensors by the keys of the dictionaries around them, joined by dots.
    tensors: HashMap<String, Tensor>,
    /// The content without the tensors.
    values: PickleValue,
}

impl TorchFile {
    /// Reads the structure of a file: a dictionary of tensors, numbers, and further dictionaries and lists.
    ///
    /// # Errors
    /// [`InterchangeError::File`] if it is no such file, cut off, or names a function that does not make a tensor.
    pub fn open(path: &Path) -> Result<Self, InterchangeError> {
        let io = |source| refuse(path, FileError::new(Action::Read, path, source).to_string());
        let mut start = Vec::new();
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        (&file).take(OLDER_FORMAT.len() as u64).read_to_end(&mut start).map_err(io)?;
        if start.starts_with(b"PK") {
            check_zip(path, length)?;
        } else if start == OLDER_FORMAT {
            let mut reader = BufReader::new(File::open(path).map_err(io)?);
            calls::check(&mut reader, OLDER_PICKLES).map_err(|reason| refuse(path, reason))?;
        } else {
            return Err(refuse(
                path,
                "it does not start as a file of torch.save (zip, or PyTorch's older format); save the state dict with \
                 torch.save(model.state_dict(), PATH)"
                    .to_owned(),
            ));
        }
        let broken = |error: pytorch_reader::PytorchError| refuse(path, format!("{error}; save or copy it again"));
        let tensors = PytorchReader::new(path).map_err(broken)?.into_tensors();
        let values = PytorchReader::read_pickle_data(path, None).map_err(broken)?;
        Ok(Self { path: path.to_owned(), length, tensors, values })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The names of all tensors, in no order: the keys of the dictionaries (and indices of the lists) around them, joined by dots.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(Tensor::shape)
    }

    /// A tensor in f32, whatever its type; None if there is none of this name.
    ///
    /// # Errors
    /// [`InterchangeError::Key`] if its storage is missing, damaged or shorter than the tensor.
    pub fn tensor(&self, name: &str) -> Result<Option<TensorData>, InterchangeError> {
        let Some(tensor) = self.tensors.get(name) else { return Ok(None) };
        let refuse = |reason: String| InterchangeError::Key { path: self.path.clone(), key: name.to_owned(), reason };
        // a view may repeat its storage without end; no parameter does
        if tensor.byte_len() as u64 > self.length {
            let reason = format!(
                "its {} bytes are more than the {} of the file: an expanded view; save tensor.clone() in its place",
                tensor.byte_len(),
                self.length
            );
            return Err(refuse(reason));
        }
        let bytes = tensor.read().map_err(|error| refuse(format!("{error}; save or copy the file again")))?;
        let data = TensorData::try_from_bytes_vec(bytes, tensor.shape().to_vec(), dtype(tensor.dtype()));
        let data = data.map_err(|error| refuse(format!("{error:?}")))?;
        Ok(Some(data.convert::<f32>()))
    }

    /// The value at the end of a path of keys, where it is no tensor.
    pub fn value(&self, keys: &[&str]) -> Option<&PickleValue> {
        keys.iter().try_fold(&self.values, |value, key| match value {
            PickleValue::Dict(pairs) => pairs.get(*key),
            PickleValue::List(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// The number at the end of a path of keys: a plain one, or a tensor of one element.
    pub fn number(&self, keys: &[&str]) -> Option<f64> {
        match self.value(keys) {
            Some(PickleValue::Int(value)) => Some(*value as f64),
            Some(PickleValue::Float(value)) => Some(*value),
            Some(PickleValue::Bool(value)) => Some(f64::from(u8::from(*value))),
            _ => {
                let name = keys.join(".");
                if self.tensors.get(&name)?.num_elements() != 1 {
                    return None;
                }
                self.tensor(&name).ok()??.iter::<f64>().next()
            }
        }
    }
}

/// Checks the pickle of a file in the zip format.
fn check_zip(path: &Path, length: u64) -> Result<(), InterchangeError> {
    let broken = |reason: String| refuse(path, format!("{reason}; it may be cut off: save or copy it again"));
    let file = File::open(path).map_err(|error| broken(error.to_string()))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| broken(error.to_string()))?;
    // the same choice as that of the reader
    let names = archive.file_names().filter_map(Result::ok).map(|name| name.to_string());
    let roots =
        names.filter(|name| name.strip_suffix("data.pkl").is_some_and(|root| root.is_empty() || root.ends_with('/')));
    let pickle = roots.min_by_key(String::len);
    let pickle = pickle.ok_or_else(|| {
        refuse(
            path,
            "it is a zip without `data.pkl`, not a file of torch.save; name the file with the weights".to_owned(),
        )
    })?;
    let entry = archive.by_name(&pickle).map_err(|error| broken(error.to_string()))?;
    // torch.save does not compress: a pickle that is larger than the file claims too much
    if entry.size() > length {
        return Err(broken(format!("`{pickle}` claims {} bytes, more than the file has", entry.size())));
    }
    let size = entry.size();
    calls::check(&mut BufReader::new(entry.take(size)), 1).map_err(|reason| refuse(path, reason))
}

fn refuse(path: &Path, reason: String) -> InterchangeError {
    InterchangeError::File { path: path.to_owned(), reason }
}

/// Whether a file starts as one of torch.save.
pub(crate) fn is_torch_file(path: &Path) -> bool {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(OLDER_FORMAT.len() as u64).read_to_end(&mut start));
    read.is_ok() && (start.starts_with(b"PK") || start == OLDER_FORMAT)
}

fn dtype(dtype: DType) -> burn::tensor::DType {
    use burn::tensor::DType as Burn;
    match dtype {
        DType::F64 => Burn::F64,
        DType::F32 => Burn::F32,
        DType::F16 => Burn::F16,
        DType::BF16 => Burn::BF16,
        DType::I64 => Burn::I64,
        DType::I32 => Burn::I32,
        DType::I16 => Burn::I16,
        DType::I8 => Burn::I8,
        DType::U64 => Burn::U64,
        DType::U32 => Burn::U32,
        DType::U16 => Burn::U16,
        // of a bool the reader gives 0 or 1
        DType::U8 | DType::Bool => Burn::U8,
    }
}
