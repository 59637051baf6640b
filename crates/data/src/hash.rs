//! SHA-256 of streams, and its hexadecimal digits.

use std::io::Read;

use sha2::{Digest, Sha256};

/// The number of bytes of a stream, and their SHA-256.
pub(crate) fn sha256(mut stream: impl Read) -> std::io::Result<(u64, [u8; 32])> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok((length, hash.finalize().into()));
        }
        hash.update(&buffer[..count]);
        length += count as u64;
    }
}

/// The hash of a selection of the parts of a file, by their names in order: a part of the key of the cache.
pub(crate) fn of_selection(names: impl Iterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    for name in names {
        hash.update((name.as_ref().len() as u64).to_le_bytes());
        hash.update(name);
    }
    hexadecimal(&hash.finalize())
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
