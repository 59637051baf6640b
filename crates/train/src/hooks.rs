//! Hooks: what a run does between two steps.

use std::{collections::VecDeque, path::Path, time::Instant};

use data::memory::resident_bytes;
use files::create_folder;
use noise::Noise;
use picture::save_png;
use pipeline::{Request, generate, grid_columns, previews, sample_grid};

use crate::{
    config::TrainingConfig,
    divergence::{median, saturated_share},
    error::TrainError,
    events::EventFile,
    post_hoc::Snapshot,
    quartiles::{QUARTILES, QuartileMean},
    report::write_report,
    run::{Control, Event, Observer, Run},
    run_files::append_line,
    trainer::StepReport,
};

/// An action of a run after some of its steps.
pub(crate) struct Hook {
    /// The number of steps between two calls; 0 for none.
    every: u64,
    /// Whether it reads the state after the step, not the report alone.
    reads_state: bool,
    /// Whether it is called after the last step; without it, neither then nor after the observer stopped the run.
    after_last: bool,
    pub(crate) run: fn(&mut Run, &mut Session<'_>, &StepReport) -> Result<(), TrainError>,
}

/// The hooks of a run, in the order in which they are called.
pub(crate) fn hooks(training: &TrainingConfig) -> [Hook; 6] {
    let (snapshots, evaluations) = (training.post_hoc_ema.snapshot_every, training.evaluate_every);
    [
        Hook { every: 1, reads_state: false, after_last: true, run: Run::log },
        Hook { every: snapshots, reads_state: true, after_last: true, run: Run::save_averages },
        Hook { every: evaluations, reads_state: true, after_last: evaluations > 0, run: Run::evaluate },
        Hook { every: 1, reads_state: false, after_last: true, run: Run::report_step },
        Hook { every: training.checkpoint_every, reads_state: true, after_last: false, run: Run::checkpoint },
        Hook { every: training.sample_every, reads_state: true, after_last: false, run: Run::draw_samples },
    ]
}

impl Hook {
    /// Whether its call after a step needs the state after exactly this step.
    pub(crate) fn needs_state_after(&self, step: u64, training: &TrainingConfig) -> bool {
        self.reads_state && (is_due(self.every, step) || step == training.steps)
    }

    pub(crate) fn is_due(&self, session: &Session<'_>, step: u64) -> bool {
        let is_over = session.is_last || session.is_stopped;
        if is_over { self.after_last } else { is_due(self.every, step) }
    }
}

fn is_due(every: u64, step: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}

/// The part of a run that one process trains.
pub(crate) struct Session<'a> {
    observe: &'a mut Observer<'a>,
    /// On rank 0.
    events: Option<EventFile>,
    started: Instant,
    first_step: u64,
    /// Losses of the last steps that were not skipped, at most 100.
    losses: VecDeque<f64>,
    images_per_second: f64,
    /// Whether the step is logged.
    is_logged: bool,
    /// Whether the step is the last of the run.
    is_last: bool,
    /// Whether an observer stopped the run after the step.
    pub(crate) is_stopped: bool,
}

impl<'a> Session<'a> {
    pub(crate) fn start(run: &Run, observe: &'a mut Observer<'a>) -> Result<Self, TrainError> {
        let is_main = run.trainer.group.is_main();
        Ok(Self {
            observe,
            events: if is_main { Some(EventFile::create(&run.files.events())?) } else { None },
            started: Instant::now(),
            first_step: run.trainer.steps_done(),
            losses: VecDeque::new(),
            images_per_second: 0.0,
            is_logged: false,
            is_last: false,
            is_stopped: false,
        })
    }

    /// Records a step.
    pub(crate) fn record(&mut self, report: &StepReport, training: &TrainingConfig) {
        let was_taken = report.non_finite.is_none();
        if was_taken {
            self.losses.push_back(report.loss);
        }
        if self.losses.len() > 100 {
            self.losses.pop_front();
        }
        let images_in_step = (training.batch_size * training.gradient_accumulate_every) as f64;
        let steps = report.step.saturating_sub(self.first_step) as f64;
        self.images_per_second = steps * images_in_step / self.seconds();
        self.is_last = report.step == training.steps;
        self.is_logged = is_due(training.log_every, report.step) || self.is_last || !was_taken;
    }

    /// Sends an event to the observer and returns its answer.
    pub(crate) fn tell(&mut self, event: Event<'_>) -> Control {
        (self.observe)(event)
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    pub(crate) fn mean_loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }

    /// The median of the last losses, which a spike does not move; None if no step was taken.
    pub(crate) fn usual_loss(&self) -> Option<f64> {
        median(self.losses.iter().copied())
    }
}

impl Run {
    /// Writes a line of metrics and TensorBoard's scalars.
    fn log(&mut self, session: &mut Session<'_>, report: &StepReport) -> Result<(), TrainError> {
        if !session.is_logged {
            return Ok(());
        }
        // every rank starts to count again, rank 0 writes
        let quartiles = std::mem::take(&mut self.trainer.state.quartiles).means();
        let images_per_second = session.images_per_second;
        let Some(events) = &mut session.events else { return Ok(()) };
        append_line(&self.files.metrics(), &metrics_line(report, images_per_second, &quartiles))?;
        let mut values = vec![
            ("loss/step".to_owned(), report.loss),
            ("gradient_norm".to_owned(), report.gradient_norm),
            ("learning_rate".to_owned(), report.learning_rate),
            ("images_per_second".to_owned(), images_per_second),
        ];
        let means = (1..).zip(quartiles).filter_map(|(number, one)| Some((number, one?.mean.mean)));
        values.extend(means.map(|(number, mean)| (format!("loss/quartile_{number}"), mean)));
        Ok(events.scalars(report.step, &values)?)
    }

    /// Writes a snapshot of each average of `training.post_hoc_ema`, as a model of its own.
    fn save_averages(&mut self, _: &mut Session<'_>, report: &StepReport) -> Result<(), TrainError> {
        let folder = self.files.averages();
        for (width, model) in self.trainer.power_averages().filter(|_| self.trainer.group.is_main()) {
            create_folder(&folder)?;
            model.save(&folder.join(Snapshot { step: report.step, width }.file_name()))?;
        }
        Ok(())
    }

    /// Measures the held-out loss, writes it down, and keeps the model if it is the best so far.
    fn evaluate(&mut self, session: &mut Session<'_>, _: &StepReport) -> Result<(), TrainError> {
        let (Some(events), Some(held_out)) = (&mut session.events, &self.held_out) else { return Ok(()) };
        let evaluation = self.trainer.evaluate(held_out);
        append_line(&self.files.evaluations(), &serde_json::to_value(evaluation).unwrap_or_default())?;
        let loss = evaluation.held_out.all.mean;
        let mut values =
            vec![("loss/held_out".to_owned(), loss), ("loss/trained_on".to_owned(), evaluation.training.all.mean)];
        let quartiles = (1..).zip(evaluation.held_out.quartiles);
        values.extend(quartiles.map(|(number, one)| (format!("loss/held_out_{number}"), one.mean)));
        events.scalars(evaluation.step, &values)?;
        if loss.is_finite() && self.trainer.state.best.is_none_or(|(_, best)| loss < best) {
            self.trainer.model().save(&self.files.best_model())?;
            self.trainer.state.best = Some((evaluation.step, loss));
        }
        session.tell(Event::Evaluated(&evaluation));
        Ok(())
    }

    /// Reports the step to the observer of each rank, any of which may stop the run.
    fn report_step(&mut self, session: &mut Session<'_>, report: &StepReport) -> Result<(), TrainError> {
        let (log, images_per_second) = (session.is_logged, session.images_per_second);
        let control = session.tell(Event::Step { report: report.clone(), log, images_per_second });
        session.is_stopped = self.trainer.group.any(control == Control::Stop)?;
        Ok(())
    }

    /// Saves the training state.
    fn checkpoint(&mut self, session: &mut Session<'_>, _: &StepReport) -> Result<(), TrainError> {
        self.trainer.check_same_weights()?;
        if self.trainer.group.is_main() {
            let path = self.save_checkpoint()?;
            session.tell(Event::Saved(&path));
        }
        Ok(())
    }

    /// Draws a grid of samples, and rewrites the report.
    fn draw_samples(&mut self, session: &mut Session<'_>, report: &StepReport) -> Result<(), TrainError> {
        if self.trainer.group.is_main() {
            session.tell(Event::Sampling);
            let path = self.files.grid_at(report.step);
            self.draw_grid(&path)?;
            session.tell(Event::Grid(&path));
            write_report(&self.files, &self.environment)?;
        }
        Ok(())
    }

    /// Draws `sampling.count` samples from the averaged weights, one row for each class where there are classes, and returns the
    /// share of their values that are saturated.
    pub(crate) fn draw_grid(&self, path: &Path) -> Result<f64, TrainError> {
        let model = self.trainer.model();
        let (count, classes) = (self.trainer.config.sampling.count, model.header.unet.classes());
        let noise = Noise::new(self.trainer.config.training.seed);
        let images = generate(&model, &Request::even(count, classes), &noise, &mut |_| ())?;
        let share = saturated_share(images.to_data().iter::<f32>());
        save_png(&sample_grid(&previews(images, &model.header.image)?, grid_columns(count, classes))?, path)?;
        Ok(share)
    }
}

/// A line of `metrics.jsonl`.
fn metrics_line(
    report: &StepReport,
    images_per_second: f64,
    quartiles: &[Option<QuartileMean>; QUARTILES],
) -> serde_json::Value {
    let mut line = serde_json::json!({
        "step": report.step,
        "loss": report.loss,
        "gradient_norm": report.gradient_norm,
        "learning_rate": report.learning_rate,
        "images_per_second": images_per_second,
        "quartiles": quartiles,
    });
    if report.loss_scale != 1.0 {
        line["loss_scale"] = report.loss_scale.into();
    }
    if let Some(memory) = resident_bytes() {
        line["memory_bytes"] = memory.into();
    }
    if let Some(non_finite) = &report.non_finite {
        line["non_finite"] = non_finite.to_string().into();
    }
    line
}
