//! The kernel distance between two clouds of features (KID).

use noise::{Noise, NoiseStream, Purpose};
use rayon::prelude::*;

use crate::error::{MetricsError, rows};

/// The subsets of [`kernel_distance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelOptions {
    /// Number of subsets, at least 2.
    pub subsets: usize,
    /// Rows of each, at least 2; never more than the smaller set has.
    pub subset_size: usize,
    /// The seed of the choice of rows.
    pub seed: u64,
}

impl Default for KernelOptions {
    fn default() -> Self {
        Self { subsets: 100, subset_size: 1000, seed: 0 }
    }
}

/// A kernel distance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// The mean over the subsets; unbiased, so it may be below 0 for sets of one distribution.
    pub mean: f64,
    /// The standard deviation over the subsets, as other implementations print it.
    pub deviation: f64,
    /// Half the width of a 95 % confidence interval of the mean, from the estimate over all rows by a jackknife over rows.
    pub confidence: f64,
}

/// The squared maximum mean discrepancy with the kernel `(x . y / dim + 1)^3`, by the unbiased estimate, over random subsets
/// (Binkowski, Sutherland, Arbel and Gretton 2018, arXiv:1801.01401).
///
/// # Shapes
/// - `features_a`: `[count_a, dim]`, `features_b`: `[count_b, dim]`, row-major, each with at least 3 rows
///
/// # Errors
/// [`MetricsError`] if an array is no whole number of rows, has less than 3, holds a value that is not finite, or there are
/// fewer than 2 subsets or rows of one.
pub fn kernel_distance(
    features_a: &[f32],
    features_b: &[f32],
    dim: usize,
    options: KernelOptions,
) -> Result<KernelDistance, MetricsError> {
    let count_a = rows("features_a", features_a, dim, 3)?;
    let count_b = rows("features_b", features_b, dim, 3)?;
    for (what, given) in [("subsets", options.subsets), ("subset_size", options.subset_size)] {
        if given < 2 {
            return Err(MetricsError::TooFew { what, rows: given, needed: 2 });
        }
    }
    let wide = |features: &[f32]| -> Vec<f64> { features.iter().copied().map(f64::from).collect() };
    let (wide_a, wide_b) = (wide(features_a), wide(features_b));
    let all_a: Vec<Row> = wide_a.chunks_exact(dim).collect();
    let all_b: Vec<Row> = wide_b.chunks_exact(dim).collect();
    let size = options.subset_size.min(count_a).min(count_b);
    let noise = Noise::new(options.seed).stream(Purpose::Evaluation);
    let values: Vec<f64> = (0..options.subsets)
        .into_par_iter()
        .map(|subset| unbiased(&draw(&all_a, size, noise, [subset, 0]), &draw(&all_b, size, noise, [subset, 1])))
        .collect();
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64;
    Ok(KernelDistance { mean, deviation: variance.sqrt(), confidence: 1.96 * jackknife(&all_a, &all_b) })
}

/// The features of an image, `[dim]`.
type Row<'a> = &'a [f64];

/// `size` rows for one of the two sets of a subset: the first of a shuffled list (Fisher and Yates).
fn draw<'a>(all: &[Row<'a>], size: usize, noise: NoiseStream, [subset, set]: [usize; 2]) -> Vec<Row<'a>> {
    let mut rows = all.to_vec();
    for place in 0..size {
        let address = (subset * size + place) as u64;
        let other = place + noise.below(address, set as u64, (rows.len() - place) as u64) as usize;
        rows.swap(place, other);
    }
    rows.truncate(size);
    rows
}

/// `(a . b / dim + 1)^3`
fn kernel(a: Row, b: Row) -> f64 {
    let product: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    (product / a.len() as f64 + 1.0).powi(3)
}

/// Sums of the kernel of each row of `a` with the rows of `b`.
fn row_sums(a: &[Row], b: &[Row]) -> Vec<f64> {
    a.par_iter().map(|a| b.iter().map(|b| kernel(a, b)).sum()).collect()
}

/// The unbiased estimate: means over pairs of different rows of each set, less twice the mean over pairs of both.
fn unbiased(a: &[Row], b: &[Row]) -> f64 {
    let within = |set: &[Row]| {
        let count = set.len() as f64;
        let diagonal: f64 = set.iter().map(|row| kernel(row, row)).sum();
        (row_sums(set, set).iter().sum::<f64>() - diagonal) / (count * (count - 1.0))
    };
    let crossed: f64 = row_sums(a, b).iter().sum::<f64>() / (a.len() * b.len()) as f64;
    within(a) + within(b) - 2.0 * crossed
}

/// The standard error of [`unbiased`] of both whole sets, from the estimates without each row in turn (Efron and Stein 1981).
fn jackknife(a: &[Row], b: &[Row]) -> f64 {
    let part = |own: &[Row], other: &[Row]| {
        let (m, n) = (own.len() as f64, other.len() as f64);
        let (within, crossed) = (row_sums(own, own), row_sums(own, other));
        let diagonal: Vec<f64> = own.iter().map(|row| kernel(row, row)).collect();
        let all_within: f64 = within.iter().sum::<f64>() - diagonal.iter().sum::<f64>();
        let all_crossed: f64 = crossed.iter().sum();
        let without = |row: usize| {
            let pairs = all_within - 2.0 * (within[row] - diagonal[row]);
            pairs / ((m - 1.0) * (m - 2.0)) - 2.0 * (all_crossed - crossed[row]) / ((m - 1.0) * n)
        };
        let values: Vec<f64> = (0..own.len()).map(without).collect();
        let mean = values.iter().sum::<f64>() / m;
        (m - 1.0) / m * values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()
    };
    (part(a, b) + part(b, a)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(seed: u64, count: usize, dim: usize) -> Vec<f32> {
        let mut values = vec![0.0; count * dim];
        Noise::new(seed).stream(Purpose::Custom(5)).normal(0, 0, &mut values);
        values
    }

    /// scikit-learn's `polynomial_kernel(x, y, degree=3, gamma=1/dim, coef0=1)` and the sums of the paper's equation, worked out
    /// by hand for two sets of three numbers.
    #[test]
    fn it_is_the_estimate_of_the_paper() {
        let (a, b) = ([0.0f32, 1.0, 2.0], [1.0f32, 3.0, -1.0]);
        // kernels of pairs: (xy + 1)^3. a: 0*1, 0*2, 1*2 -> 1, 1, 27; b: 3, -1, -3 -> 64, 0, -8
        let within = 2.0 * (1.0 + 1.0 + 27.0) / 6.0 + 2.0 * (64.0 + 0.0 - 8.0) / 6.0;
        // crossed: 0: 1, 1, 1; 1: 8, 64, 0; 2: 27, 343, -1
        let crossed = 2.0 * (3.0 + 72.0 + 369.0) / 9.0;
        let found = kernel_distance(&a, &b, 1, KernelOptions::default()).expect("a distance");
        assert!((found.mean - (within - crossed)).abs() < 1e-12, "{found:?}");
        // every subset is the whole
        assert!(found.deviation < 1e-12);
    }

    #[test]
    fn sets_of_one_distribution_are_at_no_distance() {
        let (a, b) = (normal(1, 600, 8), normal(2, 500, 8));
        let found = kernel_distance(&a, &b, 8, KernelOptions { subset_size: 200, ..KernelOptions::default() });
        let found = found.expect("a distance");
        assert!(found.mean.abs() < 3.0 * found.confidence / 1.96, "{found:?}");
        let shifted: Vec<f32> = b.iter().map(|value| value + 1.0).collect();
        let far = kernel_distance(&a, &shifted, 8, KernelOptions::default()).expect("a distance");
        assert!(far.mean > 5.0 * far.confidence, "{far:?}");
    }

    /// The standard error is that of many draws.
    #[test]
    fn the_confidence_is_the_spread_of_new_draws() {
        let draws: Vec<KernelDistance> = (0..40)
            .map(|seed| {
                let (a, b) = (normal(100 + seed, 150, 4), normal(200 + seed, 150, 4));
                let b: Vec<f32> = b.iter().map(|value| value * 1.5).collect();
                kernel_distance(&a, &b, 4, KernelOptions { subsets: 2, subset_size: 150, seed }).expect("a distance")
            })
            .collect();
        let mean = draws.iter().map(|draw| draw.mean).sum::<f64>() / 40.0;
        let spread = (draws.iter().map(|draw| (draw.mean - mean).powi(2)).sum::<f64>() / 39.0).sqrt();
        let claimed = draws.iter().map(|draw| draw.confidence / 1.96).sum::<f64>() / 40.0;
        assert!((0.6..1.6).contains(&(claimed / spread)), "claimed {claimed}, found {spread}");
    }

    #[test]
    fn too_little_is_refused() {
        let error = kernel_distance(&[0.0; 2], &[0.0; 4], 1, KernelOptions::default()).unwrap_err();
        assert!(error.to_string().contains("features_a: 2 rows are too few"), "{error}");
        let options = KernelOptions { subsets: 1, ..KernelOptions::default() };
        assert!(kernel_distance(&[0.0; 4], &[0.0; 4], 1, options).is_err());
    }
}
