//! The training loop of a run.

use std::fs::File;

use crate::{
    divergence::rate_to_try,
    error::TrainError,
    hooks::{Hook, Session, hooks},
    non_finite::NonFiniteStep,
    report::write_report,
    run::{Event, Observer, Outcome, Run},
    trainer::StepReport,
};

impl Run {
    /// Trains to the last step, or until the observer stops it; then saves the state and the model and, after the last step, draws the
    /// grid of samples.
    ///
    /// In a group each rank has an observer, any of which stops all ranks; events other than steps are rank 0's alone.
    ///
    /// # Errors
    /// [`TrainError`]; what was saved before stays. [`TrainError::LostRanks`] if other ranks do not answer: the state after the
    /// last whole step is saved then.
    pub fn train(&mut self, observe: &mut Observer<'_>) -> Result<Outcome, TrainError> {
        // if it fails, only the note on an abrupt end is lost
        let mark = |lock: &Option<File>, length| drop(lock.as_ref().map(|file| file.set_len(length)));
        mark(&self.lock, 1);
        let outcome = match self.train_to_the_end(observe) {
            Err(TrainError::Ranks(source)) if self.trainer.group.is_main() => {
                self.save_checkpoint()?;
                Err(TrainError::LostRanks { source, step: self.trainer.steps_done() })
            }
            Err(TrainError::Checkpoint(source)) if source.is_not_finite() => {
                let rate_to_try = rate_to_try(self.trainer.config.training.learning_rate);
                Err(TrainError::UnusableState { source, rate_to_try })
            }
            result => result,
        };
        mark(&self.lock, 0);
        outcome
    }

    fn train_to_the_end(&mut self, observe: &mut Observer<'_>) -> Result<Outcome, TrainError> {
        let hooks = hooks(&self.trainer.config.training);
        let mut session = Session::start(self, observe)?;
        while self.trainer.steps_done() < self.trainer.config.training.steps && !session.is_stopped {
            let next = self.trainer.steps_done() + 1;
            let needs_state = hooks.iter().any(|hook| hook.needs_state_after(next, &self.trainer.config.training));
            let reports = match self.trainer.advance(needs_state) {
                Err(TrainError::BrokenWeights { non_finite }) => {
                    self.go_back(&mut session, &non_finite)?;
                    continue;
                }
                reports => reports?,
            };
            for report in reports {
                self.call(&hooks, &mut session, &report)?;
            }
        }
        // a run that was stopped has a step whose numbers were not read
        if let Some(report) = self.trainer.wait()? {
            session.is_stopped = false;
            self.call(&hooks, &mut session, &report)?;
        }
        self.finish(session)
    }

    /// Calls the hooks that are due after a step.
    fn call(&mut self, hooks: &[Hook], session: &mut Session<'_>, report: &StepReport) -> Result<(), TrainError> {
        session.record(report, &self.trainer.config.training);
        for hook in hooks {
            if hook.is_due(session, report.step) {
                (hook.run)(self, session, report)?;
            }
        }
        Ok(())
    }

    /// Saves the model and the state, and draws the grid of a finished run.
    fn finish(&mut self, mut session: Session<'_>) -> Result<Outcome, TrainError> {
        self.trainer.check_same_weights()?;
        let finished = self.trainer.steps_done() >= self.trainer.config.training.steps;
        let mut divergence = None;
        if self.trainer.group.is_main() {
            // the model first: it is refused if it is not finite, and then the last good state stays
            self.trainer.model().save(&self.files.model())?;
            let saved = self.save_checkpoint();
            if let Ok(path) = &saved {
                session.tell(Event::Saved(path));
            }
            if finished {
                session.tell(Event::Sampling);
                let saturated = self.draw_grid(&self.files.grid())?;
                session.tell(Event::Grid(&self.files.grid()));
                divergence = self.trainer.divergence(session.usual_loss(), Some(saturated));
            }
            write_report(&self.files, &self.environment)?;
            match saved {
                // moments that overflowed: the divergence tells more
                Err(error) if divergence.is_none() || !error.is_not_finite() => return Err(error),
                _ => {}
            }
        }
        Ok(Outcome {
            finished,
            steps: self.trainer.steps_done(),
            loss: session.mean_loss(),
            seconds: session.seconds(),
            divergence,
        })
    }

    /// Goes back to the newest checkpoint that can be read, with the step before `non_finite` marked as skipped: its update broke
    /// the weights.
    fn go_back(&mut self, session: &mut Session<'_>, non_finite: &NonFiniteStep) -> Result<(), TrainError> {
        // the checkpoint has no record of steps that were marked after it
        let marked = self.trainer.state.skipped.clone();
        let is_main = self.trainer.group.is_main();
        let mut all = if is_main { self.files.all_checkpoints() } else { Vec::new() }.into_iter();
        let loaded = all.find_map(|(_, path)| self.trainer.load_state(&path).ok().map(|()| path));
        if !self.trainer.broadcast_state(loaded.as_deref())? {
            return Err(TrainError::BrokenWeights { non_finite: Box::new(non_finite.clone()) });
        }
        self.trainer.state.skipped.extend(marked);
        self.trainer.skip(non_finite.step - 1, non_finite)?;
        let to_step = self.trainer.steps_done();
        if is_main {
            self.files.drop_lines_after(to_step)?;
            session.tell(Event::WentBack { non_finite, to_step });
        }
        Ok(())
    }
}
