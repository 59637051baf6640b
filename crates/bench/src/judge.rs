//! Judgment of samples by a classifier: the data is cut into halves, of which models learn the first and the classifier the
//! second, so that neither knows what the other has seen. Samples and real images go through the same classifier.

use anyhow::ensure;
use burn::tensor::Device;
use data::{ImageSet, LoadOptions, Padding};
use metrics::{DigitClassifier, FEATURES, Judgment, Manifold, frechet_distance, manifold, pixels};
use pipeline::Request;
use serde::Serialize;
use train::Config;

use crate::measurement::timed;

/// The probability above which a class is called with confidence.
const CONFIDENT: f32 = 0.9;

/// Passes of the classifier over its half, unless an argument says otherwise.
pub const EPOCHS: u32 = 12;

/// Neighbors that a neighborhood of precision and recall reaches to.
const NEIGHBORS: usize = 3;

/// The two halves of the data.
pub struct Halves {
    /// The first half, padded as models see it.
    pub padded: ImageSet,
    /// The first half, unpadded.
    pub first: ImageSet,
    /// The second half, unpadded.
    pub second: ImageSet,
}

impl Halves {
    /// Reads the data of `config`.
    ///
    /// # Errors
    /// If the data has no labels, or a half has fewer than `count` images.
    pub fn read(config: &Config, count: usize) -> anyhow::Result<Self> {
        let path = &config.data.path;
        let padded = data::open(path, &config.load_options())?.images;
        let images = data::open(path, &LoadOptions { padding: Padding::None, ..config.load_options() })?.images;
        ensure!(images.labels().is_some(), "the data `{path}` has no labels, so that no classifier can judge");
        let half = images.len() / 2;
        ensure!(half >= count, "a half of `{path}` has {half} images, fewer than --count {count}");
        let (first, second) = (images.subset(0..half), images.subset(half..images.len()));
        Ok(Self { padded: padded.subset(0..half), first, second })
    }
}

/// A classifier that learned the second half, and its judgment of the first.
pub struct Judge {
    pub halves: Halves,
    pub classifier: DigitClassifier,
    /// The time of its training.
    pub seconds: f64,
    /// The judgment of the first half.
    pub real: Judgment,
    /// Share of the first half that is called with confidence.
    pub confident_real: f64,
}

impl Judge {
    /// Trains the classifier on the second half.
    ///
    /// # Errors
    /// If it is confident of no image of the first half.
    pub fn train(halves: Halves, seed: u64, epochs: u32, device: &Device) -> anyhow::Result<Self> {
        eprintln!("training the classifier on the other {} images, {epochs} epochs", halves.second.len());
        let (classifier, seconds) = timed(|| DigitClassifier::train(&halves.second, seed, epochs as usize, device));
        let classifier = classifier?;
        let real = classifier.classify(&pixels(&halves.first))?;
        let confident_real = confident(&real);
        ensure!(
            confident_real > 0.0,
            "the classifier is confident of no real image after {epochs} epochs; `bench quality` trains it longer with \
             --classifier-epochs"
        );
        Ok(Self { halves, classifier, seconds, real, confident_real })
    }

    /// Judges samples, `[count, channels, height, width]` in [-1, 1].
    pub fn judge(&self, samples: &[f32], request: &Request) -> anyhow::Result<Verdict> {
        let drawn = self.classifier.classify(samples)?;
        let confident = confident(&drawn);
        Ok(Verdict {
            confident,
            confident_ratio: confident / self.confident_real,
            asked: request.labels.as_ref().map(|labels| asked(&drawn, labels, self.confident_real)),
            frechet: frechet_distance(&drawn.features, &self.real.features, FEATURES)?,
            drawn,
        })
    }

    /// Precision and recall of samples against an equal number of images of the first half.
    pub fn manifold(&self, drawn: &Judgment) -> anyhow::Result<Manifold> {
        let count = drawn.features.len() / FEATURES;
        Ok(manifold(&drawn.features, &self.some_real(count), FEATURES, NEIGHBORS)?)
    }

    /// Features of `count` images of the first half, spread evenly, `[count, FEATURES]`.
    pub fn some_real(&self, count: usize) -> Vec<f32> {
        let row = |index: usize| &self.real.features[index * FEATURES..][..FEATURES];
        spread(count, self.halves.first.len()).flat_map(|index| row(index).iter().copied()).collect()
    }
}

/// The judgment of samples, compared with that of real images.
pub struct Verdict {
    pub drawn: Judgment,
    /// Share of samples called with confidence.
    pub confident: f64,
    /// `confident` over that of real images.
    pub confident_ratio: f64,
    /// None without classes.
    pub asked: Option<Asked>,
    /// The Fréchet distance to the first half.
    pub frechet: f64,
}

impl Verdict {
    /// The share of samples called as the class asked for, as the cell of a table.
    pub fn called(&self) -> String {
        self.asked.as_ref().map_or("-".to_owned(), |asked| percent(asked.called))
    }
}

/// Whether samples show the class asked for.
#[derive(Debug, Serialize)]
pub struct Asked {
    /// Share of samples whose called class is the one asked for.
    pub called: f64,
    /// The same among samples called with confidence > 0.9.
    pub called_among_confident: f64,
    /// Share of samples called as the class asked for with confidence > 0.9.
    pub confident: f64,
    /// `confident` over the share of real images called (as anything) with confidence > 0.9.
    pub confident_ratio: f64,
    /// Of the samples asked for each class, the share called as it.
    pub by_class: Vec<f64>,
}

fn asked(judgment: &Judgment, labels: &[usize], confident_real: f64) -> Asked {
    let called: Vec<((usize, f32), usize)> = judgment.called().into_iter().zip(labels.iter().copied()).collect();
    let is_right = |((class, _), label): &((usize, f32), usize)| class == label;
    let is_confident = |((_, confidence), _): &((usize, f32), usize)| *confidence > CONFIDENT;
    let confident = share(&called, |sample| is_right(sample) && is_confident(sample));
    let of_class = |class: usize| called.iter().filter(move |sample| sample.1 == class);
    Asked {
        called: share(&called, is_right),
        called_among_confident: share(called.iter().filter(|sample| is_confident(sample)), is_right),
        confident,
        confident_ratio: confident / confident_real,
        by_class: (0..judgment.classes).map(|class| share(of_class(class), is_right)).collect(),
    }
}

/// The share called with confidence > 0.9.
fn confident(judgment: &Judgment) -> f64 {
    share(judgment.called(), |(_, confidence)| confidence > CONFIDENT)
}

/// The share called as labeled.
pub fn accuracy(judgment: &Judgment, images: &ImageSet) -> f64 {
    let labels = images.labels().unwrap_or_default();
    share(judgment.called().iter().zip(labels), |(called, label)| called.0 == *label as usize)
}

/// The number of images called each class.
pub fn histogram(judgment: &Judgment) -> Vec<usize> {
    let mut counts = vec![0; judgment.classes];
    judgment.called().iter().for_each(|(class, _)| counts[*class] += 1);
    counts
}

/// The share for which `holds`; 0 of nothing.
fn share<T>(items: impl IntoIterator<Item = T>, holds: impl Fn(T) -> bool) -> f64 {
    let (mut all, mut held) = (0u32, 0u32);
    for item in items {
        all += 1;
        held += u32::from(holds(item));
    }
    f64::from(held) / f64::from(all.max(1))
}

/// A share as text.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// `count` indices, spread evenly over `all`.
pub fn spread(count: usize, all: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| index * all / count)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four samples: 0 with confidence, 0 without, 1 and 1 with.
    fn judgment() -> Judgment {
        let probabilities = vec![0.95, 0.05, 0.6, 0.4, 0.01, 0.99, 0.02, 0.98];
        Judgment { features: vec![], probabilities, classes: 2 }
    }

    #[test]
    fn shares_are_those_of_the_judgment() {
        assert_eq!(confident(&judgment()), 0.75);
        assert_eq!(histogram(&judgment()), [2, 2]);
        let images = ImageSet::new("four", vec![0; 4], [4, 1, 1, 1], Some(vec![0, 1, 1, 1]), None).unwrap();
        assert_eq!(accuracy(&judgment(), &images), 0.75);
        let asked = asked(&judgment(), &[0, 0, 0, 1], 0.8);
        assert_eq!(asked.called, 0.75);
        assert_eq!(asked.called_among_confident, 2.0 / 3.0);
        assert_eq!(asked.confident, 0.5);
        assert_eq!(asked.confident_ratio, 0.5 / 0.8);
        assert_eq!(asked.by_class, [2.0 / 3.0, 1.0]);
    }

    #[test]
    fn a_spread_goes_over_the_whole_set() {
        assert_eq!(spread(4, 10).collect::<Vec<_>>(), [0, 2, 5, 7]);
    }
}
