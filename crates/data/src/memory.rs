//! Main memory of this process. Every number is `None` where the system has no `/proc` (only Linux has it).

use std::fs;

/// Bytes of main memory that this process holds.
pub fn resident_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmRSS:")
}

/// The most bytes of main memory that this process has held.
pub fn peak_bytes() -> Option<u64> {
    bytes_of("/proc/self/status", "VmHWM:")
}

/// Bytes that this process may still take: [`available_bytes`] without those that it holds.
pub fn free_bytes() -> Option<u64> {
    Some(available_bytes()?.saturating_sub(resident_bytes().unwrap_or(0)))
}

/// Bytes that this process may hold in all: those that it holds and those that are free, within the limits of its container
/// (cgroup, versions 1 and 2) and of its address space (`ulimit -v`).
pub fn available_bytes() -> Option<u64> {
    let held = resident_bytes().unwrap_or(0);
    let free = bytes_of("/proc/meminfo", "MemAvailable:").map(|free| free + held);
    let container = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let container = container.into_iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let taken = bytes_of("/proc/self/status", "VmSize:").unwrap_or(0);
    let address_space = address_space_limit(&limits).map(|limit| limit.saturating_sub(taken) + held);
    free.into_iter().chain(container).chain(address_space).min()
}

/// The soft limit in `/proc/self/limits`; `None` for `unlimited`.
fn address_space_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn bytes_of(path: &str, key: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string(path).ok()?, key)
}

/// The value of a line such as `VmRSS:   20 kB`, in bytes.
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
        let limits =
            |value: &str| format!("Limit Soft Hard Units\nMax address space         {value}   unlimited  bytes\n");
        assert_eq!(address_space_limit(&limits("2097152000")), Some(2_097_152_000));
        assert_eq!(address_space_limit(&limits("unlimited")), None);
    }
}
