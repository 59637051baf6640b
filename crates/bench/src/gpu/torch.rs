//! The stage `torch`: the same measurements of PyTorch and lucidrains' denoising-diffusion-pytorch, where a Python has them.

use std::{ffi::OsString, process::Command, time::Duration};

use serde_json::{Value, json};

use super::{
    Session,
    networks::networks,
    worker::{self, shortened},
};

/// Names the Python to use, `python3` if not given.
const PYTHON: &str = "DIFFUSE_KIT_PYTHON";
/// Of the script, the one that matters most first.
const SETTINGS: [&str; 5] = ["tf32", "bf16-channels-last", "bf16-compiled", "tf32-compiled", "bf16"];
/// The longest time of one setting: compilation, and the choice of algorithms.
const LONGEST: u64 = 90;

/// The Python that has PyTorch.
pub fn python() -> OsString {
    std::env::var_os(PYTHON).unwrap_or_else(|| "python3".into())
}

pub fn run(session: &Session) -> anyhow::Result<()> {
    let probe = "import torch, denoising_diffusion_pytorch; print(torch.__version__, torch.cuda.is_available())";
    let version = match worker::run(Command::new(python()).args(["-c", probe]), session.left(), false) {
        Ok(ended) if ended.failure().is_none() => ended.lines.first().map(|(_, line)| line.clone()).unwrap_or_default(),
        Ok(ended) => {
            let reason = ended.failure().unwrap_or_default();
            return session.skipped("python", &format!("set {PYTHON} to a Python with both packages: {reason}"));
        }
        Err(error) => return session.skipped("python", &shortened(&format!("{error:#}"))),
    };
    if !version.ends_with("True") {
        return session.skipped("python", &format!("this PyTorch sees no GPU: {version}"));
    }
    session.ok("python", json!({ "value": version }))?;
    for setting in SETTINGS {
        for case in networks(session) {
            let name = format!("{}/{setting}", case.name);
            if session.left() < Duration::from_secs(10) {
                session.skipped(&name, "no time was left")?;
                continue;
            }
            let request = json!({
                "dim": case.dim, "dim_mults": case.dim_mults, "channels": case.channels, "side": case.side,
                "batch": case.batch, "setting": setting,
            });
            let mut command = Command::new(python());
            command.arg(session.kit.join("torch_speed.py")).arg(request.to_string());
            let ended = worker::run(&mut command, session.limit(LONGEST), false)?;
            let line = ended.lines.last().and_then(|(_, line)| serde_json::from_str::<Value>(line).ok());
            match (ended.failure(), line) {
                (None, Some(values)) => session.ok(&name, values)?,
                (failure, _) => session.failed(&name, &failure.unwrap_or_else(|| "it printed no result".to_owned()))?,
            }
        }
    }
    Ok(())
}
