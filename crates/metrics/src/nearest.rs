//! Distances to the nearest reference.

use rayon::prelude::*;

use crate::error::{MetricsError, rows};

/// Partial sums of a distance, for vector instructions.
const LANES: usize = 16;

/// The Euclidean distance from each query to the nearest reference, in units of the values: between images in [-1, 1],
/// one pixel that goes from black to white counts 2. Computed on all cores; the result does not depend on how many.
///
/// # Shapes
/// - `queries`: `[count, dim]`, `references`: `[any, dim]`, row-major; `references` has at least one row
/// - result: `[count]`
///
/// # Errors
/// [`MetricsError`] if an array is no whole number of rows, holds a value that is not finite, or there is no reference.
pub fn nearest_distance(queries: &[f32], references: &[f32], dim: usize) -> Result<Vec<f64>, MetricsError> {
    rows("queries", queries, dim, 0)?;
    rows("references", references, dim, 1)?;
    let nearest = |query: &[f32]| {
        let squares = references.chunks_exact(dim).map(|reference| squared_distance(query, reference));
        squares.fold(f64::INFINITY, f64::min).sqrt()
    };
    Ok(queries.par_chunks_exact(dim).map(nearest).collect())
}

/// The Euclidean distance from each image to the nearest *other* one of the set, which [`nearest_distance`] to this set is
/// compared with.
///
/// # Shapes
/// - `images`: `[count, dim]`, row-major, at least 2 rows; result: `[count]`
///
/// # Errors
/// [`MetricsError`] if the array is no whole number of rows, has less than 2, or holds a value that is not finite.
pub fn nearest_other_distance(images: &[f32], dim: usize) -> Result<Vec<f64>, MetricsError> {
    rows("images", images, dim, 2)?;
    let nearest = |(index, image): (usize, &[f32])| {
        let others = images.chunks_exact(dim).enumerate().filter(|(other, _)| *other != index);
        others.map(|(_, other)| squared_distance(image, other)).fold(f64::INFINITY, f64::min).sqrt()
    };
    Ok(images.par_chunks_exact(dim).enumerate().map(nearest).collect())
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    let (chunks_a, chunks_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = chunks_a.remainder().iter().zip(chunks_b.remainder());
    let rest: f64 = rest.map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let mut sums = [0f32; LANES];
    for (a, b) in chunks_a.zip(chunks_b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += (a - b) * (a - b);
        }
    }
    rest + sums.into_iter().map(f64::from).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use noise::{Noise, Purpose};

    #[test]
    fn the_nearest_is_found() {
        let references = [0.0, 0.0, 10.0, 0.0, 0.0, 10.0];
        let queries = [3.0, 4.0, 10.0, 0.0, 0.0, 9.0];
        assert_eq!(nearest_distance(&queries, &references, 2).unwrap(), [5.0, 0.0, 1.0]);
        assert!(nearest_distance(&[], &references, 2).unwrap().is_empty());
    }

    #[test]
    fn an_image_is_not_its_own_neighbor() {
        assert_eq!(nearest_other_distance(&[0.0, 1.0, 5.0, 5.0], 1).unwrap(), [1.0, 1.0, 0.0, 0.0]);
        assert!(nearest_other_distance(&[0.0], 1).is_err());
    }

    #[test]
    fn it_is_the_root_of_the_sum_of_squares() {
        // 37 = 2 * LANES + 5: whole lanes and a rest
        let dim = 2 * LANES + 5;
        let mut values = vec![0.0; 7 * dim];
        Noise::new(1).stream(Purpose::Evaluation).normal(0, 0, &mut values);
        let (queries, references) = values.split_at(3 * dim);
        let found = nearest_distance(queries, references, dim).unwrap();
        for (query, found) in queries.chunks(dim).zip(found) {
            let distance = |reference: &[f32]| {
                let squares = query.iter().zip(reference).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
                squares.sum::<f64>().sqrt()
            };
            let expected = references.chunks(dim).map(distance).fold(f64::INFINITY, f64::min);
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
        }
    }

    #[test]
    fn arrays_that_are_no_sets_of_images_are_refused() {
        let (what, length) = ("queries", 3);
        assert_eq!(nearest_distance(&[0.0; 3], &[0.0; 2], 2), Err(MetricsError::Length { what, length, dim: 2 }));
        let what = "references";
        assert_eq!(nearest_distance(&[0.0; 2], &[], 2), Err(MetricsError::TooFew { what, rows: 0, needed: 1 }));
        let error = nearest_distance(&[0.0; 2], &[0.0, f32::NAN], 2).unwrap_err();
        assert!(error.to_string().starts_with("references: value 1 of row 0 is NaN"), "{error}");
    }
}
