//! `diffuse classifier`.

use std::path::PathBuf;

use checkpoint::Model;
use clap::Args;
use classifier::{NoisedClassifier, TrainingOptions};
use data::Split;

use crate::{
    nll_command::options,
    print_result,
    read_data::{ColumnArguments, open_data},
    sample_command::model_file,
};

#[derive(Args)]
pub struct ClassifierArguments {
    /// The run or model that it is to guide: its noise levels and its size of images
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
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
    /// Everything random follows from it
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the classifier goes
    #[arg(long, value_name = "FILE", default_value = "classifier.safetensors")]
    out: PathBuf,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// Steps between two lines on the terminal.
const SAY_EVERY: usize = 100;

pub fn run(arguments: ClassifierArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    let model = Model::load(&model_file(&arguments.model)?, &device)?;
    let images = open_data(&arguments.data, &options(&model, &arguments.columns, Split::Train, usize::MAX))?.images;
    let ClassifierArguments { steps, batch_size, learning_rate, seed, .. } = arguments;
    let training = TrainingOptions { steps, batch_size, learning_rate, seed };
    eprintln!("training on {} noised images of {}", images.len(), images.name());
    let (mut loss, mut recent) = (f64::NAN, Vec::new());
    let classifier =
        NoisedClassifier::train(&images, &model.header.schedule, training, &device, &mut |step, step_loss| {
            recent.push(step_loss);
            if step % SAY_EVERY == 0 || step == steps {
                loss = recent.iter().sum::<f64>() / recent.len() as f64;
                recent.clear();
                eprintln!("step {step}/{steps} loss {loss:.4}");
            }
        })?;
    classifier.save(&arguments.out)?;
    if arguments.json {
        let (out, classes) = (&arguments.out, classifier.classes());
        return print_result(serde_json::json!({ "classifier": out, "classes": classes, "loss": loss }));
    }
    print_result(format_args!("classifier  {}", arguments.out.display()))
}
