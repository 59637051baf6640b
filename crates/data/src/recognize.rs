//! Formats of files by their first bytes.

use std::fmt::{self, Display};
use std::io::{Read, Seek, SeekFrom};

use flate2::read::MultiGzDecoder;

/// Bytes that are looked at: a header of a tar.
const START: u64 = 512;

/// A format that is recognized, whether or not it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Zip,
    Tar,
    Gzip,
    Bzip2,
    Zstd,
    Npy,
    Parquet,
    Pickle,
    /// Any picture.
    Picture,
    Idx,
    /// One that is not read: its name, and what to do.
    Other(&'static str),
}

impl Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Zip => "a zip archive; let its name end in .zip, or .npz if it holds NumPy arrays",
            Self::Tar => "a tar archive",
            Self::Gzip => "packed with gzip; unpack it (`gzip -d`)",
            Self::Bzip2 => "packed with bzip2; unpack it (`bzip2 -d`)",
            Self::Zstd => "packed with zstd; unpack it (`zstd -d`)",
            Self::Npy => "a NumPy array; let its name end in .npy",
            Self::Parquet => "a Parquet file; let its name end in .parquet",
            Self::Pickle => "a Python pickle; of pickles, those of CIFAR are read",
            Self::Picture => "a single image; name the folder it lies in",
            Self::Idx => "an IDX file",
            Self::Other(name) => name,
        })
    }
}

/// First bytes of formats.
const MAGICS: [(&[u8], Kind); 18] = [
    (b"PK\x03\x04", Kind::Zip),
    (b"PK\x05\x06", Kind::Zip),
    (b"\x1f\x8b", Kind::Gzip),
    (b"BZh", Kind::Bzip2),
    (b"\x28\xb5\x2f\xfd", Kind::Zstd),
    (b"\x93NUMPY", Kind::Npy),
    (b"PAR1", Kind::Parquet),
    (b"\x89HDF\r\n\x1a\n", Kind::Other("an HDF5 file, which is not read; save its array as .npy")),
    (b"MATLAB 5.0 MAT", Kind::Other("a file of Matlab, which is not read; save its array as .npy")),
    (b"\xfd7zXZ\0", Kind::Other("packed with xz, which is not read; unpack it (`tar -xf` or `xz -d`)")),
    (b"7z\xbc\xaf\x27\x1c", Kind::Other("a 7z archive, which is not read; unpack it")),
    (b"Rar!\x1a\x07", Kind::Other("a RAR archive, which is not read; unpack it")),
    (b"\x1f\x9d", Kind::Other("packed with compress, which is not read; unpack it (`uncompress`)")),
    (b"SQLite format 3\0", Kind::Other("an SQLite database, which is not read")),
    (b"%PDF-", Kind::Other("a PDF document, which is not read")),
    (b"<!DOCTYPE", Kind::Other("a web page: the download failed; get it again")),
    (b"<!doctype", Kind::Other("a web page: the download failed; get it again")),
    (b"<html", Kind::Other("a web page: the download failed; get it again")),
];

/// The format of a file that starts with these bytes; `None` for one that is not known.
pub(crate) fn kind_of(start: &[u8]) -> Option<Kind> {
    let is_header = start.first().is_some_and(|&byte| byte != 0) && tar_header(start);
    let magic = || MAGICS.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, kind)| *kind);
    match start {
        _ if is_header => Some(Kind::Tar),
        _ if crate::pickle::is_pickle(start) => Some(Kind::Pickle),
        [0, 0, 8..=0x0e, 1..=4, ..] => Some(Kind::Idx),
        _ => magic().or_else(|| image::guess_format(start).ok().map(|_| Kind::Picture)),
    }
}

/// Whether the bytes start with a header of a tar: its checksum is right.
fn tar_header(start: &[u8]) -> bool {
    let Some(header) = start.get(..START as usize) else { return false };
    let sum: u32 =
        header.iter().enumerate().map(|(at, &byte)| if (148..156).contains(&at) { 32 } else { byte.into() }).sum();
    tar::Header::from_byte_slice(header).cksum().is_ok_and(|checksum| checksum == sum)
}

/// The format of a file, which is at its start before and after.
pub(crate) fn recognize(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Kind>> {
    let start = start_of(&mut *file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(kind_of(&start))
}

/// The format of the contents of a gzip file, which is at its start before and after.
pub(crate) fn recognize_in_gzip(file: &mut (impl Read + Seek)) -> std::io::Result<Option<Kind>> {
    // of a broken file, what can be unpacked
    let start = start_of(MultiGzDecoder::new(&mut *file)).unwrap_or_default();
    file.seek(SeekFrom::Start(0))?;
    Ok(kind_of(&start))
}

fn start_of(stream: impl Read) -> std::io::Result<Vec<u8>> {
    let mut start = Vec::new();
    stream.take(START).read_to_end(&mut start)?;
    Ok(start)
}

/// Whether a name, in any letter case, is that of a tar, packed or not.
pub(crate) fn is_tar_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let packed = [".gz", ".bz2", ".zst", ".xz", ".z", ".lzma"];
    let whole = [".tar", ".tgz", ".tbz", ".tbz2", ".tzst", ".txz", ".tlz"];
    let bare = packed.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    bare.ends_with(".tar") || whole.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{archive, gray, idx, tar};

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (bytes, kind) in [
            (archive(&[("a", b"b")]), Some(Kind::Zip)),
            (tar(&[("a", b"b")]), Some(Kind::Tar)),
            (gray(1, 1, 1), Some(Kind::Picture)),
            (idx(&[1], &[1]), Some(Kind::Idx)),
            (b"\x93NUMPY\x01".to_vec(), Some(Kind::Npy)),
            (b"PAR1".to_vec(), Some(Kind::Parquet)),
            (b"BZh9".to_vec(), Some(Kind::Bzip2)),
            (b"\x80\x02}".to_vec(), Some(Kind::Pickle)),
            (vec![0; 1000], None),
            (vec![0x42; 1000], None),
            (b"".to_vec(), None),
        ] {
            assert_eq!(kind_of(&bytes), kind, "{bytes:?}");
        }
        assert!(kind_of(b"7z\xbc\xaf\x27\x1c").unwrap().to_string().contains("7z archive"));
    }

    #[test]
    fn names_of_tars() {
        for name in ["a.tar", "A.TAR.GZ", "a.tgz", "a.tar.bz2", "a.tar.xz", "a.tzst"] {
            assert!(is_tar_name(name), "{name}");
        }
        for name in ["a.gz", "tar", "a.tar.png", "star", "a.zip"] {
            assert!(!is_tar_name(name), "{name}");
        }
    }
}
