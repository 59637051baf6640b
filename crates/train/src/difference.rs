//! Differences between two configurations, key by key.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::config::{Config, RateSchedule, TrainingConfig};

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
    // runs of earlier versions have none
    if old.content_hash.is_none() {
        old.content_hash = new.content_hash.clone();
    } else if old.content_hash == new.content_hash {
        // the same images in another place
        old.path = new.path.clone();
        (old.image_column, old.label_column) = (new.image_column.clone(), new.label_column.clone());
        (old.skip_unreadable, old.accept_left_out) = (new.skip_unreadable, new.accept_left_out);
    }
    let (old, new) = (&mut kept.training, &asked.training);
    // more steps, where the rate does not depend on their number
    if (old.rate_schedule, new.rate_schedule) == (RateSchedule::Constant, RateSchedule::Constant) {
        old.steps = new.steps;
    }
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
    let value = |config: &T| toml::Value::try_from(config).ok();
    let mut lines = String::new();
    compare("", value(one).as_ref(), value(other).as_ref(), whose, &mut lines);
    lines
}

fn compare(key: &str, kept: Option<&toml::Value>, asked: Option<&toml::Value>, whose: [&str; 2], lines: &mut String) {
    if kept == asked {
        return;
    }
    if let (Some(toml::Value::Table(kept)), Some(toml::Value::Table(asked))) = (kept, asked) {
        let names: BTreeSet<&String> = kept.keys().chain(asked.keys()).collect();
        for name in names {
            let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&path, kept.get(name), asked.get(name), whose, lines);
        }
        return;
    }
    let show = |value: Option<&toml::Value>| value.map_or("not set".to_owned(), ToString::to_string);
    let [one, other] = whose;
    let what = if key == CONTENT_HASH { " the images are others:" } else { "" };
    lines.push_str(&format!("  {key}:{what} {} {one}, {} {other}\n", show(kept), show(asked)));
}
