//! Main memory, where the system tells of it (Linux).

use std::fs;

/// Bytes that this process holds.
pub fn resident_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS:")
}

/// The most bytes that this process has held.
pub fn peak_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmHWM:")
}

/// Bytes that are there for this process: what is free, and what it holds already.
pub fn available_bytes() -> Option<u64> {
    bytes_of("/proc/meminfo", "MemAvailable:").map(|free| free + resident_bytes().unwrap_or(0))
}

fn bytes_of(path: &str, key: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string(path).ok()?, key)
}

/// A line such as `VmRSS:   20 kB`, in bytes.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_bytes() {
        assert_eq!(kilobytes("A: 1 kB\nB:   20 kB\n", "B:"), Some(20_480));
        assert_eq!(kilobytes("A: 1 kB\n", "B:"), None);
    }
}
