//! `report.html`: one self-contained page about a run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use files::{Action, FileError, write_atomically};
use picture::LineChart;
use serde_json::Value;

use crate::{
    error::TrainError,
    evaluation::Evaluation,
    quartiles::{Mean, QUARTILES},
    run_files::RunFiles,
};

/// The most grids that are shown, spread over the run.
const MOST_GRIDS: usize = 12;
/// The most points of a curve; beyond that neighbors are averaged.
const MOST_POINTS: usize = 400;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\
h1,h2{font-weight:600}figure{display:inline-block;margin:0 1em 1em 0;vertical-align:top}figcaption{color:#666}\
img{image-rendering:pixelated;max-width:100%}svg{max-width:100%;height:auto}table{border-collapse:collapse}\
td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}pre{background:#f6f6f6;padding:1em;overflow:auto}";

/// Writes the page from the files of the run directory. `environment` are lines about the machine and the program.
///
/// # Errors
/// [`TrainError::File`] and [`TrainError::Picture`].
pub fn write_report(files: &RunFiles, environment: &[String]) -> Result<(), TrainError> {
    let lines = json_lines(&files.metrics());
    let config = fs::read_to_string(files.config()).unwrap_or_default();
    let title = escaped(&format!("Run {}", files.directory.display()));
    let page = [
        format!("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>"),
        format!("<style>{STYLE}</style></head><body><h1>{title}</h1>\n"),
        samples(files)?,
        training_losses(&lines)?,
        held_out_losses(files)?,
        other_curves(&lines)?,
        skipped_steps(&lines),
        changes(files),
        format!("<h2>Configuration</h2>\n<pre>{}</pre>\n", escaped(&config)),
        format!("<h2>Environment</h2>\n<pre>{}</pre>\n</body></html>\n", escaped(&environment.join("\n"))),
    ];
    Ok(write_atomically(&files.report(), page.concat().as_bytes())?)
}

fn samples(files: &RunFiles) -> Result<String, TrainError> {
    let mut section = "<h2>Samples</h2>\n".to_owned();
    let grids = grids(files);
    if grids.is_empty() {
        section.push_str("<p>None yet.</p>\n");
    }
    for (name, path) in grids {
        let bytes = fs::read(&path).map_err(|source| FileError::new(Action::Read, &path, source))?;
        section.push_str(&format!(
            "<figure><img alt=\"samples, {name}\" src=\"data:image/png;base64,{}\"><figcaption>{name}</figcaption></figure>\n",
            STANDARD.encode(bytes)
        ));
    }
    Ok(section)
}

/// The values of the metrics by step.
fn curve(lines: &[Value], value: impl Fn(&Value) -> Option<f64>) -> Vec<(f64, f64)> {
    thinned(lines.iter().filter_map(|line| Some((line["step"].as_f64()?, value(line)?))).collect())
}

fn training_losses(lines: &[Value]) -> Result<String, TrainError> {
    let heading = "<h2>Losses</h2>\n".to_owned();
    if lines.is_empty() {
        return Ok(heading + "<p>No step was logged.</p>\n");
    }
    let losses = [("loss", curve(lines, |line| line["loss"].as_f64()))];
    let names = ["quartile 1, least noise", "quartile 2", "quartile 3", "quartile 4"];
    let quartile = |index: usize| curve(lines, |line| line["quartiles"][index]["mean"].as_f64());
    let quartiles: Vec<_> = names.into_iter().enumerate().map(|(index, name)| (name, quartile(index))).collect();
    Ok(heading
        + &chart("Loss of the training steps", "loss", &losses)?
        + &chart("Loss of the training by quartile of the timesteps", "loss", &quartiles)?)
}

fn held_out_losses(files: &RunFiles) -> Result<String, TrainError> {
    let lines = json_lines(&files.evaluations()).into_iter();
    let evaluations: Vec<Evaluation> = lines.filter_map(|line| serde_json::from_value(line).ok()).collect();
    let Some(last) = evaluations.last() else { return Ok(String::new()) };
    let means = |mean: fn(&Evaluation) -> f64| -> Vec<(f64, f64)> {
        evaluations.iter().map(|evaluation| (evaluation.step as f64, mean(evaluation))).collect()
    };
    let series = [("held out", means(|one| one.held_out.all.mean)), ("trained on", means(|one| one.training.all.mean))];
    let mut section = chart("Loss of the averaged network, with the same draws at every step", "loss", &series)?;
    section.push_str(&format!(
        "<p>After step {}, mean and standard error:</p>\n\
         <table><tr><th>timesteps</th><th>held out</th><th>trained on</th></tr>\n",
        last.step
    ));
    let cell = |mean: Mean| format!("<td>{:.5} ± {:.5}</td>", mean.mean, mean.error);
    let mut row = |name: &str, held_out: Mean, training: Mean| {
        section.push_str(&format!("<tr><th>{name}</th>{}{}</tr>\n", cell(held_out), cell(training)));
    };
    row("all", last.held_out.all, last.training.all);
    for (index, (held_out, training)) in last.held_out.quartiles.into_iter().zip(last.training.quartiles).enumerate() {
        row(&format!("quartile {} of {QUARTILES}", index + 1), held_out, training);
    }
    section.push_str("</table>\n");
    Ok(section)
}

fn other_curves(lines: &[Value]) -> Result<String, TrainError> {
    let mut section = String::new();
    for (key, title) in [
        ("gradient_norm", "Norm of the gradient before clipping"),
        ("learning_rate", "Learning rate"),
        ("images_per_second", "Images per second"),
        ("memory_bytes", "Memory of the process in bytes"),
    ] {
        let points = curve(lines, |line| line[key].as_f64());
        if points.len() > 1 {
            section.push_str(&chart(title, key, &[(key, points)])?);
        }
    }
    Ok(section)
}

fn skipped_steps(lines: &[Value]) -> String {
    // `trouble` is the key of earlier versions
    let reason = |line: &Value| Some(escaped(line.get("non_finite").or(line.get("trouble"))?.as_str()?));
    let items: Vec<String> = lines.iter().filter_map(reason).map(|text| format!("<li>{text}</li>")).collect();
    if items.is_empty() {
        return String::new();
    }
    format!("<h2>Skipped steps</h2>\n<ul>{}</ul>\n", items.join("\n"))
}

/// The changes of the configuration on the way.
fn changes(files: &RunFiles) -> String {
    let text = |value: &Value| escaped(value.as_str().unwrap_or_default());
    let mut items = String::new();
    for line in json_lines(&files.history()) {
        for change in line["changes"].as_array().into_iter().flatten() {
            let [key, before, now] = [&change["key"], &change["before"], &change["now"]].map(text);
            items.push_str(&format!("<li>after step {}: {key} from {before} to {now}</li>\n", line["step"]));
        }
    }
    if items.is_empty() { items } else { format!("<h2>Changes of the configuration</h2>\n<ul>{items}</ul>\n") }
}

/// A chart as SVG; empty without points.
fn chart(title: &str, unit: &str, series: &[(&str, Vec<(f64, f64)>)]) -> Result<String, TrainError> {
    let mut chart = LineChart::new(title, "step", unit);
    let drawn = series.iter().filter(|(_, points)| !points.is_empty());
    for (name, points) in drawn.clone() {
        chart = chart.with_series(*name, points.iter().copied());
    }
    if drawn.count() == 0 { Ok(String::new()) } else { Ok(format!("{}\n", chart.to_svg()?)) }
}

/// Means of neighbors, so that no more than [`MOST_POINTS`] are left.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let count = part.len() as f64;
        (part.iter().map(|point| point.0).sum::<f64>() / count, part.iter().map(|point| point.1).sum::<f64>() / count)
    };
    points.chunks(size).map(mean).collect()
}

/// The grids of a run with their captions, the first and the last among them.
fn grids(files: &RunFiles) -> Vec<(String, PathBuf)> {
    let folder = files.directory.join("samples");
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let step = stem.strip_prefix("step-").and_then(|step| step.parse::<u64>().ok());
        if let (Some(step), true) = (step, path.extension().is_some_and(|extension| extension == "png")) {
            found.push((format!("step {step}"), path));
        }
    }
    found.sort_by(|a, b| a.1.cmp(&b.1));
    let count = found.len();
    let kept = count.min(MOST_GRIDS - 1);
    let mut chosen: Vec<_> = (0..kept).map(|index| found[index * count / kept].clone()).collect();
    if files.grid().exists() {
        chosen.push(("at the end".to_owned(), files.grid()));
    }
    chosen
}

/// The JSON values of a file's lines, without lines that are not JSON.
fn json_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_curves_are_thinned_to_means() {
        let points: Vec<(f64, f64)> = (0..1000).map(|index| (f64::from(index), 2.0 * f64::from(index))).collect();
        let thin = thinned(points.clone());
        assert!(thin.len() <= MOST_POINTS && thin[0] == (1.0, 2.0), "{:?}", thin[0]);
        assert_eq!(thinned(points[..3].to_vec()), points[..3]);
        assert_eq!(thinned(vec![]), vec![]);
    }

    #[test]
    fn what_is_written_by_hand_does_not_become_markup() {
        assert_eq!(escaped("a < b & \"c\""), "a &lt; b &amp; &quot;c&quot;");
    }
}
