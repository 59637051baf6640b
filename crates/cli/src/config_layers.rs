//! A configuration in layers: preset < TOML file < `--set` < flags. An unknown key is an error that names the nearest.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::Context;
use checkpoint::SamplerKind;
use files::{Action, FileError};
use toml::{Table, Value};
use train::{Config, Origin};
use unet::{ARCHITECTURES, NetworkConfig, UnetConfig};

use crate::UsageError;

/// Keys without a default, besides those of the network.
const OPTIONAL_KEYS: [&str; 10] = [
    "data.image_size",
    "data.pad_to",
    "data.channels",
    "data.preview_channels",
    "data.range",
    "data.image_column",
    "data.label_column",
    "data.limit",
    "training.from",
    "sampling.guidance_interval",
];

/// Keys of lucidrains' network without a default.
const OPTIONAL_UNET_KEYS: [&str; 2] = ["unet.init_dim", "unet.out_dim"];

/// Keys of diffusers' network without a default.
const OPTIONAL_UNET2D_KEYS: [&str; 4] =
    ["unet.attention_head_dim", "unet.attn_norm_num_groups", "unet.time_embedding_dim", "unet.num_train_timesteps"];

/// Tables that a model to start from has values for, and their keys that it has none for.
const OF_MODELS: [&str; 3] = ["unet", "diffusion", "sampling"];
const NOT_OF_MODELS: [&str; 5] = ["channels", "classes", "count", "batch_size", "parallel_parts"];

/// Keys that a run writes into its own configuration.
const FILLED_IN: [&str; 1] = ["data.content_hash"];

/// Parameters of the schedules; each schedule checks its own.
const FAMILY_KEYS: [&str; 11] =
    ["beta_start", "beta_end", "beta", "s", "start", "end", "tau", "betas", "sigma_min", "sigma_max", "rho"];

/// The key that chooses the network, and with it the other keys of its table.
const ARCHITECTURE: &str = "unet.architecture";

/// The keys without a default where this network is configured.
pub fn optional_keys(architecture: &str) -> Vec<&'static str> {
    let of_network: &[_] = if architecture == "unet2d" { &OPTIONAL_UNET2D_KEYS } else { &OPTIONAL_UNET_KEYS };
    OPTIONAL_KEYS.iter().chain(of_network).copied().collect()
}

/// Layers of a configuration, the lowest first.
pub struct Layers {
    table: Table,
    /// The source of the value of each key; other keys have their default.
    pub origins: BTreeMap<String, String>,
    /// The value and source of `unet.channels`, if it was set and not only repeated from a preset.
    pub channels: Option<(i64, String)>,
}

impl Layers {
    /// Begins with a preset.
    pub fn preset(name: &str) -> anyhow::Result<Self> {
        let config = Config::preset(name).map_err(|error| UsageError(error.to_string()))?;
        Self::of(&config, &format!("preset {name}"))
    }

    /// Begins with a whole configuration, which comes from `source`.
    pub fn of(config: &Config, source: &str) -> anyhow::Result<Self> {
        let (table, defaults) = (table_of(config)?, table_of(&Config::default())?);
        let is_changed = |key: &String| value_at(&table, key) != value_at(&defaults, key);
        let origins = keys_of(&table).into_iter().filter(is_changed).map(|key| (key, source.to_owned())).collect();
        Ok(Self { table, origins, channels: None })
    }

    /// The value of `training.from` and its source.
    pub fn model_to_start_from(&self) -> Option<(&str, &str)> {
        const KEY: &str = "training.from";
        let source = self.origins.get(KEY).map_or(KEY, String::as_str);
        Some((value_at(&self.table, KEY)?.as_str()?, source))
    }

    /// Lays network, schedule, objective and sampling of a model to start from over the others. Channels and classes follow from the
    /// images, and how the samples of a run are drawn says nothing of the model.
    pub fn model(&mut self, origin: &Origin, path: &str) -> anyhow::Result<()> {
        let mut config = Config { unet: origin.unet.clone(), sampling: origin.sampling.clone(), ..Config::default() };
        // the usual channels of the output follow from those of the images
        if let Some(unet) = config.unet.as_unet_mut() {
            let usual = UnetConfig { out_dim: None, ..unet.clone() }.out_dim();
            unet.out_dim = unet.out_dim.filter(|dim| *dim != usual);
        }
        (config.diffusion.objective, config.diffusion.schedule) = (origin.objective, origin.schedule.clone());
        let schedule = Table::try_from(&origin.schedule).context("the schedule cannot be written as TOML")?;
        let mut over = table_of(&config)?;
        over.retain(|name, _| OF_MODELS.contains(&name));
        for (name, table) in &mut over {
            let Value::Table(table) = table else { continue };
            let is_of_model = |key: &str| match name.as_str() {
                "diffusion" => key == "objective" || schedule.contains_key(key),
                _ => !NOT_OF_MODELS.contains(&key),
            };
            table.retain(|key, _| is_of_model(key));
            // a key that the model leaves out has its default
            if name != "diffusion"
                && let Some(Value::Table(before)) = self.table.get_mut(name)
            {
                before.retain(|key, _| !is_of_model(key));
            }
        }
        self.lay(over, &format!("model {path}"))
    }

    /// Lays a TOML file over the others.
    pub fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let text = fs::read_to_string(path)
            .map_err(|source| UsageError(FileError::new(Action::Read, path, source).to_string()))?;
        let table: Table = text
            .parse()
            .map_err(|error| UsageError(format!("the configuration {} is not TOML: {error}", path.display())))?;
        self.lay(table, &path.display().to_string())
    }

    /// Lays one `KEY=VALUE` over the others; a value that is not TOML is a string.
    pub fn set(&mut self, assignment: &str) -> anyhow::Result<()> {
        let (key, value) = assignment.split_once('=').ok_or_else(|| {
            UsageError(format!("--set {assignment}: write it as KEY=VALUE, as in training.steps=500"))
        })?;
        let (key, value) = (key.trim(), value.trim());
        // as in a file, where a comment may follow
        let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
        let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
        self.value(key, value, &format!("--set {assignment}"))
    }

    /// Lays one value over the others.
    pub fn value(&mut self, key: &str, value: Value, source: &str) -> anyhow::Result<()> {
        let mut names = key.rsplit('.').map(str::to_owned);
        let last = Table::from_iter(names.next().map(|name| (name, value)));
        let table = names.fold(last, |inner, name| Table::from_iter([(name, Value::Table(inner))]));
        self.lay(table, source)
    }

    fn lay(&mut self, mut over: Table, source: &str) -> anyhow::Result<()> {
        rename_keys(&mut over, source)?;
        if let Some(value) = value_at(&over, ARCHITECTURE) {
            self.set_architecture(value, source)?;
        }
        check_keys(&over, source, self.architecture())?;
        if let Some(value) = value_at(&over, CHANNELS)
            && (source.starts_with("--set") || value_at(&self.table, CHANNELS) != Some(value))
        {
            self.channels = value.as_integer().map(|channels| (channels, source.to_owned()));
        }
        self.origins.extend(keys_of(&over).into_iter().map(|key| (key, source.to_owned())));
        merge(&mut self.table, over);
        Ok(())
    }

    /// The network of the layers so far.
    fn architecture(&self) -> &str {
        value_at(&self.table, ARCHITECTURE).and_then(Value::as_str).unwrap_or(ARCHITECTURES[0])
    }

    /// Puts the defaults of another network in the place of the keys of the one before.
    fn set_architecture(&mut self, value: &Value, source: &str) -> anyhow::Result<()> {
        let Some(unet) = value.as_str().and_then(NetworkConfig::default_of) else {
            let known = ARCHITECTURES.join(" or ");
            return Err(UsageError(format!("{source}: {ARCHITECTURE} = {value} is not possible: it is {known}")).into());
        };
        if unet.architecture() != self.architecture() {
            let mut defaults = table_of(&Config { unet, ..Config::default() })?;
            self.table.extend(defaults.remove_entry("unet"));
            self.origins.retain(|key, _| !key.starts_with("unet."));
        }
        Ok(())
    }

    /// The configuration, checked.
    pub fn resolve(self) -> anyhow::Result<Config> {
        let Self { table, origins, .. } = self;
        let config: Config =
            table.try_into().map_err(|error: toml::de::Error| UsageError(wrong_type(&error.to_string(), &origins)))?;
        config.validate().map_err(|error| UsageError(error.to_string()))?;
        let sampler = config.sampling.sampler;
        for (key, user) in [("sampling.eta", SamplerKind::Ddim), ("sampling.churn", SamplerKind::Edm)] {
            // a file may serve several commands
            if let Some(source) = origins.get(key).filter(|source| source.starts_with("--set") && sampler != user) {
                let text =
                    format!("{source}: {key} is an option of {user}, which sampling.sampler = {sampler} does not use");
                return Err(UsageError(format!("{text}; leave it out, or set sampling.sampler = \"{user}\"")).into());
            }
        }
        Ok(config)
    }
}

/// The words of serde for types, and plain ones.
const TYPES: [(&str, &str); 11] = [
    ("invalid type: ", ""),
    ("invalid value: ", ""),
    ("invalid length ", "a list of "),
    ("unknown variant ", ""),
    ("floating point", "the number"),
    ("integer", "the number"),
    ("u64", "a whole number, 0 or more"),
    ("usize", "a whole number, 0 or more"),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a sequence", "a list, as in [1, 2]"),
];

/// An error of serde in plain words, with the source of the value.
fn wrong_type(error: &str, origins: &BTreeMap<String, String>) -> String {
    let (reason, key) = error.trim().rsplit_once("\nin `").unwrap_or((error.trim(), ""));
    let key = key.trim_end_matches('`');
    // the table of the network names the key itself
    let (reason, key) = match reason.split_once(": ") {
        Some((below, rest)) if key == "unet" && below.starts_with("unet.") => (rest, below),
        _ => (reason, key),
    };
    let (found, expected) = reason.split_once(", expected ").unwrap_or(("", reason));
    let plain = |text: &str| TYPES.iter().fold(text.to_owned(), |text, (serde, plain)| text.replace(serde, plain));
    let expected = match plain(expected) {
        table if table.starts_with("struct ") => format!("a table of keys, as in {key}.KEY"),
        other => other,
    };
    let found = if found.is_empty() { String::new() } else { format!(", not {}", plain(found)) };
    let below = || {
        // the schedule's keys lie flat in their table
        let is_below = |name: &str| name.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
        let sources = origins.iter().filter(|(name, source)| is_below(name) && source.starts_with("--"));
        sources.map(|(_, source)| source.as_str()).collect::<Vec<_>>().join(", ")
    };
    let source = origins.get(key).cloned().unwrap_or_else(below);
    let source = if source.is_empty() { "configuration" } else { &source };
    format!("{source}: `{key}` must be {expected}{found}")
}

/// The key of the network that the images decide.
const CHANNELS: &str = "unet.channels";

/// Refuses channels that were set and differ from those of the images.
pub fn check_channels(asked: Option<&(i64, String)>, channels: usize) -> Result<(), UsageError> {
    match asked {
        Some((asked, source)) if usize::try_from(*asked) != Ok(channels) => Err(UsageError(format!(
            "{source}: unet.channels = {asked}, but the images have {channels} channel(s), which the network takes over: leave it \
             out, or convert the images with data.channels = {asked}"
        ))),
        _ => Ok(()),
    }
}

/// Table, old and current name of keys that were renamed.
const RENAMED_KEYS: [(&str, &str, &str); 2] =
    [("training", "optimiser", "optimizer"), ("data", "ignore_classes", "class_from")];

/// Gives keys of earlier versions their current names.
fn rename_keys(table: &mut Table, source: &str) -> Result<(), UsageError> {
    for (name, old, current) in RENAMED_KEYS {
        let Some(Value::Table(keys)) = table.get_mut(name) else { continue };
        let Some(value) = keys.remove(old) else { continue };
        if keys.insert(current.to_owned(), value).is_some() {
            let text =
                format!("{source}: {name}.{old} is the old name of {name}.{current}, which is there, too: delete one");
            return Err(UsageError(text));
        }
    }
    Ok(())
}

fn merge(base: &mut Table, over: Table) {
    // another schedule has other parameters
    if let Some(family) = over.get("family")
        && base.get("family") != Some(family)
    {
        FAMILY_KEYS.iter().for_each(|key| drop(base.remove(*key)));
    }
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            // an integer for a float, as in `learning_rate = 1`
            (Some(old @ Value::Float(_)), Value::Integer(whole)) => *old = Value::Float(whole as f64),
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

fn check_keys(table: &Table, source: &str, architecture: &str) -> anyhow::Result<()> {
    let known = known_keys(architecture)?;
    for key in keys_of(table) {
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

/// Similarity of a known key and one that was written; the last part counts most.
fn similarity(known: &str, written: &str) -> f64 {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    strsim::jaro_winkler(known, written) + 2.0 * strsim::normalized_damerau_levenshtein(&last(known), &last(written))
}

fn known_keys(architecture: &str) -> anyhow::Result<Vec<String>> {
    let unet = NetworkConfig::default_of(architecture).unwrap_or_default();
    let mut keys = keys_of(&table_of(&Config { unet, ..Config::default() })?);
    keys.extend(optional_keys(architecture).into_iter().chain(FILLED_IN).map(str::to_owned));
    keys.push(ARCHITECTURE.to_owned());
    keys.extend(FAMILY_KEYS.iter().map(|key| format!("diffusion.{key}")));
    keys.sort();
    keys.dedup();
    Ok(keys)
}

/// A configuration as TOML.
pub fn table_of(config: &Config) -> anyhow::Result<Table> {
    Table::try_from(config).context("the configuration cannot be written as TOML")
}

/// The value of a key with dots.
pub fn value_at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => value_at(table.get(first)?.as_table()?, rest),
    }
}

/// The keys of all values in a table, with dots.
pub fn keys_of(table: &Table) -> Vec<String> {
    let keys = |(key, value): (&String, &Value)| match value {
        Value::Table(inner) if !inner.is_empty() => {
            keys_of(inner).into_iter().map(|rest| format!("{key}.{rest}")).collect()
        }
        _ => vec![key.clone()],
    };
    table.iter().flat_map(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_possible_and_unchanged_by_the_layers() {
        for name in train::PRESETS {
            let config =
                Layers::preset(name).and_then(Layers::resolve).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(config, Config::preset(name).expect("a preset"));
        }
    }

    #[test]
    fn a_later_layer_wins_and_another_schedule_drops_the_old_parameters() {
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.set("diffusion.family=linear").expect("a key");
        layers.set("training.steps = 7 # a comment").expect("a key");
        layers.set("training.learning_rate=1").expect("a key");
        layers.set("data.path=some/folder").expect("a key");
        let config = layers.resolve().expect("a configuration");
        assert_eq!(config.diffusion.schedule.family.name(), "linear");
        assert_eq!((config.training.steps, config.training.learning_rate), (7, 1.0));
        assert_eq!(config.data.path, "some/folder");
    }

    #[test]
    fn another_network_drops_the_keys_of_the_one_before() {
        let mut layers = Layers::preset("digits").expect("a preset");
        let error = layers.set("unet.block_out_channels=[32]").expect_err("a key of the other network").to_string();
        assert!(error.contains("there is no key `unet.block_out_channels`"), "{error}");
        let error = layers.set("unet.architecture=transformer").expect_err("no such network").to_string();
        assert!(error.contains("unet or unet2d"), "{error}");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("other.toml");
        let text = "[unet]\nlayers_per_block = 1\narchitecture = \"unet2d\"\nattention_head_dim = 8\n";
        fs::write(&file, text).expect("written");
        layers.file(&file).expect("a file");
        let error = layers.set("unet.dim_mults=[1]").expect_err("a key of the network before").to_string();
        assert!(error.contains("there is no key `unet.dim_mults`"), "{error}");
        layers.set("unet.norm_num_group=16").expect_err("a misspelled key");
        layers.set("unet.norm_num_groups=16").expect("a key");
        let config = layers.resolve().expect("a configuration");
        let NetworkConfig::Unet2d(unet) = config.unet else { panic!("{:?}", config.unet) };
        let expected = unet::Unet2dConfig {
            layers_per_block: 1,
            attention_head_dim: Some(8),
            norm_num_groups: 16,
            ..unet::Unet2dConfig::default()
        };
        assert_eq!(unet, expected);
    }

    #[test]
    fn keys_of_earlier_versions_are_read() {
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.set("training.optimiser=adamw").expect("an old key");
        let config = layers.resolve().expect("a configuration");
        assert_eq!(config.training.optimizer, train::OptimizerKind::Adamw);
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("old.toml");
        fs::write(&file, "[training]\noptimiser = \"adamw\"\n").expect("written");
        let mut layers = Layers::preset("digits").expect("a preset");
        layers.file(&file).expect("an old file");
        assert_eq!(layers.origins["training.optimizer"], file.display().to_string());
        fs::write(&file, "[training]\noptimiser = \"adamw\"\noptimizer = \"adam\"\n").expect("written");
        let error = layers.file(&file).expect_err("both").to_string();
        assert!(error.contains("old.toml: training.optimiser is the old name of training.optimizer"), "{error}");
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
        let error = layers.resolve().expect_err("not a number").to_string();
        let expected =
            "--set training.steps=many: `training.steps` must be a whole number, 0 or more, not string \"many\"";
        assert_eq!(error, expected);
    }
}
