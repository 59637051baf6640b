//! A small classifier of pictures.

use burn::{
    module::{Module, Param},
    optim::{AdamConfig, GradientsParams},
    tensor::{
        Device, Tensor, TensorData, activation, module,
        ops::{ConvOptions, MaxPoolOptions},
    },
};
use data::{ImageSet, order::Order};
use noise::{Noise, NoiseStream, Purpose};

use crate::error::{MetricsError, rows};

/// Number of features of an image.
pub const FEATURES: usize = 128;

/// Random numbers of the initial weights, which differ from those of a diffusion model with the same seed.
const WEIGHTS: Purpose = Purpose::Custom(0x6a75_6467);
/// Random numbers of the shifts of training images.
const SHIFTS: Purpose = Purpose::Custom(0x6a75_6468);

const CHANNELS: [usize; 2] = [16, 32];
const KERNEL: usize = 5;
const BATCH_SIZE: usize = 50;
/// The largest shift of a training image, in pixels.
const LARGEST_SHIFT: i64 = 2;
const LEARNING_RATE: f64 = 2e-3;
/// Images that are classified at a time.
const CLASSIFY_AT_A_TIME: usize = 250;

/// A convolution or an affine map, laid out as PyTorch's.
#[derive(Module, Debug)]
struct Layer<const D: usize> {
    /// `[out, in, …]`
    weight: Param<Tensor<D>>,
    /// `[out]`
    bias: Param<Tensor<1>>,
}

impl<const D: usize> Layer<D> {
    /// PyTorch's default: uniform in ±1/sqrt(fan_in). The random numbers are those of the samples `index` and `index + 1`.
    fn new(noise: NoiseStream, index: u64, shape: [usize; D], device: &Device) -> Self {
        let fan_in: usize = shape[1..].iter().product();
        let bound = 1.0 / (fan_in as f32).sqrt();
        let uniform = |index: u64, shape: &[usize]| {
            let mut values = vec![0f32; shape.iter().product()];
            noise.uniform(index, 0, &mut values);
            values.iter_mut().for_each(|value| *value = (*value * 2.0 - 1.0) * bound);
            TensorData::new(values, shape.to_vec())
        };
        Self::of(uniform(index, &shape), uniform(index + 1, &shape[..1]), device)
    }

    fn of(weight: TensorData, bias: TensorData, device: &Device) -> Self {
        let weight = Param::from_tensor(Tensor::from_data(weight, device));
        Self { weight, bias: Param::from_tensor(Tensor::from_data(bias, device)) }
    }

    fn data(&self) -> [TensorData; 2] {
        [self.weight.val().into_data(), self.bias.val().into_data()]
    }
}

impl Layer<4> {
    /// Convolution, ReLU and max pooling by 2.
    fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([1, 1], [KERNEL / 2; 2], [1, 1], 1);
        let x = module::conv2d(x, self.weight.val(), Some(self.bias.val()), options);
        activation::relu(module::max_pool2d(x, MaxPoolOptions::new([2, 2])))
    }
}

impl Layer<2> {
    fn affine(&self, x: Tensor<2>) -> Tensor<2> {
        x.matmul(self.weight.val().transpose()) + self.bias.val().unsqueeze()
    }
}

/// Two convolutions and two affine maps.
#[derive(Module, Debug)]
struct Network {
    /// `[16, channels, 5, 5]`
    first: Layer<4>,
    /// `[32, 16, 5, 5]`
    second: Layer<4>,
    /// `[128, 32 * (height / 4) * (width / 4)]`
    features: Layer<2>,
    /// `[classes, 128]`
    classes: Layer<2>,
}

impl Network {
    fn new([channels, height, width]: [usize; 3], classes: usize, seed: u64, device: &Device) -> Self {
        let noise = Noise::new(seed).stream(WEIGHTS);
        let [first, second] = CHANNELS;
        let flat = second * (height / 4) * (width / 4);
        Self {
            first: Layer::new(noise, 0, [first, channels, KERNEL, KERNEL], device),
            second: Layer::new(noise, 2, [second, first, KERNEL, KERNEL], device),
            features: Layer::new(noise, 4, [FEATURES, flat], device),
            classes: Layer::new(noise, 6, [classes, FEATURES], device),
        }
    }

    /// `[batch, channels, height, width]` to features `[batch, 128]` (after their ReLU) and logits `[batch, classes]`.
    fn forward(&self, x: Tensor<4>) -> (Tensor<2>, Tensor<2>) {
        let x = self.second.convolve(self.first.convolve(x));
        let features = activation::relu(self.features.affine(x.flatten(1, 3)));
        let logits = self.classes.affine(features.clone());
        (features, logits)
    }
}

/// All pixels of a set in [-1, 1], `[count, channels, height, width]`, as [`DigitClassifier::classify`] takes them.
pub fn pixels(images: &ImageSet) -> Vec<f32> {
    images.batch((0..images.len()).map(|index| (index, false)))
}

/// The classifier's predictions for some images.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgment {
    /// `[count, FEATURES]`, row-major, at least 0: the input of the last layer.
    pub features: Vec<f32>,
    /// `[count, classes]`, row-major; each row sums to 1.
    pub probabilities: Vec<f32>,
    /// The number of classes.
    pub classes: usize,
}

impl Judgment {
    /// The most probable class of each image, and its probability: the confidence. `[count]`
    pub fn called(&self) -> Vec<(usize, f32)> {
        let largest = |row: &[f32]| {
            row.iter().copied().enumerate().fold((0, 0.0), |best, (class, probability)| {
                if probability > best.1 { (class, probability) } else { best }
            })
        };
        self.probabilities.chunks_exact(self.classes).map(largest).collect()
    }
}

/// A small convolutional network (after LeNet-5, LeCun et al. 1998) that predicts the class of an image: made for digits of
/// 28 x 28, and possible for any labeled images of at least 4 x 4.
#[derive(Clone, Debug)]
pub struct DigitClassifier {
    network: Network,
    /// Channels, height, width.
    image: [usize; 3],
    classes: usize,
    device: Device,
}

impl DigitClassifier {
    /// Trains on `images`, each shifted by up to 2 pixels, for `epochs` with Adam, whose learning rate falls to 0 as half a
    /// cosine. The same images, seed and device give the same classifier.
    ///
    /// # Errors
    /// [`MetricsError`] if the images have no labels of at least two classes or are smaller than 4 x 4, or `epochs` is 0.
    pub fn train(images: &ImageSet, seed: u64, epochs: usize, device: &Device) -> Result<Self, MetricsError> {
        let image @ [_, height, width] = [images.channels(), images.height(), images.width()];
        let classes = images.classes();
        if classes < 2 || images.is_empty() {
            return Err(MetricsError::NoLabels { name: images.name().to_owned() });
        }
        if height.min(width) < 4 {
            return Err(MetricsError::TooSmall { height, width });
        }
        if epochs == 0 {
            return Err(MetricsError::NoEpochs);
        }
        let autodiff = device.clone().autodiff();
        let mut network = Network::new(image, classes, seed, &autodiff);
        let mut optimizer = AdamConfig::new().with_epsilon(1e-8).init();
        let (mut order, shifts) = (Order::new(images.len(), seed), Noise::new(seed).stream(SHIFTS));
        let total = (epochs * images.len()) as u64;
        for start in (0..total).step_by(BATCH_SIZE) {
            let positions = start..total.min(start + BATCH_SIZE as u64);
            let (x, targets) = batch(images, positions, &mut order, shifts, &autodiff);
            let (_, logits) = network.forward(x);
            let [size, _] = targets.dims();
            let loss = -(activation::log_softmax(logits, 1) * targets).sum() / size as f64;
            let gradients = GradientsParams::from_grads(loss.backward(), &network);
            let done = start as f64 / total as f64;
            let rate = LEARNING_RATE * 0.5 * (1.0 + (core::f64::consts::PI * done).cos());
            network = optimizer.step(rate, network, gradients);
        }
        Ok(Self { network: network.valid(), image, classes, device: device.clone() })
    }

    /// Trains on images without labels: to tell how an image is turned, by 0, 90, 180 or 270 degrees, or by 0 or 180 where it is not
    /// square (RotNet, Gidaris et al. 2018, arXiv:1803.07728). To do so it learns features of what the images show. An epoch sees
    /// each image once in each rotation.
    ///
    /// # Errors
    /// As [`train`](Self::train), but for labels.
    pub fn train_on_rotations(
        images: &ImageSet,
        seed: u64,
        epochs: usize,
        device: &Device,
    ) -> Result<Self, MetricsError> {
        Self::train(&rotated(images)?, seed, epochs, device)
    }

    /// Classifies images of the size that it was trained on.
    ///
    /// # Shapes
    /// - `pixels`: `[count, channels, height, width]` in [-1, 1], row-major
    ///
    /// # Errors
    /// [`MetricsError`] if `pixels` is no whole number of such images, or holds a value that is not finite.
    pub fn classify(&self, pixels: &[f32]) -> Result<Judgment, MetricsError> {
        let [channels, height, width] = self.image;
        let length = channels * height * width;
        let count = rows("pixels to classify", pixels, length, 0)?;
        let mut features = Vec::with_capacity(count * FEATURES);
        let mut probabilities = Vec::with_capacity(count * self.classes);
        for part in pixels.chunks(CLASSIFY_AT_A_TIME * length) {
            let shape = [part.len() / length, channels, height, width];
            let x = Tensor::from_data(TensorData::new(part.to_vec(), shape), &self.device);
            let (part_features, logits) = self.network.forward(x);
            features.extend(part_features.into_data().iter::<f32>());
            probabilities.extend(activation::softmax(logits, 1).into_data().iter::<f32>());
        }
        Ok(Judgment { features, probabilities, classes: self.classes })
    }

    /// The names of the tensors of [`state`](Self::state), in its order.
    pub const PARAMETERS: [&str; 8] = [
        "first.weight",
        "first.bias",
        "second.weight",
        "second.bias",
        "features.weight",
        "features.bias",
        "classes.weight",
        "classes.bias",
    ];

    /// All parameters, for a file.
    pub fn state(&self) -> Vec<TensorData> {
        let Network { first, second, features, classes } = &self.network;
        [first.data(), second.data(), features.data(), classes.data()].concat()
    }

    /// The classifier with this [`state`](Self::state), for images `[channels, height, width]`; None if the state is not that
    /// of one.
    pub fn from_state(image: [usize; 3], state: Vec<TensorData>, device: &Device) -> Option<Self> {
        let classes = *state.last()?.shape().first()?;
        if image[1].min(image[2]) < 4 || classes < 2 {
            return None;
        }
        let network = Network::new(image, classes, 0, device);
        let like = Self { network, image, classes, device: device.clone() };
        if !like.state().iter().map(TensorData::shape).eq(state.iter().map(TensorData::shape)) {
            return None;
        }
        let [first, first_bias, second, second_bias, features, features_bias, classes, classes_bias] =
            state.try_into().ok()?;
        let network = Network {
            first: Layer::of(first, first_bias, device),
            second: Layer::of(second, second_bias, device),
            features: Layer::of(features, features_bias, device),
            classes: Layer::of(classes, classes_bias, device),
        };
        Some(Self { network, ..like })
    }

    /// The number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Channels, height and width of its images.
    pub fn image(&self) -> [usize; 3] {
        self.image
    }
}

/// Each image in each rotation, with the rotation as its label.
fn rotated(images: &ImageSet) -> Result<ImageSet, MetricsError> {
    let (height, width, channels) = (images.height(), images.width(), images.channels());
    let quarters: &[u32] = if height == width { &[0, 1, 2, 3] } else { &[0, 2] };
    let mut pixels = Vec::with_capacity(quarters.len() * images.len() * images.image_len());
    for index in 0..images.len() {
        let image = images.bytes(index);
        for quarter in quarters {
            for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
                let (from_row, from_column) = match quarter {
                    0 => (row, column),
                    1 => (column, width - 1 - row),
                    2 => (height - 1 - row, width - 1 - column),
                    _ => (height - 1 - column, row),
                };
                pixels.extend_from_slice(&image[(from_row * width + from_column) * channels..][..channels]);
            }
        }
    }
    let labels = (0..images.len()).flat_map(|_| 0..quarters.len() as u32).collect();
    let shape = [quarters.len() * images.len(), height, width, channels];
    let name = images.name();
    ImageSet::new(name, pixels, shape, Some(labels), None).map_err(|_| MetricsError::NoLabels { name: name.to_owned() })
}

/// The shifted images at these positions of the run, `[batch, channels, height, width]`, and their labels, one-hot `[batch,
/// classes]`.
fn batch(
    images: &ImageSet,
    positions: core::ops::Range<u64>,
    order: &mut Order,
    shifts: NoiseStream,
    device: &Device,
) -> (Tensor<4>, Tensor<2>) {
    let (size, classes) = ((positions.end - positions.start) as usize, images.classes());
    let (height, width, length) = (images.height(), images.width(), images.image_len());
    let mut pixels = vec![0f32; size * length];
    let mut targets = vec![0f32; size * classes];
    let mut image = vec![0f32; length];
    let rows = pixels.chunks_exact_mut(length).zip(targets.chunks_exact_mut(classes));
    for (position, (out, target)) in positions.zip(rows) {
        let index = order.at(position);
        images.write_chw_f32(index, false, &mut image);
        let shift = |step| shifts.below(position, step, 2 * LARGEST_SHIFT as u64 + 1) as i64 - LARGEST_SHIFT;
        shifted(&image, [height, width], [shift(0), shift(1)], out);
        if let Some(label) = images.label(index) {
            target[label as usize] = 1.0;
        }
    }
    let shape = [size, images.channels(), height, width];
    let x = Tensor::from_data(TensorData::new(pixels, shape), device);
    (x, Tensor::from_data(TensorData::new(targets, [size, classes]), device))
}

/// `image`, `[channels, height, width]`, moved down and right by these numbers of pixels; new pixels are black (-1).
fn shifted(image: &[f32], [height, width]: [usize; 2], [down, right]: [i64; 2], out: &mut [f32]) {
    out.fill(-1.0);
    let from = |to: usize, by: i64, side: usize| usize::try_from(to as i64 - by).ok().filter(|from| *from < side);
    for (plane, out) in image.chunks_exact(height * width).zip(out.chunks_exact_mut(height * width)) {
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            let Some(row) = from(row, down, height) else { continue };
            for (column, out) in out.iter_mut().enumerate() {
                if let Some(column) = from(column, right, width) {
                    *out = plane[row * width + column];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digits() -> ImageSet {
        data::open("mnist-5k", &data::LoadOptions::default()).unwrap().images
    }

    fn accuracy(classifier: &DigitClassifier, images: &ImageSet) -> f64 {
        let called = classifier.classify(&pixels(images)).unwrap().called();
        let right = called.iter().zip(images.labels().unwrap()).filter(|(called, label)| called.0 == **label as usize);
        right.count() as f64 / images.len() as f64
    }

    #[test]
    fn shifts_move_and_fill_with_black() {
        let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let shift = |by| {
            let mut out = [9.0; 6];
            shifted(&image, [2, 3], by, &mut out);
            out
        };
        assert_eq!(shift([0, 0]), image);
        assert_eq!(shift([1, 0]), [-1.0, -1.0, -1.0, 1.0, 2.0, 3.0]);
        assert_eq!(shift([0, -1]), [2.0, 3.0, -1.0, 5.0, 6.0, -1.0]);
        assert_eq!(shift([-1, 2]), [-1.0, -1.0, 4.0, -1.0, -1.0, -1.0]);
        assert_eq!(shift([2, 0]), [-1.0; 6]);
    }

    #[test]
    fn the_called_class_is_the_most_probable() {
        let judgment = Judgment { features: vec![], probabilities: vec![0.2, 0.5, 0.3, 0.9, 0.1, 0.0], classes: 3 };
        assert_eq!(judgment.called(), [(1, 0.5), (0, 0.9)]);
    }

    #[test]
    fn two_epochs_suffice_for_most_digits() {
        let digits = digits();
        let classifier = DigitClassifier::train(&digits.subset(2500..5000), 0, 2, &Device::flex()).unwrap();
        let held_out = digits.subset(0..1000);
        let accuracy = accuracy(&classifier, &held_out);
        assert!(accuracy > 0.9, "{accuracy}");
        let judgment = classifier.classify(&pixels(&held_out)).unwrap();
        assert_eq!(judgment.features.len(), 1000 * FEATURES);
        assert!(judgment.features.iter().all(|feature| *feature >= 0.0));
        for row in judgment.probabilities.chunks(10) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
        }
    }

    #[test]
    fn a_classifier_is_restored_from_its_state() {
        let few = digits().subset(0..60);
        let classifier = DigitClassifier::train(&few, 1, 1, &Device::flex()).unwrap();
        let state = classifier.state();
        let again = DigitClassifier::from_state([1, 28, 28], state.clone(), &Device::flex()).unwrap();
        assert_eq!(again.classify(&pixels(&few)).unwrap(), classifier.classify(&pixels(&few)).unwrap());
        assert!(DigitClassifier::from_state([1, 32, 32], state.clone(), &Device::flex()).is_none());
        assert!(DigitClassifier::from_state([1, 28, 28], state[1..].to_vec(), &Device::flex()).is_none());
        assert!(DigitClassifier::from_state([1, 28, 28], vec![], &Device::flex()).is_none());
    }

    #[test]
    fn the_classifier_follows_from_the_seed() {
        let few = digits().subset(0..100);
        let judge = |seed| {
            let classifier = DigitClassifier::train(&few, seed, 1, &Device::flex()).unwrap();
            classifier.classify(&pixels(&few)).unwrap().probabilities
        };
        assert_eq!(judge(1), judge(1));
        assert_ne!(judge(1), judge(2));
    }

    #[test]
    fn batches_do_not_change_the_predictions() {
        let digits = digits();
        let classifier = DigitClassifier::train(&digits.subset(0..50), 0, 1, &Device::flex()).unwrap();
        // more than are classified at a time
        let many = classifier.classify(&pixels(&digits.subset(0..CLASSIFY_AT_A_TIME + 1))).unwrap();
        let last = classifier.classify(&pixels(&digits.subset([CLASSIFY_AT_A_TIME]))).unwrap();
        let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert_eq!(many.called().len(), CLASSIFY_AT_A_TIME + 1);
        let apart = difference(&many.features[CLASSIFY_AT_A_TIME * FEATURES..], &last.features);
        assert!(apart < 1e-4, "{apart}");
    }

    #[test]
    fn rotations_are_told_without_labels() {
        let tall = ImageSet::new("tall", vec![1, 2, 3, 4, 5, 6], [1, 3, 2, 1], None, None).unwrap();
        let both = rotated(&tall).unwrap();
        assert_eq!((both.image(0), both.image(1)), ([1, 2, 3, 4, 5, 6].as_slice(), [6, 5, 4, 3, 2, 1].as_slice()));
        let square = ImageSet::new("square", vec![1, 2, 3, 4], [1, 2, 2, 1], None, None).unwrap();
        let four = rotated(&square).unwrap();
        // counterclockwise
        let expected: [&[u8]; 4] = [&[1, 2, 3, 4], &[2, 4, 1, 3], &[4, 3, 2, 1], &[3, 1, 4, 2]];
        assert_eq!([0, 1, 2, 3].map(|index| four.image(index)), expected);
        assert_eq!(four.labels(), Some([0, 1, 2, 3].as_slice()));

        // features in which digits are near digits, and noise is not
        let digits = digits();
        let judge = DigitClassifier::train_on_rotations(&digits.subset(0..500), 0, 2, &Device::flex()).unwrap();
        let features = |images: &ImageSet| judge.classify(&pixels(images)).unwrap().features;
        let known = features(&digits.subset(1000..1300));
        let same = crate::frechet_distance(&features(&digits.subset(2000..2300)), &known, FEATURES).unwrap();
        let noise: Vec<u8> = (0..300u32 * 784).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let noise = ImageSet::new("noise", noise, [300, 28, 28, 1], None, None).unwrap();
        let other = crate::frechet_distance(&features(&noise), &known, FEATURES).unwrap();
        assert!(other > 10.0 * same, "{other} of noise, {same} of digits");
    }

    #[test]
    fn impossible_images_are_refused() {
        let device = Device::flex();
        let tiny = |labels| ImageSet::new("tiny", vec![0; 2 * 3 * 9], [2, 3, 9, 1], labels, None).unwrap();
        let refused = |images: &ImageSet, epochs| DigitClassifier::train(images, 0, epochs, &device).unwrap_err();
        assert_eq!(refused(&tiny(None), 1), MetricsError::NoLabels { name: "tiny".into() });
        assert_eq!(refused(&tiny(Some(vec![0, 0])), 1), MetricsError::NoLabels { name: "tiny".into() });
        assert_eq!(refused(&tiny(Some(vec![0, 1])), 1), MetricsError::TooSmall { height: 3, width: 9 });
        let few = digits().subset(0..10);
        assert_eq!(refused(&few.subset([]), 1), MetricsError::NoLabels { name: few.name().into() });
        assert_eq!(refused(&few, 0), MetricsError::NoEpochs);
        let classifier = DigitClassifier::train(&few, 0, 1, &device).unwrap();
        let error = classifier.classify(&[0.0; 783]).unwrap_err();
        assert_eq!(error, MetricsError::Length { what: "pixels to classify", length: 783, dim: 784 });
        assert!(matches!(classifier.classify(&[f32::NAN; 784]), Err(MetricsError::NotFinite { row: 0, .. })));
    }
}
