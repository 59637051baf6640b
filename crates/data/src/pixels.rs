//! The values of many images: in memory, or in a file that is mapped into it.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::error::DataError;
use crate::memory::free_bytes;

/// The values of images, one after the other.
#[derive(Debug)]
pub(crate) enum Pixels {
    Memory(Vec<u8>),
    /// A mapped file: the system brings in the pages that are used, and drops them when memory is short. The values are the
    /// `len` bytes from byte `start` on.
    Mapped {
        map: Mmap,
        start: usize,
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

/// An empty vector with room for `bytes`; [`DataError::TooLarge`] names `path` if they cannot be allocated.
pub(crate) fn allocate(bytes: u128, path: &Path) -> Result<Vec<u8>, DataError> {
    let too_large = || DataError::TooLarge { path: path.to_path_buf(), bytes };
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(usize::try_from(bytes).map_err(|_| too_large())?).map_err(|_| too_large())?;
    Ok(pixels)
}

/// As [`allocate`], if that much memory is free: the system grants more than it has, and kills the process on use.
pub(crate) fn allocate_free(bytes: u128, path: &Path) -> Result<Vec<u8>, DataError> {
    if free_bytes().is_some_and(|free| bytes > u128::from(free)) {
        return Err(DataError::TooLarge { path: path.to_path_buf(), bytes });
    }
    allocate(bytes, path)
}
