//! `diffuse config`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use files::write_atomically;
use toml::{Table, Value};
use train::Config;

use crate::{
    config_layers::{Layers, OPTIONAL_KEYS, collect, value_at},
    print_result,
    train_command::ConfigArguments,
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

/// Keys that are followed by their origins from this column on.
const ORIGIN_COLUMN: usize = 48;
/// Comments are broken here.
const WIDTH: usize = 110;

pub fn run(command: ConfigCommand) -> anyhow::Result<()> {
    match command {
        ConfigCommand::Show(arguments) => {
            let layers = arguments.lay_over(Layers::preset(&arguments.preset)?)?;
            let origins = layers.origins();
            let config = layers.resolve()?;
            let origin = |key: &str| origins.get(key).map_or("default", String::as_str).to_owned();
            let lines = written(&config, &mut |key, line| {
                vec![format!("{line:<width$} # {}", origin(key), width = ORIGIN_COLUMN)]
            })?;
            print_result(lines.join("\n"))
        }
        ConfigCommand::Init(InitArguments { layers, out }) => {
            let config = layers.lay_over(Layers::preset(&layers.preset)?)?.resolve()?;
            if out.exists() {
                bail!("{} exists already; name another file with --out, or delete it", out.display());
            }
            let preset = &layers.preset;
            let mut lines = vec![
                format!("# A configuration of `diffuse train`, begun from the preset {preset}."),
                format!("# Use it with: diffuse train --preset {preset} --config {}", out.display()),
                "# What is deleted here is taken from the preset.".to_owned(),
            ];
            lines.extend(written(&config, &mut |key, line| {
                let mut lines = vec![String::new()];
                lines.extend(comment(Config::field_docs(key).unwrap_or("A parameter of the family.")));
                lines.push(line.to_owned());
                lines
            })?);
            write_atomically(&out, format!("{}\n", lines.join("\n")).as_bytes())?;
            print_result(out.display())
        }
    }
}

/// The lines of a configuration, table by table; `each` makes of a key and its line the lines that are written. Optional keys
/// that are not set stand as comments.
fn written(config: &Config, each: &mut dyn FnMut(&str, &str) -> Vec<String>) -> anyhow::Result<Vec<String>> {
    let table = Table::try_from(config).context("the configuration cannot be written as TOML")?;
    let mut keys = Vec::new();
    collect("", &table, &mut keys);
    let unset = |key: &&&str| value_at(&table, key).is_none();
    keys.extend(OPTIONAL_KEYS.iter().filter(unset).map(|key| (*key).to_owned()));
    let table_of = |key: &str| key.rsplit_once('.').map_or(String::new(), |(table, _)| table.to_owned());
    let mut tables: Vec<String> = Vec::new();
    for key in &keys {
        if !tables.contains(&table_of(key)) {
            tables.push(table_of(key));
        }
    }
    // tables within tables come after what they lie in
    tables.sort_by_key(|name| (name.split('.').next().map(str::to_owned), name.clone()));
    let mut lines = Vec::new();
    for name in tables {
        lines.extend([String::new(), format!("[{name}]")]);
        for key in keys.iter().filter(|key| table_of(key) == name) {
            let last = key.rsplit('.').next().unwrap_or(key);
            let line = match value_at(&table, key) {
                Some(value) => format!("{last} = {}", inline(value)),
                None => format!("# {last} ="),
            };
            lines.extend(each(key, &line));
        }
    }
    Ok(lines)
}

/// A value as it stands behind an equals sign.
fn inline(value: &Value) -> String {
    match value {
        // a float that is whole or tiny stays one
        Value::Float(number) if number.abs() >= 1e15 || (*number != 0.0 && number.abs() < 1e-4) => {
            format!("{number:e}")
        }
        other => other.to_string(),
    }
}

/// A doc comment as comment lines of TOML: without the marks of links.
fn comment(docs: &str) -> Vec<String> {
    let mut plain = String::new();
    let mut rest = docs;
    while let Some(start) = rest.find("[`") {
        let Some(end) = rest[start..].find("`]").map(|end| start + end) else { break };
        plain.push_str(&rest[..start]);
        plain.push_str(rest[start + 2..end].rsplit("::").next().unwrap_or_default());
        rest = &rest[end + 2..];
    }
    plain.push_str(rest);
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
    fn every_key_of_every_preset_is_explained_and_the_file_says_the_same() {
        for preset in train::PRESETS {
            let config = Config::preset(preset).expect("a preset");
            let family = ["s"];
            let lines = written(&config, &mut |key, line| {
                let name = key.rsplit('.').next().unwrap_or(key);
                assert!(Config::field_docs(key).is_some() || family.contains(&name) || name == "family", "{key}");
                vec![line.to_owned()]
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
