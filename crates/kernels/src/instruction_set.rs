//! The vector instruction set of the native operations: the widest of the CPU.

use std::sync::OnceLock;

use pulp::{Arch, WithSimd};

/// The environment variable that chooses a narrower one, `avx2` or `scalar`, to test what other CPUs run. With any other
/// value, or `avx2` on a CPU without it, the widest is used.
pub const VARIABLE: &str = "KERNELS_INSTRUCTION_SET";

/// Runs `body` with the instruction set of this process.
pub(crate) fn dispatch<Op: WithSimd>(body: Op) -> Op::Output {
    static CHOSEN: OnceLock<Arch> = OnceLock::new();
    CHOSEN.get_or_init(choose).dispatch(body)
}

fn choose() -> Arch {
    match std::env::var(VARIABLE).as_deref() {
        Ok("scalar") => Arch::Scalar,
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        Ok("avx2") => pulp::x86::V3::try_new().map_or_else(Arch::new, Arch::V3),
        _ => Arch::new(),
    }
}
