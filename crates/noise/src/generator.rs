//! Counter-based random numbers: a function of seed, purpose, noise index and step.

use burn::tensor::{Device, Tensor, TensorData};
use kernels::normal::normal;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use rayon::prelude::*;

/// Random numbers that [`kernels::normal`] makes in one call. Even, as it makes them in pairs.
const NORMAL_BLOCK: usize = 256;

/// The use of random numbers. Two purposes share no numbers: enabling flips, for example, does not change the noise of a
/// run.
///
/// In training the noise index is the position of the sample in the run, in sampling the index of the image within its
/// seed. The step is 0 unless stated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// epsilon of a training sample.
    Epsilon,
    /// t of a training sample; normal numbers for a distribution of noise levels are at step 1.
    Timesteps,
    /// Horizontal flip of a training image.
    Flips,
    /// Replacement of a label by the null class (classifier-free guidance).
    LabelDropout,
    /// Dropout masks inside the network: step = layer.
    Dropout,
    /// Use of self-conditioning in a training batch.
    SelfConditioning,
    /// Initial weights of the network: noise index = index of the parameter.
    Weights,
    /// x_T, the start of the reverse process.
    InitialNoise,
    /// Noise that a sampler adds: step = sampling step.
    SamplerNoise,
    /// Draws for held-out losses and figures, the same at every training step.
    Evaluation,
    /// Any other use; the number keeps them apart.
    Custom(u32),
}

impl Purpose {
    /// The number that is mixed into the key. It is part of the format: changing one changes every run.
    const fn id(self) -> u64 {
        match self {
            Self::Epsilon => 1,
            Self::Timesteps => 2,
            Self::Flips => 3,
            Self::LabelDropout => 4,
            Self::Dropout => 5,
            Self::SelfConditioning => 6,
            Self::Weights => 7,
            Self::InitialNoise => 8,
            Self::SamplerNoise => 9,
            Self::Evaluation => 10,
            Self::Custom(number) => (1 << 32) | number as u64,
        }
    }
}

/// A seed, from which all random numbers of a run follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    seed: u64,
}

impl Noise {
    /// The random numbers of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The seed.
    pub const fn seed(&self) -> u64 {
        self.seed
    }

    /// The random numbers of one purpose.
    pub const fn stream(&self, purpose: Purpose) -> NoiseStream {
        NoiseStream { seed: self.seed, purpose }
    }
}

/// The random numbers of one seed and one purpose, addressed by noise index and step.
///
/// Each address has a ChaCha8 generator of its own, whose 256-bit key is (seed, purpose, noise index, step). Normal numbers
/// are Box-Muller's ([`kernels::normal`]), whose bits do not depend on the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoiseStream {
    seed: u64,
    purpose: Purpose,
}

impl NoiseStream {
    fn generator(&self, noise_index: u64, step: u64) -> ChaCha8Rng {
        let mut key = [0u8; 32];
        let words = [self.seed, self.purpose.id(), noise_index, step];
        for (bytes, word) in key.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }

    /// Fills `out` with standard normal numbers (mean 0, variance 1, |x| < 6.8).
    pub fn normal(&self, noise_index: u64, step: u64, out: &mut [f32]) {
        let mut generator = self.generator(noise_index, step);
        for block in out.chunks_mut(NORMAL_BLOCK) {
            let bits: [u32; NORMAL_BLOCK] = core::array::from_fn(|_| generator.next_u32());
            normal(&bits, block);
        }
    }

    /// Fills `out` with uniform numbers in (0, 1), never 0 or 1.
    pub fn uniform(&self, noise_index: u64, step: u64, out: &mut [f32]) {
        let mut generator = self.generator(noise_index, step);
        for value in out {
            // 23 bits and a half keep the rounding to f32 inside the open interval
            *value = ((f64::from(generator.next_u32() >> 9) + 0.5) / f64::from(1u32 << 23)) as f32;
        }
    }

    /// Draws one integer, uniform in `0..bound` without bias (Lemire's multiplication with rejection); 0 if `bound` is 0.
    pub fn below(&self, noise_index: u64, step: u64, bound: u64) -> u64 {
        if bound == 0 {
            return 0;
        }
        let mut generator = self.generator(noise_index, step);
        loop {
            let product = u128::from(generator.next_u64()) * u128::from(bound);
            let low = product as u64;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 64) as u64;
            }
        }
    }

    /// Draws true with the given `probability` in [0, 1].
    pub fn chance(&self, noise_index: u64, step: u64, probability: f64) -> bool {
        let mut value = [0f32];
        self.uniform(noise_index, step, &mut value);
        f64::from(value[0]) < probability
    }

    /// Draws standard normal images on `device`, shape `[noise_indices.len(), channels, height, width]`; image i depends on
    /// `(noise_indices[i], step)` alone, not on the rest of the batch.
    pub fn normal_images(&self, noise_indices: &[u64], step: u64, image: [usize; 3], device: &Device) -> Tensor<4> {
        self.offset_images(noise_indices, step, image, 0.0, device)
    }

    /// [`normal_images`](Self::normal_images) of the shape of `like`, on its device and in its number format.
    ///
    /// # Panics
    /// If there is not one noise index for each image of `like`.
    pub fn normal_like(&self, noise_indices: &[u64], step: u64, like: &Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = like.dims();
        assert_eq!(noise_indices.len(), batch, "one noise index for each image");
        let images = self.image_data(noise_indices, step, [channels, height, width], 0.0);
        Tensor::from_data(images, (&like.device(), like.dtype()))
    }

    /// [`normal_images`](Self::normal_images) plus `strength` times one further normal number for each image and
    /// channel: offset noise, with which a model learns images that are dark or bright on the whole (Guttenberg 2023,
    /// crosslabs.org/blog/diffusion-with-offset-noise; lucidrains' `offset_noise_strength`).
    pub fn offset_images(
        &self,
        noise_indices: &[u64],
        step: u64,
        image: [usize; 3],
        strength: f64,
        device: &Device,
    ) -> Tensor<4> {
        Tensor::from_data(self.image_data(noise_indices, step, image, strength), device)
    }

    /// [`offset_images`](Self::offset_images) in main memory.
    pub fn image_data(&self, noise_indices: &[u64], step: u64, image: [usize; 3], strength: f64) -> TensorData {
        let [channels, height, width] = image;
        let size = channels * height * width;
        let mut values = vec![0f32; noise_indices.len() * size];
        if size > 0 {
            values.par_chunks_mut(size).zip(noise_indices).for_each(|(out, &noise_index)| {
                if strength == 0.0 {
                    self.normal(noise_index, step, out);
                } else {
                    // the offsets are drawn after the image, which is therefore the same at any strength
                    let padded = size + size % 2;
                    let mut all = vec![0f32; padded + channels];
                    self.normal(noise_index, step, &mut all);
                    out.copy_from_slice(&all[..size]);
                    for (plane, offset) in out.chunks_mut(height * width).zip(&all[padded..]) {
                        plane.iter_mut().for_each(|value| *value += (strength * f64::from(*offset)) as f32);
                    }
                }
            });
        }
        TensorData::new(values, [noise_indices.len(), channels, height, width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn draw(purpose: Purpose, noise_index: u64, step: u64, count: usize) -> Vec<f32> {
        let mut out = vec![0f32; count];
        Noise::new(7).stream(purpose).normal(noise_index, step, &mut out);
        out
    }

    #[test]
    fn moments_are_those_of_a_standard_normal() {
        let count = 1_000_000;
        let values = draw(Purpose::Epsilon, 0, 0, count);
        let moment = |power: i32| values.iter().map(|&v| f64::from(v).powi(power)).sum::<f64>() / count as f64;
        // four standard errors, which are 1/sqrt(n), sqrt(2/n), sqrt(15/n) and sqrt(96/n)
        let allowed = |variance: f64| 4.0 * (variance / count as f64).sqrt();
        assert!(moment(1).abs() < allowed(1.0), "mean {}", moment(1));
        assert!((moment(2) - 1.0).abs() < allowed(2.0), "variance {}", moment(2));
        assert!(moment(3).abs() < allowed(15.0), "third moment {}", moment(3));
        assert!((moment(4) - 3.0).abs() < allowed(96.0), "fourth moment {}", moment(4));
        let beyond_three = values.iter().filter(|v| v.abs() > 3.0).count() as f64 / count as f64;
        assert!((beyond_three - 0.0027).abs() < 4.0 * (0.0027f64 / count as f64).sqrt());
    }

    #[test]
    fn neighboring_numbers_are_uncorrelated() {
        let values = draw(Purpose::Epsilon, 3, 9, 100_000);
        let products: f64 = values.windows(2).map(|w| f64::from(w[0]) * f64::from(w[1])).sum();
        assert!((products / 1e5).abs() < 4.0 / 1e5f64.sqrt());
    }

    #[test]
    fn bits_are_frozen() {
        // a change here changes the result of every seed: it needs a new format version
        let bits: Vec<u32> = draw(Purpose::Epsilon, 17, 3, 4).iter().map(|v| v.to_bits()).collect();
        assert_eq!(bits, FROZEN);
    }
    const FROZEN: [u32; 4] = [1_060_602_374, 1_065_590_993, 1_070_511_013, 1_054_323_684];

    #[test]
    fn each_part_of_the_address_matters() {
        let base = draw(Purpose::Epsilon, 1, 1, 8);
        assert_ne!(base, draw(Purpose::Timesteps, 1, 1, 8));
        assert_ne!(base, draw(Purpose::Epsilon, 2, 1, 8));
        assert_ne!(base, draw(Purpose::Epsilon, 1, 2, 8));
        let mut other = vec![0f32; 8];
        Noise::new(8).stream(Purpose::Epsilon).normal(1, 1, &mut other);
        assert_ne!(base, other);
        assert_ne!(Purpose::Custom(1).id(), Purpose::Epsilon.id());
    }

    #[test]
    fn an_image_is_the_same_alone_or_in_a_batch_on_any_number_of_threads() {
        let device = Device::flex();
        let stream = Noise::new(5).stream(Purpose::InitialNoise);
        let values = |noise_indices: &[u64]| -> Vec<f32> {
            stream.normal_images(noise_indices, 0, [3, 5, 7], &device).into_data().try_to_vec().expect("f32")
        };
        let batch = values(&(0..20).collect::<Vec<_>>());
        assert_eq!(values(&[17]), batch[17 * 105..18 * 105]);
        let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
        assert_eq!(one_thread.install(|| values(&(0..20).collect::<Vec<_>>())), batch);
    }

    #[test]
    fn images_like_a_tensor_have_its_shape_and_number_format() {
        let device = Device::flex();
        let stream = Noise::new(5).stream(Purpose::InitialNoise);
        let like = Tensor::<4>::zeros([2, 3, 5, 7], (&device, burn::tensor::DType::F64));
        let images = stream.normal_like(&[17, 3], 4, &like);
        assert_eq!((images.dims(), images.dtype()), (like.dims(), like.dtype()));
        let plain = stream.normal_images(&[17, 3], 4, [3, 5, 7], &device);
        assert!(images.into_data().iter::<f64>().eq(plain.into_data().iter::<f64>()));
    }

    #[test]
    fn offset_noise_shifts_whole_channels_and_leaves_the_rest() {
        let device = Device::flex();
        let stream = Noise::new(5).stream(Purpose::Epsilon);
        let plain = stream.normal_images(&[4], 2, [3, 5, 5], &device);
        let offset = stream.offset_images(&[4], 2, [3, 5, 5], 0.1, &device);
        let difference: Vec<f32> = (offset - plain).into_data().try_to_vec().expect("f32");
        let mut shifts = Vec::new();
        for plane in difference.chunks(25) {
            assert!(plane.iter().all(|value| (value - plane[0]).abs() < 1e-6));
            shifts.push(plane[0]);
        }
        assert!(shifts.iter().all(|shift| *shift != 0.0 && shift.abs() < 0.7));
        assert!((shifts[0] - shifts[1]).abs() > 1e-4);
    }

    #[test]
    fn below_is_uniform() {
        let stream = Noise::new(1).stream(Purpose::Timesteps);
        let mut counts = [0f64; 7];
        for noise_index in 0..70_000 {
            counts[stream.below(noise_index, 0, 7) as usize] += 1.0;
        }
        let chi_squared: f64 = counts.iter().map(|count| (count - 1e4).powi(2) / 1e4).sum();
        assert!(chi_squared < 22.5, "99.9 % of chi-squared with 6 degrees of freedom is 22.46, got {chi_squared}");
        assert_eq!(stream.below(0, 0, 0), 0);
    }

    proptest! {
        #[test]
        fn uniform_numbers_lie_in_the_open_interval(seed: u64, noise_index: u64, step: u64) {
            let mut values = [0f32; 64];
            Noise::new(seed).stream(Purpose::Flips).uniform(noise_index, step, &mut values);
            prop_assert!(values.iter().all(|value| *value > 0.0 && *value < 1.0));
        }

        #[test]
        fn a_longer_draw_begins_with_the_shorter(noise_index: u64, step: u64, length in 1usize..64) {
            let long = draw(Purpose::SamplerNoise, noise_index, step, 64);
            prop_assert_eq!(&draw(Purpose::SamplerNoise, noise_index, step, length)[..], &long[..length]);
        }
    }
}
