//! Tables of the JSON lines of a kit.

use std::fs;

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use super::Session;
use crate::measurement::print;

/// Keys that are no column.
const OWN: [&str; 4] = ["stage", "name", "result", "message"];

type Line = Map<String, Value>;

/// Prints `results.jsonl` of the work folder as tables.
///
/// # Errors
/// If something failed, after the tables.
pub fn run(session: &Session) -> anyhow::Result<()> {
    let file = session.work.join("results.jsonl");
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    // a process that was stopped may leave half of a line
    let lines: Vec<Line> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    print(tables(&lines))?;
    let failed = lines.iter().filter(|line| line.get("result").is_some_and(|result| result == "failed")).count();
    ensure!(failed == 0, "{failed} of {} results failed", lines.len());
    Ok(())
}

/// A table for each stage, in the order of the first lines, and the best training steps beside PyTorch's.
fn tables(lines: &[Line]) -> String {
    let mut stages: Vec<&str> = Vec::new();
    for line in lines {
        let stage = word(line, "stage");
        if !stages.contains(&stage) {
            stages.push(stage);
        }
    }
    let mut text = String::new();
    for stage in stages {
        let lines: Vec<&Line> = lines.iter().filter(|line| word(line, "stage") == stage).collect();
        text.push_str(&format!("\n{stage}\n{}", table(&lines)));
    }
    let best = comparison(lines);
    if !best.is_empty() {
        text.push_str(&format!("\nbest training step, ours and PyTorch's\n{best}"));
    }
    text
}

/// The lines of one stage in columns.
fn table(lines: &[&Line]) -> String {
    let mut keys: Vec<&str> = Vec::new();
    for key in lines.iter().flat_map(|line| line.keys()).map(String::as_str) {
        if !OWN.contains(&key) && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let mut rows: Vec<Vec<String>> =
        vec![["", ""].into_iter().chain(keys.iter().copied()).map(str::to_owned).collect()];
    for line in lines {
        let mut row = vec![word(line, "name").to_owned(), word(line, "result").to_owned()];
        row.extend(keys.iter().map(|key| line.get(*key).map(cell).unwrap_or_default()));
        if let Some(message) = line.get("message") {
            row.push(cell(message));
        }
        rows.push(row);
    }
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..keys.len() + 2).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row
            .iter()
            .enumerate()
            .map(|(column, cell)| format!("{cell:<width$}", width = widths.get(column).copied().unwrap_or(0)));
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    text
}

/// For each network the shortest step of the stages `speed` and `torch`.
fn comparison(lines: &[Line]) -> String {
    let shortest = |stage: &str, network: &str| {
        let steps = lines.iter().filter(|line| word(line, "stage") == stage);
        let steps = steps.filter(|line| word(line, "name").split('/').next() == Some(network));
        let step = |line: &Line| {
            let time =
                ["train_ms", "train_ahead_ms"].iter().filter_map(|key| line.get(*key)?.as_f64()).reduce(f64::min)?;
            Some((time, word(line, "name").to_owned()))
        };
        steps.filter_map(step).min_by(|one, two| one.0.total_cmp(&two.0))
    };
    let mut networks: Vec<&str> = Vec::new();
    for line in lines.iter().filter(|line| word(line, "stage") == "speed") {
        let network = word(line, "name").split('/').next().unwrap_or_default();
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    let mut text = String::new();
    for network in networks {
        if let (Some(ours), Some(torch)) = (shortest("speed", network), shortest("torch", network)) {
            let ratio = torch.0 / ours.0;
            text.push_str(&format!(
                "  {} {:.2} ms, {} {:.2} ms: PyTorch takes {ratio:.2} times as long\n",
                ours.1, ours.0, torch.1, torch.0
            ));
        }
    }
    text
}

fn word<'a>(line: &'a Line, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_a_table_with_its_own_columns() {
        let lines = [
            r#"{"stage":"speed","name":"a/f32","result":"ok","train_ms":10.0,"train_ahead_ms":8.0,"memory_mib":null}"#,
            r#"{"stage":"speed","name":"a/bf16","result":"failed","message":"it broke"}"#,
            r#"{"stage":"torch","name":"a/tf32","result":"ok","train_ms":20.0}"#,
            r#"{"stage":"torch","name":"b/tf32","result":"ok","train_ms":20.0}"#,
        ];
        let lines: Vec<Line> = lines.iter().map(|line| serde_json::from_str(line).expect("an object")).collect();
        let expected = "
speed
                  memory_mib  train_ahead_ms  train_ms
  a/f32   ok      -           8.0             10.0
  a/bf16  failed                                        it broke

torch
              train_ms
  a/tf32  ok  20.0
  b/tf32  ok  20.0

best training step, ours and PyTorch's
  a/f32 8.00 ms, a/tf32 20.00 ms: PyTorch takes 2.50 times as long
";
        assert_eq!(tables(&lines), expected);
        assert_eq!(tables(&[]), "");
    }
}
