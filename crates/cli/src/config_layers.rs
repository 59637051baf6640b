//! The configuration in layers: preset < TOML file < `--set` < flags. Unknown keys are errors that name the nearest.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, anyhow};
use files::{Action, FileError};
use toml::{Table, Value};
use train::Config;

use crate::UsageError;

/// Keys that a configuration may have but that the defaults leave out.
pub const OPTIONAL_KEYS: [&str; 9] = [
    "data.image_size",
    "data.pad_to",
    "data.channels",
    "data.image_column",
    "data.label_column",
    "data.limit",
    "unet.init_dim",
    "unet.out_dim",
    "sampling.guidance_interval",
];

/// Keys that a run fills in: those that it writes into its own file.
const FILLED_IN: [&str; 1] = ["data.content_hash"];

/// Parameters of the schedule families; which belongs to which is the family's business.
const FAMILY_KEYS: [&str; 11] =
    ["beta_start", "beta_end", "beta", "s", "start", "end", "tau", "betas", "sigma_min", "sigma_max", "rho"];

/// Layers of a configuration, the lowest first.
pub struct Layers {
    table: Table,
    /// Where the value of a key comes from; a key that is not here has its default.
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// Begins with a preset.
    pub fn preset(name: &str) -> anyhow::Result<Self> {
        let config = Config::preset(name).map_err(|error| UsageError(error.to_string()))?;
        Self::of(&config, &format!("preset {name}"))
    }

    /// Begins with a whole configuration, which comes from `source`.
    pub fn of(config: &Config, source: &str) -> anyhow::Result<Self> {
        let table = Table::try_from(config).context("the configuration cannot be written as TOML")?;
        let defaults = Table::try_from(Config::default()).context("the defaults cannot be written as TOML")?;
        let (mut keys, mut origins) = (Vec::new(), BTreeMap::new());
        collect("", &table, &mut keys);
        for key in keys {
            if value_at(&table, &key) != value_at(&defaults, &key) {
                origins.insert(key, source.to_owned());
            }
        }
        Ok(Self { table, origins })
    }

    /// Lays a TOML file over it.
    pub fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)
            .map_err(|source| UsageError(FileError::new(Action::Read, path, source).to_string()))?;
        let table: Table = text
            .parse()
            .map_err(|error| UsageError(format!("the configuration {} is not TOML: {error}", path.display())))?;
        self.lay(table, &path.display().to_string())
    }

    /// Where the value of a key comes from.
    pub fn origins(&self) -> BTreeMap<String, String> {
        self.origins.clone()
    }

    /// Lays one `KEY=VALUE` over it; the value is TOML, or else a string.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            UsageError(format!("--set {assignment}: write it as KEY=VALUE, as in training.steps=500"))
        })?;
        let (key, value) = (key.trim(), value.trim());
        let value = format!("value = {value}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        self.value(key, value, &format!("--set {assignment}"))
    }

    /// Lays one value over it.
    pub fn value(&mut self, key: &str, value: Value, source: &str) -> anyhow::Result<()> {
        let table =
            key.rsplit('.').fold(value, |inner, part| Value::Table(Table::from_iter([(part.to_owned(), inner)])));
        match table {
            Value::Table(table) => self.lay(table, source),
            _ => Err(anyhow!("`{key}` has no name")),
        }
    }

    fn lay(&mut self, over: Table, source: &str) -> anyhow::Result<()> {
        check_keys(&over, source)?;
        let mut keys = Vec::new();
        collect("", &over, &mut keys);
        self.origins.extend(keys.into_iter().map(|key| (key, source.to_owned())));
        merge(&mut self.table, over);
        Ok(())
    }

    /// The configuration that comes out.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let config: Config =
            Value::Table(self.table).try_into().map_err(|error| UsageError(format!("configuration: {error}")))?;
        config.validate().map_err(|error| UsageError(error.to_string()))?;
        Ok(config)
    }
}

fn merge(base: &mut Table, over: Table) {
    // another family brings its own parameters
    if let Some(family) = over.get("family")
        && base.get("family") != Some(family)
    {
        FAMILY_KEYS.iter().for_each(|key| drop(base.remove(*key)));
    }
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            // a whole number where a fraction is expected, as in `learning_rate = 1`
            (Some(old @ Value::Float(_)), Value::Integer(whole)) => *old = Value::Float(whole as f64),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

fn check_keys(table: &Table, source: &str) -> anyhow::Result<()> {
    let known = known_keys()?;
    let mut found = Vec::new();
    collect("", table, &mut found);
    for key in found {
        let is_known = known.iter().any(|name| *name == key || name.starts_with(&format!("{key}.")));
        if !is_known {
            let nearest = known
                .iter()
                .max_by(|a, b| similarity(a, &key).total_cmp(&similarity(b, &key)))
                .map_or(String::new(), |name| format!(": did you mean `{name}`?"));
            return Err(UsageError(format!("{source}: there is no key `{key}`{nearest}")).into());
        }
    }
    Ok(())
}

/// How near a known key is to one that was written: the last part counts most.
fn similarity(known: &str, written: &str) -> f64 {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    strsim::jaro_winkler(known, written) + 2.0 * strsim::normalized_damerau_levenshtein(&last(known), &last(written))
}

fn known_keys() -> anyhow::Result<Vec<String>> {
    let mut keys = Vec::new();
    let defaults = Table::try_from(Config::default()).context("the defaults cannot be written as TOML")?;
    collect("", &defaults, &mut keys);
    keys.extend(OPTIONAL_KEYS.iter().chain(&FILLED_IN).map(|key| (*key).to_owned()));
    keys.extend(FAMILY_KEYS.iter().map(|key| format!("diffusion.{key}")));
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// The value of a key with dots.
pub fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => value_at(table.get(first)?.as_table()?, rest),
    }
}

/// The keys of all values in a table, with dots between.
pub fn collect(prefix: &str, table: &Table, keys: &mut Vec<String>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => collect(&key, inner, keys),
            _ => keys.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_survives_the_layers_and_is_possible() {
        for name in train::PRESETS {
            let config =
                Layers::preset(name).and_then(Layers::resolve).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(config, Config::preset(name).expect("a preset"));
        }
    }

    #[test]
    fn a_later_layer_wins_and_a_new_family_drops_the_old_parameters() {
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.set("diffusion.family=linear").expect("a key");
        layers.set("training.steps = 7").expect("a key");
        layers.set("training.learning_rate=1").expect("a key");
        layers.set("data.path=some/folder").expect("a key");
        let config = layers.resolve().expect("a configuration");
        assert_eq!(config.diffusion.schedule.family.name(), "linear");
        assert_eq!((config.training.steps, config.training.learning_rate), (7, 1.0));
        assert_eq!(config.data.path, "some/folder");
    }

    #[test]
    fn a_wrong_key_names_the_nearest() {
        let mut layers = Layers::preset("digits").expect("a preset");
        let error = layers.set("training.batchsize=8").expect_err("no such key").to_string();
        assert!(error.contains("training.batchsize") && error.contains("`training.batch_size`"), "{error}");
        let error = layers.set("trainin.steps=8").expect_err("no such key").to_string();
        assert!(error.contains("`training.steps`"), "{error}");
    }

    #[test]
    fn a_wrong_value_names_its_key() {
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.set("training.batch_size=0").expect("a key");
        let error = layers.resolve().expect_err("no batch").to_string();
        assert!(error.contains("training.batch_size = 0"), "{error}");
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.set("training.steps=many").expect("a key");
        assert!(layers.resolve().expect_err("not a number").to_string().contains("steps"));
    }
}
