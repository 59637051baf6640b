//! The files of a pipeline.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::keys::Keys;
use crate::{Account, InterchangeError};

/// The list of the parts of a pipeline.
const INDEX: &str = "model_index.json";
/// The configuration of a network.
const CONFIG: &str = "config.json";
/// The configuration of a scheduler.
const SCHEDULER: &str = "scheduler_config.json";

/// Whether a path is a folder that [`import`](super::import) takes: a pipeline, or a network alone.
pub fn is_folder(path: &Path) -> bool {
    path.join(INDEX).is_file() || path.join(CONFIG).is_file()
}

/// The parts of a pipeline.
#[derive(Debug)]
pub struct Folder {
    /// The class of the pipeline, if there is one.
    pub pipeline: Option<String>,
    /// The folder of the weights.
    pub unet: PathBuf,
    /// The configuration of the network.
    pub config: PathBuf,
    /// That of the scheduler, if there is one.
    pub scheduler: Option<PathBuf>,
}

impl Folder {
    pub fn open(path: &Path, account: &mut Account) -> Result<Self, InterchangeError> {
        let file = |reason: &str| InterchangeError::File { path: path.to_owned(), reason: reason.to_owned() };
        if !path.is_dir() {
            return Err(file("it is not a folder; name one that DDPMPipeline.save_pretrained has written"));
        }
        let mut pipeline = None;
        if path.join(INDEX).is_file() {
            pipeline = Some(read_index(&path.join(INDEX), account)?);
        }
        // early repositories have all files in one folder
        let place =
            |part: &str, name: &str| [path.join(part), path.to_owned()].into_iter().find(|at| at.join(name).is_file());
        let Some(unet) = place("unet", CONFIG) else {
            return Err(file(
                "it has neither unet/config.json nor config.json; name a folder that DDPMPipeline.save_pretrained or \
                 UNet2DModel.save_pretrained has written",
            ));
        };
        let scheduler = place("scheduler", SCHEDULER).map(|at| at.join(SCHEDULER));
        Ok(Self { pipeline, config: unet.join(CONFIG), unet, scheduler })
    }
}

/// The class of the pipeline, whose parts are a network and a scheduler.
fn read_index(path: &Path, account: &mut Account) -> Result<String, InterchangeError> {
    let mut index = Keys::read(path)?;
    let class = match index.get("_class_name", Value::from("DDPMPipeline"))? {
        Value::String(class) => class,
        // a module and a class of code beside it
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("."),
        other => return Err(index.error("_class_name", format!("{other} is not the name of a class"))),
    };
    for part in ["vae", "vqvae", "text_encoder", "transformer", "controlnet", "movq", "prior"] {
        if index.optional::<Value>(part)?.is_some_and(|value| value != Value::from(vec![Value::Null, Value::Null])) {
            let reason = format!(
                "a {class} does not work on pixels alone: pipelines of a UNet2DModel and a scheduler have a twin here"
            );
            return Err(index.error(part, reason));
        }
    }
    for (part, expected) in [("unet", Some("UNet2DModel")), ("scheduler", None)] {
        let found: Option<Vec<Option<String>>> = index.optional(part)?;
        let found = found.unwrap_or_default().pop().flatten();
        if let (Some(found), Some(expected)) = (found, expected)
            && found != expected
        {
            return Err(index.error(part, format!("the class {found} has no twin here; {expected} has one")));
        }
    }
    account.used.push(format!("{INDEX}: a {class}"));
    index.account_for_rest(account);
    Ok(class)
}
