use crate::reference::{assert_close, noise, same_in_every_pool, wide};
use kernels::adam::{AdamStep as Step, WeightDecay};
use kernels::cpu::optimizer::{Parameter, squared_norm, update};
use proptest::prelude::*;

/// One step of weight, gradient, moments and EMA, as PyTorch's loop for a single tensor.
fn reference(step: Step, state: &mut [Vec<f64>; 5]) {
    let [first, second] = step.betas;
    let (first_correction, second_correction) =
        (1.0 - first.powi(step.number as i32), 1.0 - second.powi(step.number as i32));
    for index in 0..state[0].len() {
        let mut gradient = state[1][index] * step.clip;
        match step.weight_decay {
            WeightDecay::Coupled(decay) => gradient += decay * state[0][index],
            WeightDecay::Decoupled(decay) => state[0][index] *= 1.0 - step.learning_rate * decay,
        }
        state[2][index] += (gradient - state[2][index]) * (1.0 - first);
        state[3][index] = state[3][index] * second + (1.0 - second) * gradient * gradient;
        let root = state[3][index].sqrt() / second_correction.sqrt() + step.epsilon;
        state[0][index] -= step.learning_rate / first_correction * state[2][index] / root;
        state[4][index] = state[4][index] * step.average_decay + state[0][index] * (1.0 - step.average_decay);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn steps_match(lengths in prop::collection::vec(prop_oneof![1..60usize, 1..40_000usize], 1..4),
                   coupled: bool, with_average: bool, seed: u64) {
        let decay = 0.03;
        let weight_decay = if coupled { WeightDecay::Coupled(decay) } else { WeightDecay::Decoupled(decay) };
        // an epsilon above the rounding of a gradient that all but cancels
        let step = |number| Step { number, learning_rate: 2e-3, betas: [0.9, 0.99], epsilon: 1e-3, weight_decay,
                                   clip: 0.8, average_decay: 0.95 };
        let start: Vec<_> = lengths.iter().map(|&length| noise(seed, length)).collect();
        let gradients = |number: u64| -> Vec<_> {
            lengths.iter().map(|&length| noise(seed.wrapping_add(number), length)).collect()
        };
        let result = same_in_every_pool(|| {
            let zeros: Vec<_> = lengths.iter().map(|&length| vec![0.0; length]).collect();
            let (mut value, mut mean, mut square) = (start.clone(), zeros.clone(), zeros);
            let mut average = if with_average { start.clone() } else { vec![Vec::new(); lengths.len()] };
            for number in 1..=3 {
                let gradients = gradients(number);
                let state = value.iter_mut().zip(&mut mean).zip(&mut square).zip(&mut average).zip(&gradients);
                let parameters = state.map(|((((value, mean), square), average), gradient)| {
                    Parameter { value, gradient, mean, square, average }
                });
                update(step(number), parameters.collect());
            }
            [value, mean, square, average].concat()
        });
        for (index, &length) in lengths.iter().enumerate() {
            let zeros = vec![0.0; length];
            let mut state = [wide(&start[index]), Vec::new(), zeros.clone(), zeros, wide(&start[index])];
            for number in 1..=3 {
                state[1] = wide(&gradients(number)[index]);
                reference(step(number), &mut state);
            }
            for (part, expected) in [0, 2, 3, 4].into_iter().enumerate() {
                let found = &result[part * lengths.len() + index];
                if with_average || expected < 4 {
                    assert_close(["value", "mean", "square", "average"][part], found, &state[expected], 1e-6);
                }
            }
        }
    }

    #[test]
    fn norms_match(lengths in prop::collection::vec(1..40_000usize, 1..4), seed: u64) {
        let gradients: Vec<_> = lengths.iter().map(|&length| noise(seed, length)).collect();
        let slices: Vec<&[f32]> = gradients.iter().map(|gradient| &gradient[..]).collect();
        same_in_every_pool(|| {
            let bits = squared_norm(&slices).to_bits();
            vec![vec![f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32)]]
        });
        let expected: f64 = gradients.iter().flatten().map(|&value| f64::from(value).powi(2)).sum();
        prop_assert!((squared_norm(&slices) - expected).abs() <= 1e-12 * expected);
    }
}

#[test]
fn non_finite_gradients_show() {
    for bad in [f32::NAN, f32::INFINITY] {
        let gradient = [1.0, bad, 2.0];
        assert!(!squared_norm(&[&gradient]).is_finite());
        let [mut value, mut mean, mut square, mut average] = [[0.5; 3]; 4];
        let step = Step {
            number: 1,
            learning_rate: 1e-3,
            betas: [0.9, 0.999],
            epsilon: 1e-8,
            weight_decay: WeightDecay::Coupled(0.0),
            clip: 1.0,
            average_decay: 0.9,
        };
        let (value_, mean_, square_, average_) = (&mut value[..], &mut mean[..], &mut square[..], &mut average[..]);
        update(
            step,
            vec![Parameter { value: value_, gradient: &gradient, mean: mean_, square: square_, average: average_ }],
        );
        for state in [value, mean, square, average] {
            assert!(!state[1].is_finite() && state[0].is_finite() && state[2].is_finite(), "{state:?}");
        }
    }
}
