//! The result of `bench quality`, as JSON, lines, a table and a chart.

use std::path::PathBuf;

use picture::LineChart;
use serde::Serialize;

use crate::{
    judge::{Asked, percent},
    measurement::{print, print_table_head},
};

/// The measures of one model.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The preset, or the file of the configuration.
    pub recipe: String,
    pub seed: u64,
    /// None if a model was given.
    pub steps: Option<u64>,
    #[serde(skip)]
    pub training_images: usize,
    pub training_seconds: Option<f64>,
    /// The model file, if one was given: it may have seen all of the data.
    pub model: Option<PathBuf>,
    pub parameters: usize,
    pub count: usize,
    pub sampling_steps: usize,
    pub guidance: f64,
    pub sampling_seconds: f64,
    pub classifier_seconds: f64,
    /// Share of real images of the half unknown to the classifier that it calls rightly.
    pub classifier_accuracy: f64,
    /// Share of these called with confidence > 0.9.
    pub confident_real: f64,
    /// Share of samples called with confidence > 0.9.
    pub confident_samples: f64,
    /// `confident_samples / confident_real`.
    pub confident_ratio: f64,
    /// None for a model without classes.
    pub asked: Option<Asked>,
    /// Number of samples called each class.
    pub histogram: Vec<usize>,
    /// Samples to the training half.
    pub frechet_samples: f64,
    /// As many real images of the other half to the training half. The classifier has learned these, and is more confident
    /// of them than of any others, which adds to the distance.
    pub frechet_real: f64,
    /// Share of samples among the features of as many real images of the training half (Kynkäänniemi et al. 2019).
    pub precision: f64,
    /// Share of these real images among the features of the samples.
    pub recall: f64,
    /// Mean distance of samples to the nearest training image, in units of [-1, 1] pixels.
    pub nearest_samples: f64,
    /// That of real images of the other half.
    pub nearest_real: f64,
    /// `nearest_samples / nearest_real`: below 1 would be copying.
    pub nearest_ratio: f64,
    pub grid: PathBuf,
}

impl Report {
    /// The report as text.
    pub fn lines(&self) -> String {
        let Self { recipe, seed, count, training_images, parameters, sampling_steps, guidance, .. } = self;
        let Self { sampling_seconds, classifier_seconds, confident_ratio, frechet_samples, frechet_real, .. } = self;
        let Self { precision, recall, nearest_samples, nearest_real, nearest_ratio, .. } = self;
        let origin = match &self.model {
            Some(path) => {
                let path = path.display();
                format!("model           {path}: it may have seen all of the data, the classifier's half too")
            }
            None => {
                let (steps, seconds) = (self.steps.unwrap_or_default(), self.training_seconds.unwrap_or_default());
                format!(
                    "training        {steps} steps in {seconds:.0} s on {training_images} images, {recipe}, seed {seed}"
                )
            }
        };
        let asked = self.asked.as_ref().map_or("none: the model has no classes".to_owned(), asked_lines);
        let [accuracy, confident_samples, confident_real] =
            [self.classifier_accuracy, self.confident_samples, self.confident_real].map(percent);
        let histogram = join(&self.histogram);
        let grid = self.grid.display();
        format!(
            "{origin}\n\
             samples         {count} by {parameters} parameters, {sampling_steps} steps, guidance {guidance}, in \
             {sampling_seconds:.0} s\n\
             classifier      {accuracy} right of {training_images} real images that it did not see, trained in \
             {classifier_seconds:.0} s\n\
             confidence      > 0.9 for {confident_samples} of samples, {confident_real} of real images: ratio \
             {confident_ratio:.3}\n\
             class asked for {asked}\n\
             called classes  {histogram}\n\
             Fréchet         {frechet_samples:.2} from samples to the training half; {frechet_real:.2} from {count} held-out \
             real images to it\n\
             precision       {precision:.3}, recall {recall:.3}\n\
             nearest         {nearest_samples:.2} from samples to the training half; {nearest_real:.2} from held-out real \
             images: ratio {nearest_ratio:.3}\n\
             grid            {grid}"
        )
    }
}

fn asked_lines(asked: &Asked) -> String {
    let [called, among_confident, confident] =
        [asked.called, asked.called_among_confident, asked.confident].map(percent);
    let by_class = join(asked.by_class.iter().map(|share| format!("{:.0}", 100.0 * share)));
    format!(
        "called for {called} of samples, {among_confident} of the confident ones\n                called with confidence > 0.9 \
         for {confident} of samples: {:.3} of real images' share\n                by class, in %: {by_class}",
        asked.confident_ratio
    )
}

fn join(values: impl IntoIterator<Item: ToString>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(" ")
}

/// Prints a row for each report.
pub fn table(reports: &[Report]) -> anyhow::Result<()> {
    print_table_head(
        "model, or steps | seconds of training | guidance | confidence ratio | class asked for | with confidence > 0.9 | Fréchet | precision | recall | nearest ratio",
    )?;
    for report in reports {
        let share = |of: fn(&Asked) -> f64| report.asked.as_ref().map_or("-".to_owned(), |asked| percent(of(asked)));
        let of = report
            .model
            .as_ref()
            .map_or_else(|| report.steps.unwrap_or_default().to_string(), |path| path.display().to_string());
        let seconds = report.training_seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.0}"));
        print(format!(
            "| {} | {} | {} | {:.3} | {} | {} | {:.2} | {:.3} | {:.3} | {:.3} |",
            of,
            seconds,
            report.guidance,
            report.confident_ratio,
            share(|asked| asked.called),
            share(|asked| asked.confident),
            report.frechet_samples,
            report.precision,
            report.recall,
            report.nearest_ratio,
        ))?;
    }
    Ok(())
}

/// Shares against seconds of training.
pub fn curve(reports: &[Report]) -> LineChart {
    let points = |value: &dyn Fn(&Report) -> Option<f64>| -> Vec<(f64, f64)> {
        reports.iter().filter_map(|report| Some((report.training_seconds?, value(report)?))).collect()
    };
    let mut chart = LineChart::new("Quality against training time", "seconds of training", "share of the samples")
        .with_series("confident, over real images", points(&|report| Some(report.confident_ratio)));
    let asked = points(&|report| report.asked.as_ref().map(|asked| asked.called));
    if !asked.is_empty() {
        let confident = points(&|report| report.asked.as_ref().map(|asked| asked.confident));
        chart = chart
            .with_series("called as the class asked for", asked)
            .with_series("the same, with confidence > 0.9", confident);
    }
    chart
}
