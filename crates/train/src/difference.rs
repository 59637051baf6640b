//! Differences between two configurations, key by key.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::{Config, TrainingConfig};

/// The key that identifies the images of a run.
const CONTENT_HASH: &str = "data.content_hash";

/// The keys in which the configuration of a run differs from the one to continue it with, a line each, without those that change a
/// step by rounding at most. Empty if the run can be continued.
pub(crate) fn difference(kept: &Config, asked: &Config) -> String {
    // without the keys that no step depends on
    let essential = |config: &Config| {
        let mut config = config.clone();
        let training = &mut config.training;
        (training.log_every, training.sample_every, training.checkpoint_every) = (0, 0, 0);
        training.keep_checkpoints = 1;
        // only whether it is 0 matters: images are held out for it
        training.evaluate_every = training.evaluate_every.min(1);
        training.post_hoc_ema.snapshot_every = training.post_hoc_ema.snapshot_every.min(1);
        config.sampling = Default::default();
        config
    };
    let mut kept = kept.clone();
    let (old, new) = (&mut kept.data, &asked.data);
    if old.content_hash.is_none() {
        // runs of earlier versions have none
        old.content_hash = new.content_hash.clone();
    } else {
        // the images matter, not their place
        old.path = new.path.clone();
        if old.content_hash == new.content_hash {
            (old.image_column, old.label_column) = (new.image_column.clone(), new.label_column.clone());
            (old.skip_unreadable, old.accept_left_out) = (new.skip_unreadable, new.accept_left_out);
        }
    }
    let (old, new) = (&mut kept.training, &asked.training);
    // the rate may change on the way: the history of the run has it
    (old.learning_rate, old.rate_schedule, old.warmup_steps) = (new.learning_rate, new.rate_schedule, new.warmup_steps);
    old.steps = new.steps;
    // the same step in less memory, or faster, up to rounding
    (old.gradient_checkpointing, old.tf32) = (new.gradient_checkpointing, new.tf32);
    let images_in_step =
        |training: &TrainingConfig| training.batch_size.checked_mul(training.gradient_accumulate_every);
    if images_in_step(old) == images_in_step(new) {
        (old.batch_size, old.gradient_accumulate_every) = (new.batch_size, new.gradient_accumulate_every);
    }
    differences(&essential(&kept), &essential(asked), ["in the run", "now"])
}

/// The keys in which two configurations differ, a line each; `whose` names the two.
pub(crate) fn differences<T: Serialize>(one: &T, other: &T, whose: [&str; 2]) -> String {
    let [one_is, other_is] = whose;
    let line = |Change { key, before, now }: Change| {
        let what = if key == CONTENT_HASH { " the images are others:" } else { "" };
        format!("  {key}:{what} {before} {one_is}, {now} {other_is}\n")
    };
    changes(one, other).into_iter().map(line).collect()
}

/// A key with another value than before; a value as TOML, or `not set`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// The key, with dots.
    pub key: String,
    /// The value before.
    pub before: String,
    /// The value now.
    pub now: String,
}

/// The keys in which two configurations differ.
pub(crate) fn changes<T: Serialize>(before: &T, now: &T) -> Vec<Change> {
    let value = |config: &T| toml::Value::try_from(config).ok();
    let mut found = Vec::new();
    compare("", value(before).as_ref(), value(now).as_ref(), &mut found);
    found
}

fn compare(key: &str, before: Option<&toml::Value>, now: Option<&toml::Value>, found: &mut Vec<Change>) {
    if before == now {
        return;
    }
    if let (Some(toml::Value::Table(before)), Some(toml::Value::Table(now))) = (before, now) {
        let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
        for name in names {
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&path, before.get(name), now.get(name), found);
        }
        return;
    }
    let show = |value: Option<&toml::Value>| value.map_or("not set".to_owned(), ToString::to_string);
    found.push(Change { key: key.to_owned(), before: show(before), now: show(now) });
}
