//! Precision and recall by the neighborhoods of features.

use rayon::prelude::*;

use crate::error::{MetricsError, rows};

/// The overlap of samples and real images in feature space. All are shares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Manifold {
    /// Of the samples, those in the neighborhood of some real image: quality (Kynkäänniemi et al. 2019, arXiv:1904.06991).
    pub precision: f64,
    /// Of the real images, those in the neighborhood of some sample: variety.
    pub recall: f64,
    /// Neighborhoods of real images that a sample lies in, on average over samples and over k: precision that is robust to
    /// outliers; may exceed 1 (Naeem et al. 2020, arXiv:2002.09797).
    pub density: f64,
    /// Of the real images, those with a sample in their neighborhood.
    pub coverage: f64,
}

/// Compares samples with real images; a neighborhood reaches to the `neighbors`-th nearest of the same set.
///
/// # Shapes
/// - `samples`: `[count, dim]`, `real`: `[any, dim]`, row-major, each with more rows than `neighbors`
///
/// # Errors
/// [`MetricsError`] if an array is no whole number of rows, has too few, or holds a value that is not finite; or if
/// `neighbors` is 0.
pub fn manifold(samples: &[f32], real: &[f32], dim: usize, neighbors: usize) -> Result<Manifold, MetricsError> {
    if neighbors == 0 {
        return Err(MetricsError::TooFew { what: "neighbors", rows: 0, needed: 1 });
    }
    let sample_count = rows("samples", samples, dim, neighbors + 1)?;
    let real_count = rows("real", real, dim, neighbors + 1)?;
    let (sample_radii, real_radii) = (radii(samples, dim, neighbors), radii(real, dim, neighbors));

    // for each sample, the number of neighborhoods of real images that it lies in
    let within: Vec<usize> =
        samples.par_chunks_exact(dim).map(|sample| inside(sample, real, &real_radii, dim)).collect();
    let recalled = real.par_chunks_exact(dim).filter(|image| inside(image, samples, &sample_radii, dim) > 0).count();
    let covered = real
        .par_chunks_exact(dim)
        .zip(&real_radii)
        .filter(|(image, radius)| samples.chunks_exact(dim).any(|sample| squared(image, sample) <= **radius))
        .count();
    let share = |count: usize, all: usize| count as f64 / all as f64;
    Ok(Manifold {
        precision: share(within.iter().filter(|count| **count > 0).count(), sample_count),
        recall: share(recalled, real_count),
        density: share(within.iter().sum(), sample_count * neighbors),
        coverage: share(covered, real_count),
    })
}

/// Number of neighborhoods around `centers` that hold a point.
fn inside(point: &[f32], centers: &[f32], radii: &[f64], dim: usize) -> usize {
    centers.chunks_exact(dim).zip(radii).filter(|(center, radius)| squared(point, center) <= **radius).count()
}

/// The squared distance of each row to its `neighbors`-th nearest other row.
fn radii(features: &[f32], dim: usize, neighbors: usize) -> Vec<f64> {
    let radius = |(index, row): (usize, &[f32])| {
        let others = features.chunks_exact(dim).enumerate().filter(|(other, _)| *other != index);
        let mut distances: Vec<f64> = others.map(|(_, other)| squared(row, other)).collect();
        *distances.select_nth_unstable_by(neighbors - 1, f64::total_cmp).1
    };
    features.par_chunks_exact(dim).enumerate().map(radius).collect()
}

fn squared(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_line_it_can_be_counted() {
        // radii to the nearest: real 1, 1, 3; samples 0.5, 0.5, 4.5
        let real = [0.0f32, 1.0, 4.0];
        let samples = [0.5f32, 1.0, 5.5];
        let found = manifold(&samples, &real, 1, 1).expect("shares");
        // 0.5 lies near 0 and 1; 1 near 0, 1 and 4; 5.5 near 4: two, three and one
        assert_eq!((found.precision, found.density), (1.0, 2.0));
        // 0 lies near 0.5; 1 near both and 5.5; 4 near 5.5
        assert_eq!((found.recall, found.coverage), (1.0, 1.0));
    }

    #[test]
    fn collapsed_samples_are_precise_and_cover_little() {
        let real: Vec<f32> = (0..100).map(|index| index as f32).collect();
        let samples: Vec<f32> = (0..50).map(|index| 50.0 + index as f32 * 1e-3).collect();
        let found = manifold(&samples, &real, 1, 3).expect("shares");
        assert_eq!(found.precision, 1.0);
        assert!(found.recall <= 0.01 && found.coverage < 0.06, "{found:?}");
        let far: Vec<f32> = samples.iter().map(|value| value + 1000.0).collect();
        let found = manifold(&far, &real, 1, 3).expect("shares");
        assert_eq!((found.precision, found.coverage, found.density), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_set_is_its_own_manifold() {
        let set: Vec<f32> = (0..60).map(|index| (index as f32 * 0.7).sin()).collect();
        let found = manifold(&set, &set, 2, 3).expect("shares");
        assert_eq!((found.precision, found.recall, found.coverage), (1.0, 1.0, 1.0));
    }

    #[test]
    fn too_few_rows_are_refused() {
        let error = manifold(&[0.0; 3], &[0.0; 9], 1, 3).unwrap_err();
        assert!(error.to_string().contains("samples: 3 rows are too few, at least 4"), "{error}");
        assert!(manifold(&[0.0; 3], &[0.0; 9], 1, 0).is_err());
    }
}
