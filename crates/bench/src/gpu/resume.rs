//! The stage `resume`: a run that is stopped after half of its steps and resumed has the losses of one that is not.

use serde_json::json;
use train::Trainer;

use super::{
    Session, rounded,
    same::{configuration, largest_difference},
};

/// Training steps, of which half are done before the stop.
const STEPS: usize = 10;

pub fn run(session: &Session) -> anyhow::Result<()> {
    let config = configuration(session)?;
    let images = data::open(&config.data.path, &config.load_options())?.images;
    let device = session.open()?;
    let trainer = || Trainer::new(config.clone(), images.clone(), &device);
    let losses = |trainer: &mut Trainer, steps: usize| -> anyhow::Result<Vec<f64>> {
        (0..steps).map(|_| Ok(trainer.step()?.loss)).collect()
    };
    let whole = losses(&mut trainer()?, STEPS)?;
    let file = session.work.join("state.safetensors");
    let mut first = trainer()?;
    let mut parts = losses(&mut first, STEPS / 2)?;
    first.save_state(&file)?;
    let mut second = trainer()?;
    second.load_state(&file)?;
    parts.extend(losses(&mut second, STEPS - STEPS / 2)?);
    let difference = largest_difference(&parts, &whole)?;
    session.judged(
        "losses",
        (difference > 0.0).then(|| format!("the losses are {parts:?}, not {whole:?}")),
        json!({ "largest_difference": rounded(difference) }),
    )
}
