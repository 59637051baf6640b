use crate::reference::{assert_close, assert_gradients, noise, same_in_every_pool, wide};
use kernels::cpu::softmax::{backward, forward};
use proptest::prelude::*;

fn reference(columns: usize, input: &[f64]) -> Vec<f64> {
    let row = |row: &[f64]| {
        let greatest = row.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = row.iter().map(|x| (x - greatest).exp()).sum();
        row.iter().map(|x| (x - greatest).exp() / sum).collect::<Vec<_>>()
    };
    input.chunks_exact(columns).flat_map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn softmaxes_match(rows in 1..300usize, columns in 1..150usize, seed: u64, offset in -200f32..200.0) {
        let (mut x, dy) = (noise(seed, rows * columns), noise(seed ^ 1, rows * columns));
        x.iter_mut().for_each(|x| *x = 3.0 * *x + offset);
        let result = same_in_every_pool(|| {
            let (mut y, mut dx) = (vec![7.0; x.len()], vec![7.0; x.len()]);
            forward(columns, &x, &mut y);
            backward(columns, &y, &dy, &mut dx);
            vec![y, dx]
        });
        assert_close("y", &result[0], &reference(columns, &wide(&x)), 1e-6);
        if columns > 1 {
            assert_gradients(&|x| reference(columns, &x[0]), &[&x], &dy, &[("dx", &result[1])], 2e-6);
        }
    }
}

#[test]
fn non_finite_input_shows() {
    for (place, columns) in [(0, 1), (18, 19), (3, 19)] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = noise(1, 2 * columns);
            x[place] = bad;
            let mut y = vec![0.0; x.len()];
            forward(columns, &x, &mut y);
            assert!(y[..columns].iter().all(|y| y.is_nan()) && y[columns..].iter().all(|y| y.is_finite()), "{y:?}");
        }
    }
    // minus infinity is a mask
    let mut y = [0.0; 3];
    forward(3, &[f32::NEG_INFINITY, -500.0, -500.0], &mut y);
    assert_eq!(y, [0.0, 0.5, 0.5]);
    forward(3, &[f32::NEG_INFINITY; 3], &mut y);
    assert!(y.iter().all(|y| y.is_nan()));
}
