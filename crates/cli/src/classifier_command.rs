//! `diffuse classifier`.

use std::path::PathBuf;

use clap::Args;
use classifier::{NoisedClassifier, TrainingOptions};
use serde_json::json;

use crate::{
    arguments::ModelArguments,
    model_images::load_options,
    read_data::{ColumnArguments, open_data},
};

#[derive(Args)]
pub struct ClassifierArguments {
    /// Labeled images like those that the model was trained on
    #[arg(long, value_name = "NAME|PATH")]
    data: String,
    #[command(flatten)]
    columns: ColumnArguments,
    /// Training steps
    #[arg(long, default_value_t = TrainingOptions::default().steps)]
    steps: usize,
    /// Images in a step
    #[arg(long, default_value_t = TrainingOptions::default().batch_size)]
    batch_size: usize,
    /// Learning rate at the start; it falls to 0
    #[arg(long, default_value_t = TrainingOptions::default().learning_rate)]
    learning_rate: f64,
    /// Where the classifier goes
    #[arg(long, value_name = "FILE", default_value = "classifier.safetensors")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArguments,
}

/// Steps between two lines on the terminal.
const LOG_EVERY: usize = 100;

pub fn run(arguments: ClassifierArguments) -> anyhow::Result<()> {
    let (model, device) = arguments.model.open()?;
    let images = open_data(&arguments.data, &load_options(model.header.image, &arguments.columns))?.images;
    let ClassifierArguments { steps, batch_size, learning_rate, out, .. } = arguments;
    let training = TrainingOptions { steps, batch_size, learning_rate, seed: arguments.model.seed };
    eprintln!("training on {} noised images of {}", images.len(), images.name());
    let (mut loss, mut recent) = (f64::NAN, Vec::new());
    let classifier =
        NoisedClassifier::train(&images, &model.header.schedule, training, &device, &mut |step, step_loss| {
            recent.push(step_loss);
            if step % LOG_EVERY == 0 || step == steps {
                loss = recent.iter().sum::<f64>() / recent.len() as f64;
                recent.clear();
                eprintln!("step {step}/{steps} loss {loss:.4}");
            }
        })?;
    classifier.save(&out)?;
    arguments.model.common.print(
        json!({ "classifier": out, "classes": classifier.classes(), "loss": loss }),
        format_args!("classifier  {}", out.display()),
    )
}
