//! The Fréchet distance between two clouds of features.

use nalgebra::{DMatrix, DVector, SymmetricEigen};

use crate::error::{MetricsError, rows};

/// Iterations that an eigen-decomposition may take; one of 128 x 128 takes a few hundred.
const ITERATIONS: usize = 1_000_000;

/// The squared Fréchet distance between Gaussians fitted to two sets of features (Dowson and Landau 1982; Heusel et al.
/// 2017, arXiv:1706.08500, equation 6): `|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))`, in f64 with unbiased
/// covariances. It is in squared units of the features, and its bias grows as the sets shrink: compare sets of one size.
///
/// # Shapes
/// - `features_a`: `[count_a, dim]`, `features_b`: `[count_b, dim]`, row-major, each with at least 2 rows
///
/// # Errors
/// [`MetricsError`] if an array is no whole number of rows, has less than 2, or holds a value that is not finite.
pub fn frechet_distance(features_a: &[f32], features_b: &[f32], dim: usize) -> Result<f64, MetricsError> {
    let (mean_a, a) = centered("features_a", features_a, dim)?;
    let (mean_b, b) = centered("features_b", features_b, dim)?;
    let root_trace = if a.nrows().min(b.nrows()) < dim {
        root_trace_of_rows(&a, &b)?
    } else {
        root_trace_of_covariances(&a.tr_mul(&a), &b.tr_mul(&b))?
    };
    Ok((mean_a - mean_b).norm_squared() + a.norm_squared() + b.norm_squared() - 2.0 * root_trace)
}

/// `tr((S_a S_b)^(1/2))`: the eigenvalues of S_a S_b are those of the symmetric `S_a^(1/2) S_b S_a^(1/2)`.
fn root_trace_of_covariances(covariance_a: &DMatrix<f64>, covariance_b: &DMatrix<f64>) -> Result<f64, MetricsError> {
    let root_a = square_root("features_a", covariance_a)?;
    sum_of_roots(&root_a * covariance_b * &root_a)
}

/// The same where there are fewer rows than features, from the smaller matrix: with `S_a = A^T A`, `S_b = B^T B` the non-zero
/// eigenvalues of S_a S_b are those of `(A B^T)(A B^T)^T`, or of its transpose.
fn root_trace_of_rows(a: &DMatrix<f64>, b: &DMatrix<f64>) -> Result<f64, MetricsError> {
    let crossed = a * b.transpose();
    let crossed = if a.nrows() <= b.nrows() { crossed } else { crossed.transpose() };
    sum_of_roots(&crossed * crossed.transpose())
}

/// The sum of the roots of the eigenvalues of a positive semi-definite matrix.
fn sum_of_roots(matrix: DMatrix<f64>) -> Result<f64, MetricsError> {
    let matrix = (&matrix + matrix.transpose()) * 0.5;
    Ok(eigen("both sets", matrix)?.eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum())
}

/// The mean `[dim]` of `[count, dim]` features, and their differences from it over `sqrt(count - 1)`: a matrix A whose `A^T A`
/// is the unbiased covariance.
fn centered(what: &'static str, features: &[f32], dim: usize) -> Result<(DVector<f64>, DMatrix<f64>), MetricsError> {
    let count = rows(what, features, dim, 2)?;
    let mut centered = DMatrix::from_row_iterator(count, dim, features.iter().map(|value| f64::from(*value)));
    let mean = centered.row_mean().transpose();
    for (mut column, mean) in centered.column_iter_mut().zip(mean.iter()) {
        column.add_scalar_mut(-mean);
    }
    centered /= ((count - 1) as f64).sqrt();
    Ok((mean, centered))
}

/// The symmetric root of a positive semi-definite matrix.
fn square_root(what: &'static str, matrix: &DMatrix<f64>) -> Result<DMatrix<f64>, MetricsError> {
    let SymmetricEigen { eigenvectors, eigenvalues } = eigen(what, matrix.clone())?;
    // rounding may leave a zero eigenvalue below 0
    let roots = eigenvalues.map(|value| value.max(0.0).sqrt());
    Ok(&eigenvectors * DMatrix::from_diagonal(&roots) * eigenvectors.transpose())
}

fn eigen(what: &'static str, matrix: DMatrix<f64>) -> Result<SymmetricEigen<f64, nalgebra::Dyn>, MetricsError> {
    SymmetricEigen::try_new(matrix, f64::EPSILON, ITERATIONS)
        .ok_or(MetricsError::Eigenvalues { what, iterations: ITERATIONS })
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise::{Noise, Purpose};

    /// `[count, dim]` standard normal numbers.
    fn normal(seed: u64, count: usize, dim: usize) -> Vec<f32> {
        let mut values = vec![0.0; count * dim];
        Noise::new(seed).stream(Purpose::Evaluation).normal(0, 0, &mut values);
        values
    }

    /// Each row of `[count, dim]` times `matrix` `[dim, dim]`.
    fn mixed(values: &[f32], dim: usize, matrix: &[f32]) -> Vec<f32> {
        let entry = |row: &[f32], column: usize| (0..dim).map(|at| row[at] * matrix[at * dim + column]).sum();
        values.chunks_exact(dim).flat_map(|row| (0..dim).map(move |column| entry(row, column))).collect()
    }

    #[test]
    fn equal_sets_are_at_distance_0() {
        let dim = 20;
        let features = mixed(&normal(1, 300, dim), dim, &normal(2, dim, dim));
        let distance = frechet_distance(&features, &features, dim).unwrap();
        assert!(distance.abs() < 1e-6, "{distance}");
    }

    #[test]
    fn fewer_rows_than_features_are_possible() {
        // a covariance of rank 9 in 30 dimensions
        let features = normal(3, 10, 30);
        let distance = frechet_distance(&features, &features, 30).unwrap();
        assert!(distance.abs() < 1e-6, "{distance}");
    }

    #[test]
    fn in_one_dimension_it_is_the_closed_form() {
        // means 1 and 4, unbiased variances 1 and 4: (1 - 4)^2 + (1 - 2)^2 = 10
        let distance = frechet_distance(&[0.0, 1.0, 2.0], &[2.0, 4.0, 6.0], 1).unwrap();
        assert!((distance - 10.0).abs() < 1e-12, "{distance}");
    }

    #[test]
    fn of_diagonal_covariances_it_is_the_closed_form() {
        // a square's corners: covariance diag(4/3, 4/3); stretched by 3 and 1/2: diag(12, 1/3)
        let square = [1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0];
        let stretched: Vec<f32> = square.chunks(2).flat_map(|point| [point[0] * 3.0, point[1] * 0.5]).collect();
        let distance = frechet_distance(&square, &stretched, 2).unwrap();
        // (sqrt(12) - sqrt(4/3))^2 + (sqrt(1/3) - sqrt(4/3))^2 = 4/3 (3 - 1)^2 + 4/3 (1 - 1/2)^2
        assert!((distance - 4.0 / 3.0 * 4.25).abs() < 1e-6, "{distance}");
    }

    #[test]
    fn covariances_that_do_not_commute_are_right() {
        // S_a = [[2, 1], [1, 3]], S_b = [[4, -1], [-1, 1]], equal means. For 2 x 2 matrices (Cayley and Hamilton):
        // tr (S_a S_b)^(1/2) = sqrt(tr(S_a S_b) + 2 sqrt(det S_a det S_b)) = sqrt(9 + 2 sqrt(15))
        let points = |root: [f64; 3]| -> Vec<f32> {
            // rows +-sqrt(3/2) e_i L^T with L the Cholesky factor give the covariance L L^T
            let [first, cross, second] = root.map(|value| (value * 1.5f64.sqrt()) as f32);
            vec![first, cross, -first, -cross, 0.0, second, 0.0, -second]
        };
        let a = points([2f64.sqrt(), 1.0 / 2f64.sqrt(), 2.5f64.sqrt()]);
        let b = points([2.0, -0.5, 0.75f64.sqrt()]);
        let expected = 2.0 + 3.0 + 4.0 + 1.0 - 2.0 * (9.0 + 2.0 * 15f64.sqrt()).sqrt();
        let distance = frechet_distance(&a, &b, 2).unwrap();
        assert!((distance - expected).abs() < 1e-5, "{distance} is not {expected}");
        let swapped = frechet_distance(&b, &a, 2).unwrap();
        assert!((distance - swapped).abs() < 1e-9, "{distance}, {swapped}");
    }

    #[test]
    fn a_shift_adds_its_square() {
        let dim = 5;
        let features = mixed(&normal(4, 100, dim), dim, &normal(5, dim, dim));
        let shifted: Vec<f32> = features.iter().map(|value| value + 2.0).collect();
        let distance = frechet_distance(&features, &shifted, dim).unwrap();
        assert!((distance - 5.0 * 4.0).abs() < 1e-4, "{distance}");
    }

    #[test]
    fn arrays_that_are_no_sets_of_features_are_refused() {
        let what = "features_b";
        let good = [0.0, 1.0, 2.0, 3.0];
        let refused = |bad: &[f32], dim| frechet_distance(&good, bad, dim).unwrap_err();
        assert_eq!(refused(&[0.0; 5], 2), MetricsError::Length { what, length: 5, dim: 2 });
        assert_eq!(refused(&[0.0; 2], 2), MetricsError::TooFew { what, rows: 1, needed: 2 });
        let infinite = MetricsError::NotFinite { what, row: 1, index: 0, value: f32::INFINITY };
        assert_eq!(refused(&[0.0, 0.0, f32::INFINITY, 0.0], 2), infinite);
        assert!(matches!(frechet_distance(&good, &good, 0), Err(MetricsError::Length { dim: 0, .. })));
    }
}
