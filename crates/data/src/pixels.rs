//! Where the values of many images lie: in memory, or in a file that is mapped into it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use files::Action;
use memmap2::Mmap;
use tempfile::NamedTempFile;

use crate::error::DataError;
use crate::memory::free_bytes;

/// Bytes, wherever they lie.
#[derive(Debug)]
pub(crate) enum Pixels {
    /// In memory.
    Memory(Vec<u8>),
    /// In a file; the system brings in what is used, and lets go of it when memory is short.
    Mapped {
        map: Mmap,
        /// Where in the file they begin ...
        start: usize,
        /// ... and how many there are.
        len: usize,
    },
}

impl Pixels {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Memory(bytes) => bytes,
            Self::Mapped { map, start, len } => &map[*start..*start + *len],
        }
    }
}

/// Maps a whole file for reading.
#[allow(unsafe_code)]
pub(crate) fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: only files of our own cache are mapped. They are written under another name and renamed when they are
    // complete, are read-only from then on, and to clear the cache unlinks them, which leaves the mapped pages alone.
    unsafe { Mmap::map(file) }
}

/// Takes images one after the other, into memory or into a file.
pub(crate) enum PixelWriter {
    Memory(Vec<u8>),
    File(BufWriter<NamedTempFile>),
}

impl PixelWriter {
    /// Into memory: `bytes` of it are set aside, or an error names `path`.
    pub(crate) fn memory(bytes: u128, path: &Path) -> Result<Self, DataError> {
        let too_large = || DataError::TooLarge { path: path.to_path_buf(), bytes };
        // the system gives more than it has, and ends the process when it is used
        if free_bytes().is_some_and(|free| bytes > u128::from(free)) {
            return Err(too_large());
        }
        let mut pixels = Vec::new();
        pixels.try_reserve_exact(usize::try_from(bytes).map_err(|_| too_large())?).map_err(|_| too_large())?;
        Ok(Self::Memory(pixels))
    }

    /// Into a new file in `folder`, which is removed if it is not finished.
    pub(crate) fn file(folder: &Path) -> Result<Self, DataError> {
        let file = tempfile::Builder::new()
            .prefix(".images-")
            .tempfile_in(folder)
            .map_err(|error| DataError::io(Action::Write, folder, error))?;
        Ok(Self::File(BufWriter::with_capacity(1 << 20, file)))
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Memory(pixels) => {
                pixels.extend_from_slice(bytes);
                Ok(())
            }
            Self::File(file) => file.write_all(bytes),
        }
    }
}
