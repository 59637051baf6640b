use crate::reference::{assert_close, assert_gradients, noise, same_in_every_pool, wide};
use kernels::cpu::attention::Shape;
use kernels::cpu::{attention, linear_attention};
use proptest::prelude::*;

/// `[part][key or query][dim]` of one head, the memory's before the positions'; `slot_major`: `[memory, head_dim]`.
fn head(shape: Shape, inputs: &[Vec<f64>], sample: usize, head: usize, slot_major: bool) -> [Vec<Vec<f64>>; 3] {
    let Shape { positions, heads, head_dim, memory, .. } = shape;
    [0, 1, 2].map(|part| {
        let slots = if part == 0 { 0 } else { memory };
        let of_memory = (0..slots).map(|slot| {
            let start = ((part - 1) * heads + head) * memory * head_dim;
            let offset = |dim| if slot_major { slot * head_dim + dim } else { dim * memory + slot };
            (0..head_dim).map(|dim| inputs[1][start + offset(dim)]).collect()
        });
        let of_positions = (0..positions).map(|position| {
            let start = (((sample * positions + position) * 3 + part) * heads + head) * head_dim;
            inputs[0][start..][..head_dim].to_vec()
        });
        of_memory.chain(of_positions).collect()
    })
}

fn softmax(values: &[f64]) -> Vec<f64> {
    let greatest = values.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = values.iter().map(|value| (value - greatest).exp()).sum();
    values.iter().map(|value| (value - greatest).exp() / sum).collect()
}

/// Inputs: qkv, memory.
fn reference(shape: Shape, linear: bool, inputs: &[Vec<f64>]) -> Vec<f64> {
    let Shape { batch, positions, heads, head_dim, .. } = shape;
    let scale = (head_dim as f64).powf(-0.5);
    let mut output = vec![0.0; batch * positions * heads * head_dim];
    for sample in 0..batch {
        for index in 0..heads {
            let [query, key, value] = head(shape, inputs, sample, index, !linear);
            let mut write = |position: usize, dim: usize, value: f64| {
                output[((sample * positions + position) * heads + index) * head_dim + dim] += value;
            };
            if linear {
                let columns: Vec<Vec<f64>> =
                    (0..head_dim).map(|dim| softmax(&key.iter().map(|key| key[dim]).collect::<Vec<_>>())).collect();
                let context =
                    |d: usize, e: usize| -> f64 { columns[d].iter().zip(&value).map(|(k, v)| k * v[e]).sum() };
                for d in 0..head_dim {
                    for e in 0..head_dim {
                        let context = context(d, e);
                        for (position, query) in query.iter().enumerate() {
                            let greatest = query.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
                            let sum: f64 = query.iter().map(|q| (q - greatest).exp()).sum();
                            write(position, e, scale * (query[d] - greatest).exp() / sum * context);
                        }
                    }
                }
                continue;
            }
            for (position, query) in query.iter().enumerate() {
                let dot = |key: &Vec<f64>| scale * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                let weights = softmax(&key.iter().map(dot).collect::<Vec<_>>());
                for (weight, value) in weights.iter().zip(&value) {
                    value.iter().enumerate().for_each(|(dim, value)| write(position, dim, weight * value));
                }
            }
        }
    }
    output
}

/// Output, gradients of qkv and memory.
fn run(shape: Shape, linear: bool, qkv: &[f32], memory: &[f32], dy: &[f32]) -> Vec<Vec<f32>> {
    let mut output = vec![7.0; shape.output()];
    let (mut qkv_gradient, mut memory_gradient) = (vec![7.0; qkv.len()], vec![7.0; memory.len()]);
    if linear {
        let mut saved = vec![7.0; shape.saved()];
        linear_attention::forward(shape, qkv, memory, &mut output, &mut saved);
        linear_attention::backward(shape, qkv, memory, &saved, dy, &mut qkv_gradient, &mut memory_gradient);
    } else {
        let mut rows = vec![7.0; shape.rows()];
        attention::forward(shape, qkv, memory, &mut output, &mut rows);
        attention::backward(shape, qkv, memory, &output, &rows, dy, &mut qkv_gradient, &mut memory_gradient);
    }
    vec![output, qkv_gradient, memory_gradient]
}

fn check(shape: Shape, linear: bool, seed: u64, spread: f32) {
    let mut qkv = noise(seed, shape.qkv());
    qkv.iter_mut().for_each(|value| *value *= spread);
    let (memory, dy) = (noise(seed ^ 1, shape.memory()), noise(seed ^ 2, shape.output()));
    let result = same_in_every_pool(|| run(shape, linear, &qkv, &memory, &dy));
    let reference = |inputs: &[Vec<f64>]| reference(shape, linear, inputs);
    assert_close("output", &result[0], &reference(&[wide(&qkv), wide(&memory)]), 3e-6);
    let mut gradients = vec![("qkv", &result[1][..]), ("memory", &result[2])];
    gradients.truncate(if shape.memory > 0 { 2 } else { 1 });
    assert_gradients(&reference, &[&qkv, &memory], &dy, &gradients, 1e-5);
}

fn any_shape() -> impl Strategy<Value = Shape> {
    (1..3usize, 1..30usize, 1..4usize, 1..20usize, 0..6usize)
        .prop_map(|(batch, positions, heads, head_dim, memory)| Shape { batch, positions, heads, head_dim, memory })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn small_shapes_match(shape in any_shape(), linear: bool, seed: u64, spread in 0.1f32..3.0) {
        check(shape, linear, seed, spread);
    }
}

#[test]
fn several_blocks_match() {
    for linear in [false, true] {
        check(Shape { batch: 1, positions: 300, heads: 2, head_dim: 32, memory: 4 }, linear, 5, 1.0);
        check(Shape { batch: 2, positions: 259, heads: 1, head_dim: 3, memory: 0 }, linear, 6, 2.0);
    }
}

#[test]
fn large_scores_do_not_overflow() {
    for linear in [false, true] {
        let shape = Shape { batch: 1, positions: 20, heads: 1, head_dim: 8, memory: 2 };
        let mut qkv = noise(1, shape.qkv());
        qkv.iter_mut().for_each(|value| *value *= 40.0);
        let (memory, dy) = (noise(2, shape.memory()), noise(3, shape.output()));
        let result = run(shape, linear, &qkv, &memory, &dy);
        // scores of thousands carry the rounding of f32 into the exponent
        assert_close("output", &result[0], &reference(shape, linear, &[wide(&qkv), wide(&memory)]), 1e-3);
        assert!(result.iter().flatten().all(|value| value.is_finite()));
    }
}

#[test]
fn non_finite_input_shows() {
    let shape = Shape { batch: 2, positions: 9, heads: 2, head_dim: 8, memory: 3 };
    for linear in [false, true] {
        for bad in [f32::NAN, f32::INFINITY] {
            for part in 0..3 {
                let mut qkv = noise(1, shape.qkv());
                let (memory, dy) = (noise(2, shape.memory()), noise(3, shape.output()));
                qkv[part * 16 + 3] = bad; // first sample, position and head
                let result = run(shape, linear, &qkv, &memory, &dy);
                let first_row = &result[0][..8];
                assert!(first_row.iter().any(|value| !value.is_finite()), "{linear} {bad} {part}: {first_row:?}");
                assert!(!result[1][part * 16 + 3].is_finite() || part == 2, "{linear} {bad} {part}");
                assert!(result[0][9 * 16..].iter().all(|value| value.is_finite()), "the other sample");
            }
        }
    }
}
