//! Immiscible noise: the noise of a batch is assigned to the images that are near it (Li et al. 2024, arXiv:2406.12303).

use pathfinding::{kuhn_munkres::kuhn_munkres_min, matrix::Matrix};

/// Costs are rounded to integers in units of 1 / RESOLUTION.
const RESOLUTION: f64 = 1e6;

/// The index of the noise for each image, a permutation of `0..count` with the least sum of squared distances.
///
/// All noise stays in the batch, so that its distribution over the batch stays Gaussian.
///
/// # Shapes
/// - `images`, `noise`: `[count, …]`, row-major and of one length
pub(crate) fn assign_noise(images: &[f32], noise: &[f32], count: usize) -> Vec<usize> {
    let length = images.len() / count.max(1);
    if length == 0 {
        return (0..count).collect();
    }
    // |x - e|^2 = |x|^2 + |e|^2 - 2 x e, where only the last term depends on the assignment
    let cost = |(image, noise): (&[f32], &[f32])| {
        let product: f64 = image.iter().zip(noise).map(|(x, e)| f64::from(*x) * f64::from(*e)).sum();
        (-RESOLUTION * product) as i64
    };
    let pairs =
        images.chunks_exact(length).flat_map(|image| noise.chunks_exact(length).map(move |noise| (image, noise)));
    match Matrix::from_vec(count, count, pairs.map(cost).collect()) {
        Ok(costs) => kuhn_munkres_min(&costs).1,
        Err(_) => (0..count).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pairs_are_those_of_the_least_distance() {
        // the nearest noise of the first image is also the second's: the sum decides
        let images = [1.0, 0.0, 0.8, 0.6, -1.0, 0.0];
        let noise = [-0.9, 0.1, 1.0, 0.1, 0.9, -0.5];
        assert_eq!(assign_noise(&images, &noise, 3), [2, 1, 0]);
        assert_eq!(assign_noise(&[], &[], 0), Vec::<usize>::new());
    }

    #[test]
    fn no_exchange_of_two_is_better() {
        use noise::{Noise, Purpose};
        let (count, length) = (12, 30);
        let mut values = [vec![0.0; count * length], vec![0.0; count * length]];
        for (index, values) in values.iter_mut().enumerate() {
            Noise::new(5).stream(Purpose::Evaluation).normal(index as u64, 0, values);
        }
        let [images, noise] = &values;
        let distance = |image: usize, other: usize| -> f32 {
            let row = |of: &[f32], at: usize| of[at * length..(at + 1) * length].to_vec();
            row(images, image).iter().zip(row(noise, other)).map(|(x, e)| (x - e).powi(2)).sum()
        };
        let order = assign_noise(images, noise, count);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..count).collect::<Vec<_>>());
        for a in 0..count {
            for b in 0..a {
                let now = distance(a, order[a]) + distance(b, order[b]);
                let exchanged = distance(a, order[b]) + distance(b, order[a]);
                assert!(now <= exchanged + 1e-3, "{a} and {b}: {now} > {exchanged}");
            }
        }
    }
}
