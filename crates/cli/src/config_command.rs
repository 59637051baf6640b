//! `diffuse config`.

use std::path::PathBuf;

use anyhow::bail;
use clap::{Args, Subcommand};
use files::write_atomically;
use toml::Value;
use train::Config;

use crate::{
    arguments::ConfigArguments,
    config_layers::{keys_of, optional_keys, table_of, value_at},
    print_result,
};

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration that `diffuse train` would use with the same arguments, and where each value comes from
    Show(ConfigArguments),
    /// Write a TOML file with every key, what it means, and its value
    Init(InitArguments),
}

#[derive(Args)]
pub struct InitArguments {
    #[command(flatten)]
    layers: ConfigArguments,
    /// The file; it must not exist
    #[arg(long, value_name = "FILE", default_value = "diffuse.toml")]
    out: PathBuf,
}

/// Column of the origins of keys.
const ORIGIN_COLUMN: usize = 48;
/// Width that comments are broken at.
const WIDTH: usize = 110;

pub fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show(arguments) => {
            let layers = arguments.layers()?;
            let origins = layers.origins.clone();
            let lines = lines_of(&layers.resolve()?, |key, line| {
                let origin = origins.get(key).map_or("default", String::as_str);
                vec![format!("{line:<ORIGIN_COLUMN$} # {origin}")]
            })?;
            print_result(lines.join("\n"))
        }
        ConfigCommand::Init(InitArguments { layers, out }) => {
            let config = layers.layers()?.resolve()?;
            if out.exists() {
                bail!("{} exists already; name another file with --out, or delete it", out.display());
            }
            let preset = layers.preset();
            let mut lines = vec![
                format!("# A configuration of `diffuse train`, begun from the preset {preset}."),
                format!("# Use it with: diffuse train --preset {preset} --config {}", out.display()),
                "# Keys that are deleted here are taken from the preset.".to_owned(),
            ];
            lines.extend(lines_of(&config, |key, line| {
                let docs = config.field_docs(key).unwrap_or("A parameter of the schedule.");
                [vec![String::new()], comment(docs), vec![line]].concat()
            })?);
            write_atomically(&out, format!("{}\n", lines.join("\n")).as_bytes())?;
            print_result(out.display())
        }
    }
}

/// The lines of a configuration, table by table. `each` makes of a key and its line the lines that are written. Optional keys
/// that are not set stand as comments.
fn lines_of(config: &Config, mut each: impl FnMut(&str, String) -> Vec<String>) -> anyhow::Result<Vec<String>> {
    let values = table_of(config)?;
    let mut keys = keys_of(&values);
    let optional = optional_keys(config.unet.architecture());
    keys.extend(optional.into_iter().filter(|key| value_at(&values, key).is_none()).map(str::to_owned));
    // a table comes before the tables in it
    keys.sort_by(|a, b| split(a).0.cmp(split(b).0));
    let mut lines = Vec::new();
    for keys in keys.chunk_by(|a, b| split(a).0 == split(b).0) {
        lines.extend([String::new(), format!("[{}]", split(&keys[0]).0)]);
        for key in keys {
            let (_, name) = split(key);
            let line = match value_at(&values, key) {
                Some(value) => format!("{name} = {}", inline(value)),
                None => format!("# {name} ="),
            };
            lines.extend(each(key, line));
        }
    }
    Ok(lines)
}

/// Table and name of a key: `training.ema.decay` is `decay` in `training.ema`.
fn split(key: &str) -> (&str, &str) {
    key.rsplit_once('.').unwrap_or(("", key))
}

/// A value as TOML.
fn inline(value: &Value) -> String {
    match value {
        // TOML would write all digits
        Value::Float(number) if number.abs() >= 1e15 || (*number != 0.0 && number.abs() < 1e-4) => {
            format!("{number:e}")
        }
        other => other.to_string(),
    }
}

/// A doc comment as comment lines of TOML, without the marks of links.
fn comment(docs: &str) -> Vec<String> {
    let mut parts = docs.split("[`");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (link, rest) = part.split_once("`]").unwrap_or((part, ""));
        plain.push_str(link.rsplit("::").next().unwrap_or_default());
        plain.push_str(rest);
    }
    let mut lines = vec![String::from("#")];
    for word in plain.split_whitespace() {
        if lines.last().is_some_and(|line| line.chars().count() + 1 + word.chars().count() > WIDTH) {
            lines.push(String::from("#"));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_every_preset_is_explained_and_is_read_back() {
        for preset in train::PRESETS {
            let config = Config::preset(preset).expect("a preset");
            let family = ["s"];
            let lines = lines_of(&config, |key, line| {
                let name = key.rsplit('.').next().unwrap_or(key);
                assert!(config.field_docs(key).is_some() || family.contains(&name) || name == "family", "{key}");
                vec![line]
            });
            let text = lines.expect("lines").join("\n");
            let read: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(read, config);
        }
    }

    #[test]
    fn comments_are_broken_and_lose_their_links() {
        let lines = comment(&format!("How it is, see [`sampler::Guided::interval`]. {}", "word ".repeat(40)));
        assert!(lines.len() > 1 && lines.iter().all(|line| line.starts_with("# ") && line.len() <= WIDTH), "{lines:?}");
        assert!(lines[0].starts_with("# How it is, see interval. word"), "{lines:?}");
    }
}
