//! The native operations on the CPU.

mod cases;
mod evaluation;

use burn::tensor::{DType, Device};
use cases::large;
use evaluation::evaluate;

const CASES: u32 = 48;

fn device() -> Device {
    Device::flex()
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    for (name, inputs, function) in large() {
        let with_threads = |count: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().expect("threads");
            pool.install(|| evaluate(&*function, &inputs, &device(), DType::F32))
        };
        let one = with_threads(1);
        for count in [2, 3] {
            assert_eq!(one, with_threads(count), "{name} with {count} threads");
        }
    }
}
