//! A classifier that learned one half of the data judges samples of models that learned the other.

use anyhow::ensure;
use burn::tensor::Device;
use data::{ImageSet, LoadOptions, Padding};
use metrics::{DigitClassifier, FEATURES, Judgment, pixels};
use train::Config;

use crate::quality::confident;

/// Passes of the classifier over its half.
const EPOCHS: usize = 12;

/// Data that was cut: models learn the first half, a judge the second.
pub struct Halves {
    /// All images as one looks at them: without the border.
    pub images: ImageSet,
    /// The first half as models see it.
    pub padded: ImageSet,
    /// The first half, without the border.
    pub first: ImageSet,
    /// The second half, without the border.
    pub second: ImageSet,
}

/// Reads the data of `config` and cuts it; each half must have `count` images.
pub fn halves(config: &Config, count: usize) -> anyhow::Result<Halves> {
    let padded = data::open(&config.data.path, &config.load_options())?.images;
    let unpadded = LoadOptions { padding: Padding::None, ..config.load_options() };
    let images = data::open(&config.data.path, &unpadded)?.images;
    let path = &config.data.path;
    ensure!(images.labels().is_some(), "the data `{path}` has no labels, so that no classifier can judge");
    let half = images.len() / 2;
    ensure!(half >= count, "a half of `{path}` has {half} images, fewer than --count {count}");
    let (first, second) = (images.subset(0..half), images.subset(half..images.len()));
    Ok(Halves { padded: padded.subset(0..half), images, first, second })
}

/// The judge, and what it says of real images.
pub struct Judge {
    /// Learned the second half.
    pub classifier: DigitClassifier,
    /// Its judgment of the first half, which models learn.
    pub real: Judgment,
    /// Features of as many images of the first half as there are samples, spread evenly, `[count, FEATURES]`.
    pub some_real: Vec<f32>,
    /// Share of the first half that is called with confidence.
    pub confident_real: f64,
    /// The first half as models see it.
    pub padded: ImageSet,
}

impl Judge {
    /// Reads the data of `config`, cuts it into halves and trains the classifier; `count` samples will be judged at a time.
    pub fn new(config: &Config, count: usize, seed: u64, device: &Device) -> anyhow::Result<Self> {
        let Halves { padded, first, second, .. } = halves(config, count)?;
        let half = first.len();
        eprintln!("training the classifier on the other {} images", second.len());
        let classifier = DigitClassifier::train(&second, seed, EPOCHS, device)?;
        let real = classifier.classify(&pixels(&first))?;
        let confident_real = confident(&real);
        ensure!(confident_real > 0.0, "the classifier is sure of no real image");
        let row = |index: usize| &real.features[index * FEATURES..(index + 1) * FEATURES];
        let some_real = (0..count).flat_map(|index| row(index * half / count).iter().copied()).collect();
        Ok(Self { classifier, some_real, confident_real, real, padded })
    }
}
