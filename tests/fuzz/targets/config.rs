//! Configurations: the first line is a `--set`, the others are a file.
#![no_main]

#[path = "../../../crates/cli/src/config_layers.rs"]
#[expect(dead_code, reason = "`diffuse config show` uses more of it")]
mod config_layers;

use config_layers::Layers;

/// The error type of the same name in `cli`.
#[derive(Debug)]
struct UsageError(String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let (setting, file) = text.split_once('\n').unwrap_or((text, ""));
    let configuration = || {
        let mut layers = Layers::preset("digits")?;
        fuzz::with_file("config.toml", file.as_bytes(), |path| layers.file(path))?;
        layers.set(setting)?;
        layers.resolve()
    };
    if let Ok(config) = configuration() {
        drop(config.diffusion.schedule.build());
        config.unet.parameters();
        toml::to_string(&config).expect("what was read can be written");
    }
});
