//! `diffuse doctor`.

use clap::Args;
use data::LoadOptions;
use train::doctor::{Finding, Measurement, Severity, check_data, check_schedule, measure};

use crate::{config_layers::Layers, print_result, read_data::open_data, train_command::ConfigArguments};

#[derive(Args)]
pub struct DoctorArguments {
    #[command(flatten)]
    layers: ConfigArguments,
    /// Do not take the few steps that time and memory are estimated from
    #[arg(long)]
    no_steps: bool,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// At most so many unreadable files are named.
const NAMED: usize = 5;

pub fn run(arguments: DoctorArguments) -> anyhow::Result<()> {
    let (device_name, device) = device::open_or_default(arguments.device.as_deref())?;
    let layers = &arguments.layers;
    let config = layers.lay_over(Layers::preset(&layers.preset)?)?.resolve()?;
    // whatever can be read: the rest is what the user wants to know
    let loaded = open_data(&config.data.path, &LoadOptions { skip_unreadable: true, ..config.load_options() })?;
    let images = loaded.images;
    let mut found = Vec::new();
    if !loaded.skipped.is_empty() {
        let names: Vec<String> =
            loaded.skipped.iter().take(NAMED).map(|(path, reason)| format!("{} ({reason})", path.display())).collect();
        let severity = if config.data.skip_unreadable { Severity::Warning } else { Severity::Problem };
        let more = if loaded.skipped.len() > NAMED { " and more" } else { "" };
        let text = format!(
            "{} images cannot be read: {}{more}; mend or delete them, or set data.skip_unreadable = true",
            loaded.skipped.len(),
            names.join(", ")
        );
        found.push(Finding { severity, text });
    }
    let config = config.resolved(&images);
    config.unet.check_image_size(images.height(), images.width()).map_err(train::TrainError::from)?;
    found.extend(check_data(&config, &images));
    found.extend(check_schedule(&config, &config.diffusion.schedule.build()?));

    let measured = match arguments.no_steps {
        true => None,
        false => {
            eprintln!("taking a few steps on {device_name}");
            Some(measure(&config, &images, &device)?)
        }
    };
    if let Some(Measurement { memory_bytes: Some(needed), available_bytes: Some(free), proposal, .. }) = measured
        && let Some((batch_size, accumulate)) = proposal
    {
        let text = format!(
            "a micro-batch of {} needs about {} of memory, of which {} are free: set training.batch_size = {batch_size} and \
             training.gradient_accumulate_every = {accumulate} for the same step",
            config.training.batch_size,
            gigabytes(needed),
            gigabytes(free)
        );
        found.push(Finding { severity: Severity::Problem, text });
    }
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity as u8));

    let seconds = measured.map(|measured| measured.step_seconds * config.training.steps as f64);
    if arguments.json {
        return print_result(serde_json::json!({
            "device": device_name,
            "images": images.len(),
            "height": images.height(),
            "width": images.width(),
            "channels": images.channels(),
            "classes": images.classes(),
            "findings": found,
            "measurement": measured,
            "training_seconds": seconds,
        }));
    }
    print_result(format_args!(
        "data      {} ({}): {} images of {}x{}, {} channel(s), {} classes",
        images.name(),
        loaded.source,
        images.len(),
        images.height(),
        images.width(),
        images.channels(),
        images.classes()
    ))?;
    if let (Some(measured), Some(seconds)) = (measured, seconds) {
        let memory = measured.memory_bytes.map_or("unknown".to_owned(), gigabytes);
        print_result(format_args!(
            "estimate  {} for {} steps of {:.3} s on {device_name}, without samples; {memory} of main memory",
            duration(seconds),
            config.training.steps,
            measured.step_seconds
        ))?;
    }
    for Finding { severity, text } in &found {
        print_result(format_args!("{severity:<9} {text}"))?;
    }
    if found.is_empty() {
        print_result("all       looks well")?;
    }
    Ok(())
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 120.0 => format!("{seconds:.0} s"),
        seconds if seconds < 7200.0 => format!("{:.0} min", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} h", seconds / 3600.0),
        seconds => format!("{:.1} days", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_the_unit_that_says_most() {
        for (seconds, text) in [(59.0, "59 s"), (600.0, "10 min"), (7200.0, "2.0 h"), (864_000.0, "10.0 days")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
