//! Writes files of torch.save.

use std::{
    io::{Cursor, Write},
    path::Path,
};

use burn::tensor::{DType, TensorData};
use zip::{CompressionMethod, write::SimpleFileOptions, write::ZipWriter};

use crate::InterchangeError;

/// Tensors start at a multiple of this in the file, as those of torch.save, so that they can be mapped.
const ALIGNMENT: u16 = 64;

/// A Python value that [`write()`] can write.
#[derive(Clone, Debug)]
pub enum Value {
    /// None.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A float.
    Float(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Value>),
    /// A tuple.
    Tuple(Vec<Value>),
    /// A dictionary, in its order.
    Dict(Vec<(Value, Value)>),
    /// A tensor of f32, i64 or bool.
    Tensor(TensorData),
}

impl Value {
    /// A dictionary whose keys are texts.
    pub fn dict<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Self {
        Self::Dict(pairs.into_iter().map(|(key, value)| (Self::Text(key.into()), value)).collect())
    }
}

/// Writes a value as torch.save does: a zip without compression, with a pickle of protocol 2. The bytes depend on the value alone.
///
/// # Errors
/// [`InterchangeError::File`] names the file; a previous one stays if writing fails. [`InterchangeError::Key`] for a tensor of a type
/// that is not written.
pub fn write(path: &Path, value: &Value) -> Result<(), InterchangeError> {
    let mut pickler = Pickler { path, pickle: vec![0x80, 2], tensors: Vec::new() };
    pickler.value(value)?;
    pickler.pickle.push(b'.');
    let failed = |reason: String| InterchangeError::File { path: path.to_owned(), reason };
    let zip = |error: zip::result::ZipError| failed(error.to_string());
    let data: usize = pickler.tensors.iter().map(|tensor| tensor.as_bytes().len() + 256).sum();
    let mut writer = ZipWriter::new(Cursor::new(Vec::with_capacity(data + pickler.pickle.len() + 1024)));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).with_alignment(ALIGNMENT);
    let mut entry = |name: String, bytes: &[u8]| {
        writer.start_file(name, options.large_file(u32::try_from(bytes.len()).is_err())).map_err(zip)?;
        writer.write_all(bytes).map_err(|error| failed(error.to_string()))
    };
    entry("archive/data.pkl".to_owned(), &pickler.pickle)?;
    entry("archive/byteorder".to_owned(), b"little")?;
    for (number, tensor) in pickler.tensors.iter().enumerate() {
        entry(format!("archive/data/{number}"), tensor.as_bytes())?;
    }
    // that of the format, not of PyTorch
    entry("archive/version".to_owned(), b"3\n")?;
    let bytes = writer.finish().map_err(zip)?.into_inner();
    files::write_atomically(path, &bytes).map_err(|error| failed(error.to_string()))
}

struct Pickler<'a> {
    path: &'a Path,
    pickle: Vec<u8>,
    tensors: Vec<&'a TensorData>,
}

impl<'a> Pickler<'a> {
    fn value(&mut self, value: &'a Value) -> Result<(), InterchangeError> {
        match value {
            Value::None => self.pickle.push(b'N'),
            Value::Bool(value) => self.pickle.push(if *value { 0x88 } else { 0x89 }),
            Value::Int(value) => self.int(*value),
            Value::Float(value) => {
                self.pickle.push(b'G');
                self.pickle.extend(value.to_be_bytes());
            }
            Value::Text(text) => self.text(text),
            Value::List(items) => {
                self.pickle.extend(b"](");
                items.iter().try_for_each(|item| self.value(item))?;
                self.pickle.push(b'e');
            }
            Value::Tuple(items) => {
                self.pickle.push(b'(');
                items.iter().try_for_each(|item| self.value(item))?;
                self.pickle.push(b't');
            }
            Value::Dict(pairs) => {
                self.pickle.extend(b"}(");
                for (key, value) in pairs {
                    self.value(key)?;
                    self.value(value)?;
                }
                self.pickle.push(b'u');
            }
            Value::Tensor(data) => self.tensor(data)?,
        }
        Ok(())
    }

    fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(short) => {
                self.pickle.push(b'J');
                self.pickle.extend(short.to_le_bytes());
            }
            Err(_) => {
                self.pickle.extend([0x8a, 8]);
                self.pickle.extend(value.to_le_bytes());
            }
        }
    }

    fn text(&mut self, text: &str) {
        // names of parameters: far below 4 GiB
        self.pickle.push(b'X');
        self.pickle.extend((text.len() as u32).to_le_bytes());
        self.pickle.extend(text.as_bytes());
    }

    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)`
    fn tensor(&mut self, data: &'a TensorData) -> Result<(), InterchangeError> {
        let storage: &[u8] = match data.dtype() {
            DType::F32 => b"FloatStorage",
            DType::I64 => b"LongStorage",
            DType::Bool(_) if data.as_bytes().len() == data.num_elements() => b"BoolStorage",
            dtype => {
                let (path, key) = (self.path.to_owned(), format!("tensor {}", self.tensors.len()));
                let reason = format!("tensors of {dtype:?} are not written; convert it to f32");
                return Err(InterchangeError::Key { path, key, reason });
            }
        };
        self.pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        self.text("storage");
        self.pickle.extend([b"ctorch\n", storage, b"\n"].concat());
        self.text(&self.tensors.len().to_string());
        self.text("cpu");
        self.int(data.num_elements() as i64);
        self.pickle.extend(b"tQ");
        self.int(0);
        let mut stride = data.num_elements() as i64;
        let strides: Vec<i64> = data
            .shape()
            .iter()
            .map(|&side| {
                stride /= side.max(1) as i64;
                stride
            })
            .collect();
        for sizes in [data.shape().iter().map(|&side| side as i64).collect(), strides] {
            self.pickle.push(b'(');
            sizes.into_iter().for_each(|size| self.int(size));
            self.pickle.push(b't');
        }
        self.pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        self.tensors.push(data);
        Ok(())
    }
}
