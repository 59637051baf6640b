//! `report.html`: one self-contained page on a run.

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
    evaluation::{Evaluation, QUARTILES},
    run_files::RunFiles,
};

/// At most so many grids are shown, spread over the run.
const MOST_GRIDS: usize = 12;
/// At most so many points make a curve; means of neighbors beyond that.
const MOST_POINTS: usize = 400;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}\
h1,h2{font-weight:600}figure{display:inline-block;margin:0 1em 1em 0;vertical-align:top}figcaption{color:#666}\
img{image-rendering:pixelated;max-width:100%}svg{max-width:100%;height:auto}table{border-collapse:collapse}\
td,th{border:1px solid #ccc;padding:.2em .6em;text-align:right}pre{background:#f6f6f6;padding:1em;overflow:auto}";

/// Writes the page anew from what lies in the run directory. `environment` are lines on the machine and the program.
///
/// # Errors
/// [`TrainError::File`] and [`TrainError::Picture`].
pub fn write_report(files: &RunFiles, environment: &[String]) -> Result<(), TrainError> {
    let lines = json_lines(&files.metrics());
    let evaluations: Vec<Evaluation> =
        json_lines(&files.evaluations()).into_iter().filter_map(|line| serde_json::from_value(line).ok()).collect();
    let mut page = String::new();
    let mut add = |text: &str| page.push_str(text);
    let title = format!("Run {}", files.directory.display());
    add("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    add(&format!("<title>{0}</title><style>{STYLE}</style></head><body><h1>{0}</h1>\n", escaped(&title)));

    add("<h2>Samples</h2>\n");
    let grids = grids(files)?;
    if grids.is_empty() {
        add("<p>None yet.</p>\n");
    }
    for (name, path) in grids {
        let bytes = fs::read(&path).map_err(|source| FileError::new(Action::Read, &path, source))?;
        let image = STANDARD.encode(bytes);
        add(&format!(
            "<figure><img alt=\"samples, {name}\" src=\"data:image/png;base64,{image}\"><figcaption>{name}</figcaption></figure>\n"
        ));
    }

    add("<h2>Losses</h2>\n");
    let curve_of = |of: &dyn Fn(&Value) -> Option<f64>| -> Vec<(f64, f64)> {
        thinned(lines.iter().filter_map(|line| Some((line["step"].as_f64()?, of(line)?))).collect())
    };
    let curve = |key: &str| curve_of(&|line| line[key].as_f64());
    if lines.is_empty() {
        add("<p>No step was logged.</p>\n");
    } else {
        add(&chart("Loss of the training steps", "loss", &[("loss", curve("loss"))])?);
        let names = ["quartile 1, least noise", "quartile 2", "quartile 3", "quartile 4"];
        let of_quartile = |quartile: usize| curve_of(&|line| line["quartiles"][quartile]["mean"].as_f64());
        let series: Vec<_> = (0..QUARTILES).map(|quartile| (names[quartile], of_quartile(quartile))).collect();
        add(&chart("Loss of the training by quartile of the timesteps", "loss", &series)?);
    }
    if let Some(last) = evaluations.last() {
        let mean = |of: fn(&Evaluation) -> f64| -> Vec<(f64, f64)> {
            evaluations.iter().map(|evaluation| (evaluation.step as f64, of(evaluation))).collect()
        };
        add(&chart(
            "Loss with draws that never change, of the averaged network",
            "loss",
            &[("held out", mean(|one| one.held_out.all.mean)), ("trained on", mean(|one| one.training.all.mean))],
        )?);
        add(&format!("<p>After step {}, mean and standard error:</p>\n<table><tr><th>timesteps</th>", last.step));
        add("<th>held out</th><th>trained on</th></tr>\n");
        let mut row = |name: String, held_out: crate::Mean, training: crate::Mean| {
            let cell = |mean: crate::Mean| format!("<td>{:.5} ± {:.5}</td>", mean.mean, mean.error);
            add(&format!("<tr><th>{name}</th>{}{}</tr>\n", cell(held_out), cell(training)));
        };
        row("all".to_owned(), last.held_out.all, last.training.all);
        for quartile in 0..QUARTILES {
            let name = format!("quartile {} of {QUARTILES}", quartile + 1);
            row(name, last.held_out.quartiles[quartile], last.training.quartiles[quartile]);
        }
        add("</table>\n");
    }
    for (key, title) in [
        ("gradient_norm", "Norm of the gradient before clipping"),
        ("learning_rate", "Learning rate"),
        ("images_per_second", "Images per second"),
        ("memory_bytes", "Memory of the process in bytes"),
    ] {
        let points = curve(key);
        if points.len() > 1 {
            add(&chart(title, key, &[(key, points)])?);
        }
    }
    let skipped: Vec<String> = lines
        .iter()
        .filter_map(|line| {
            line.get("non_finite")
                .or(line.get("trouble"))
                .and_then(Value::as_str)
                .map(|text| format!("<li>{}</li>", escaped(text)))
        })
        .collect();
    if !skipped.is_empty() {
        add(&format!("<h2>Steps that were skipped</h2>\n<ul>{}</ul>\n", skipped.join("\n")));
    }

    add("<h2>Configuration</h2>\n");
    let config = fs::read_to_string(files.config()).unwrap_or_default();
    add(&format!(
        "<pre>{}</pre>\n<h2>Environment</h2>\n<pre>{}</pre>\n",
        escaped(&config),
        escaped(&environment.join("\n"))
    ));
    add("</body></html>\n");
    Ok(write_atomically(&files.report(), page.as_bytes())?)
}

/// A chart as SVG, to stand in the page; nothing where there is no point.
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

/// The grids of a run with what they are, the first and the last among them.
fn grids(files: &RunFiles) -> Result<Vec<(String, PathBuf)>, TrainError> {
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
    Ok(chosen)
}

/// The JSON values of a file's lines; lines that are none are left out.
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
