//! Operations evaluated with all their gradients, and compared.

use burn::tensor::{DType, Device, Tensor, TensorData};

/// A function of flat tensors.
pub type Function<'a> = &'a dyn Fn(&[Tensor<1>]) -> Tensor<1>;

/// Pseudo-random numbers in (-1, 1), all distinct.
pub fn numbers(count: usize, seed: u64) -> Vec<f64> {
    (0..count as u64)
        .map(|index| {
            let mixed = (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.wrapping_mul(0xD1B5_4A32_D192_ED03);
            let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((mixed >> 11) as f64 / (1u64 << 53) as f64) * 2.0 - 1.0
        })
        .collect()
}

/// The result, and the gradient of each input of a weighted sum of the results.
pub fn evaluate(function: Function, inputs: &[Vec<f64>], device: &Device, dtype: DType) -> Vec<Vec<f64>> {
    let device = device.clone().autodiff();
    let upload =
        |values: &[f64]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), (&device, dtype));
    let leaves: Vec<Tensor<1>> = inputs.iter().map(|values| upload(values).require_grad()).collect();
    let result = function(&leaves);
    let weights = upload(&numbers(result.dims()[0], 99));
    let gradients = (result.clone() * weights).sum().backward();
    let read = |tensor: Tensor<1>| tensor.into_data().iter::<f64>().collect::<Vec<f64>>();
    let gradient = |leaf: &Tensor<1>| read(leaf.grad(&gradients).expect("a gradient"));
    core::iter::once(read(result.inner())).chain(leaves.iter().map(gradient)).collect()
}

/// The largest difference of two evaluations, over the largest value of each tensor, or 1 (a gradient may be a difference of
/// large numbers).
pub fn difference(ours: &[Vec<f64>], reference: &[Vec<f64>]) -> f64 {
    let mut largest = 0f64;
    assert_eq!(ours.len(), reference.len());
    for (ours, reference) in ours.iter().zip(reference) {
        assert_eq!(ours.len(), reference.len());
        let scale = reference.iter().fold(1f64, |scale, value| scale.max(value.abs()));
        for (ours, reference) in ours.iter().zip(reference) {
            let difference = (ours - reference).abs() / scale;
            // NaN counts as the largest
            largest = if difference.is_nan() { f64::INFINITY } else { largest.max(difference) };
        }
    }
    largest
}
