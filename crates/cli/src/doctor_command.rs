//! `diffuse doctor`.

use std::{cmp::Reverse, path::PathBuf};

use clap::Args;
use data::{Account, DataError, LeftOut, LoadOptions, Loaded, Weight};
use files::write_atomically;
use serde_json::json;
use train::{
    Config, TrainError,
    doctor::{Finding, Measurement, Severity, check_data, check_precision, check_schedule, measure},
};

use crate::{
    arguments::{CommonArguments, ConfigArguments},
    config_layers::check_channels,
    read_data::open_data,
};

#[derive(Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    layers: ConfigArguments,
    /// Do not take the few steps that time and memory are estimated from
    #[arg(long)]
    no_steps: bool,
    /// Write all findings, with every file that they are about, into this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(flatten)]
    common: CommonArguments,
}

/// Most unreadable files that are named.
const NAMED: usize = 5;

pub fn run(arguments: DoctorArguments) -> anyhow::Result<()> {
    let (device_name, device) = arguments.common.open_device()?;
    let layers = arguments.layers.layers()?;
    let channels = layers.channels.clone();
    let config = layers.resolve()?;
    let options = config.load_options();
    let loaded = match open_data(&config.data.path, &options) {
        // unreadable files are a finding, not an error
        Err(DataError::Unreadable { .. }) => {
            open_data(&config.data.path, &LoadOptions { skip_unreadable: true, ..options })?
        }
        opened => opened?,
    };
    let mut found: Vec<Finding> = unreadable(&config, &loaded).into_iter().collect();
    found.extend(left_out(&config, &loaded.account));
    let Loaded { images, source, account, .. } = loaded;
    check_channels(channels.as_ref(), images.channels())?;
    let config = config.resolved(&images);
    config.unet.check_image_size(images.height(), images.width()).map_err(TrainError::from)?;
    found.extend(check_data(&config, &images));
    found.extend(check_precision(&config, &device));
    found.extend(check_schedule(&config, &config.diffusion.schedule.build()?));

    let measured = if arguments.no_steps {
        None
    } else {
        eprintln!("taking a few steps on {device_name}");
        Some(measure(&config, &images, &device)?)
    };
    found.extend(measured.and_then(|measured| too_large(&config, measured)));
    found.sort_by_key(|finding| Reverse(finding.severity as u8));

    let seconds = measured.map(|measured| measured.step_seconds * config.training.steps as f64);
    let (height, width, channels, classes) = (images.height(), images.width(), images.channels(), images.classes());
    let mut lines = vec![format!(
        "data      {} ({source}): {} images of {height}x{width}, {channels} channel(s), {classes} classes",
        images.name(),
        images.len()
    )];
    lines.extend(account.decisions.iter().map(|decision| format!("account   {decision}")));
    if let (Some(measured), Some(seconds)) = (measured, seconds) {
        lines.push(format!(
            "estimate  {} for {} steps of {:.3} s on {device_name}, without samples; {} of {} memory",
            duration(seconds),
            config.training.steps,
            measured.step_seconds,
            measured.memory_bytes.map_or("unknown".to_owned(), gigabytes),
            if measured.available_bytes.is_some() || device_name == "flex" { "main" } else { "device" }
        ));
    }
    lines.extend(found.iter().map(|Finding { severity, text, .. }| format!("{severity:<9} {text}")));
    if found.is_empty() {
        lines.push("all       looks well".to_owned());
    }
    if let Some(path) = &arguments.report {
        let items = |Finding { severity, text, items }: &Finding| {
            let items: String = items.iter().map(|item| format!("  {item}\n")).collect();
            format!("{severity}: {text}\n{items}")
        };
        write_atomically(path, found.iter().map(items).collect::<String>().as_bytes())?;
        lines.push(format!("report    {}", path.display()));
    } else if found.iter().any(|finding| finding.items.len() > 1) {
        lines.push("report    all files that the findings are about: --report FILE, or --json".to_owned());
    }
    let json = json!({
        "device": device_name,
        "images": images.len(),
        "height": height,
        "width": width,
        "channels": channels,
        "classes": classes,
        "account": account,
        "findings": found,
        "measurement": measured,
        "training_seconds": seconds,
    });
    arguments.common.print(json, lines.join("\n"))
}

/// The finding that some images cannot be read.
fn unreadable(config: &Config, loaded: &Loaded) -> Option<Finding> {
    let count = loaded.skipped.len();
    let named = loaded.skipped.iter().take(NAMED).map(|(path, reason)| format!("{} ({reason})", path.display()));
    let names = named.collect::<Vec<_>>().join(", ");
    let more = if count > NAMED { " and more" } else { "" };
    let text = format!(
        "{count} images cannot be read: {names}{more}; mend or delete them, or set data.skip_unreadable = true"
    );
    let severity = if config.data.skip_unreadable { Severity::Warning } else { Severity::Problem };
    let items = loaded.skipped.iter().map(|(path, reason)| format!("{}: {reason}", path.display())).collect();
    (count > 0).then_some(Finding { severity, text, items })
}

/// What of the data is not used; litter is no finding.
fn left_out(config: &Config, account: &Account) -> Vec<Finding> {
    let finding = |left_out: &LeftOut| {
        let is_meant = config.data.accept_left_out;
        let severity = match left_out.weight {
            Weight::Litter => return None,
            Weight::Note => Severity::Note,
            Weight::Doubt if is_meant => Severity::Warning,
            Weight::Doubt => Severity::Problem,
        };
        let advice = "; if that is meant, set data.accept_left_out = true";
        let advice = if severity == Severity::Problem { advice } else { "" };
        Some(Finding::new(severity, format!("{left_out}{advice}")))
    };
    account.left_out.iter().filter_map(finding).collect()
}

/// The finding that a micro-batch needs more memory than there is.
fn too_large(config: &Config, measured: Measurement) -> Option<Finding> {
    let (batch_size, accumulate) = measured.proposal?;
    let text = format!(
        "a micro-batch of {} needs about {} of memory, of which {} are free: set training.batch_size = {batch_size} and \
         training.gradient_accumulate_every = {accumulate} for the same step",
        config.training.batch_size,
        gigabytes(measured.memory_bytes?),
        gigabytes(measured.available_bytes?)
    );
    Some(Finding::new(Severity::Problem, text))
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Seconds in the unit that fits.
fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.1} h", seconds / 3600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_fits() {
        for (seconds, text) in [(59.0, "59 s"), (600.0, "10 min"), (7200.0, "2.0 h"), (864_000.0, "10.0 days")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
