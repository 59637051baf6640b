//! A page that draws with a model in a browser: static files, for any server.
//!
//! [`export`] writes `index.html`, style, JavaScript modules, the network as `model.onnx` ([`crate::onnx`]) and a copy of the
//! files of onnxruntime-web that run it. The page reads objective, schedule, classes and image format from the metadata of
//! `model.onnx`, so that another network can take its place.

use std::path::{Path, PathBuf};

use checkpoint::{GuidanceKind, Model};
use schedule::Spacing;

use crate::{Account, InterchangeError, onnx};

/// The files of the page, `index.html` last: a folder with it is complete.
const FILES: [(&str, &str); 5] = [
    ("style.css", include_str!("style.css")),
    ("diffusion.js", include_str!("diffusion.js")),
    ("worker.js", include_str!("worker.js")),
    ("page.js", include_str!("page.js")),
    ("index.html", include_str!("index.html")),
];

/// The files of onnxruntime-web that the page needs, and their names in it: servers that do not know `.mjs` refuse to send it as
/// JavaScript.
const RUNTIME: [(&str, &str); 3] = [
    ("ort.wasm.min.mjs", "ort.wasm.min.js"),
    ("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.js"),
    ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.wasm"),
];

/// Folder of the runtime in the page.
const RUNTIME_FOLDER: &str = "onnxruntime-web";
/// File of the network in the page.
const MODEL: &str = "model.onnx";

/// Writes a page that draws with a model to a folder, which may hold an earlier page and nothing else.
///
/// `onnxruntime_web` is the folder of the npm package onnxruntime-web, or one that holds it: as `npm pack onnxruntime-web` and
/// `tar xzf` leave it, or `node_modules`.
///
/// # Errors
/// [`InterchangeError`] if the runtime is not given or not there, the folder has other files, or the network cannot be
/// expressed; then nothing is written. [`InterchangeError::Write`] names a file that cannot be written.
pub fn export(model: &Model, folder: &Path, onnxruntime_web: Option<&Path>) -> Result<Account, InterchangeError> {
    let runtime = read_runtime(onnxruntime_web)?;
    check_folder(folder)?;
    let (out, channels) = (model.header.unet.out_dim(), model.header.image.channels);
    if out < channels {
        return Err(InterchangeError::NoTwin {
            reason: format!("the network returns {out} channels for images of {channels}: no image can be drawn"),
        });
    }
    let (network, _) = onnx::encode(model, onnx::Options::default())?;
    let runtime_folder = folder.join(RUNTIME_FOLDER);
    files::create_folder(&runtime_folder)?;
    for (name, bytes) in &runtime {
        files::write_atomically(&runtime_folder.join(name), bytes)?;
    }
    files::write_atomically(&folder.join(MODEL), &network)?;
    for (name, content) in FILES {
        files::write_atomically(&folder.join(name), content.as_bytes())?;
    }
    Ok(account(model, network.len()))
}

/// The files of the runtime with their names in the page.
fn read_runtime(given: Option<&Path>) -> Result<Vec<(&'static str, Vec<u8>)>, InterchangeError> {
    let Some(given) = given else {
        return Err(InterchangeError::NoTwin {
            reason: "the page runs the network with onnxruntime-web, which this program does not bring: run `npm pack \
                     onnxruntime-web` and `tar xzf onnxruntime-web-*.tgz`, and give the folder with --onnxruntime-web package"
                .to_owned(),
        });
    };
    let places = ["dist", "", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist", "package/dist"];
    let folders: Vec<PathBuf> = places.iter().map(|place| given.join(place)).collect();
    let Some(dist) = folders.iter().find(|folder| folder.join(RUNTIME[0].0).is_file()) else {
        return Err(InterchangeError::File {
            path: given.to_owned(),
            reason: format!(
                "there is no onnxruntime-web here (dist/{}): give the folder of the npm package, as `npm pack onnxruntime-web` \
                 and `tar xzf onnxruntime-web-*.tgz` leave it (`package`), or a node_modules",
                RUNTIME[0].0
            ),
        });
    };
    let read = |(source, name): &(&str, &'static str)| {
        let path = dist.join(source);
        let bytes = std::fs::read(&path).map_err(|error| files::FileError::new(files::Action::Read, &path, error))?;
        Ok((*name, bytes))
    };
    RUNTIME.iter().map(read).collect()
}

/// Refuses a folder with files that are not those of a page.
fn check_folder(folder: &Path) -> Result<(), InterchangeError> {
    if !folder.exists() {
        return Ok(());
    }
    let list = |error| files::FileError::new(files::Action::List, folder, error);
    for entry in std::fs::read_dir(folder).map_err(list)? {
        let name = entry.map_err(list)?.file_name();
        let is_ours = FILES.iter().map(|file| file.0).chain([RUNTIME_FOLDER, MODEL]).any(|ours| name == ours);
        if !is_ours {
            return Err(InterchangeError::File {
                path: folder.join(name),
                reason: "the folder of a page may hold an earlier page and nothing else; choose another folder"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

fn account(model: &Model, bytes: usize) -> Account {
    let sampling = &model.header.sampling;
    let mut account = Account::default();
    let megabytes = bytes as f64 / 1e6;
    account.used.push(format!("the network ({megabytes:.1} MB), objective, schedule, classes, image format"));
    account.used.push("ddim with eta 0, and of sampling: steps, clip and guidance as first values".to_owned());
    account.not_used.push("the noise of `diffuse sample`: a seed of the page gives another picture".to_owned());
    if sampling.spacing != Spacing::Lucidrains {
        account.not_used.push(format!("the spacing {}: the page has that of lucidrains", sampling.spacing));
    }
    let has_more = sampling.guidance_interval.is_some()
        || sampling.guidance_rescale != 0.0
        || sampling.guidance_kind != GuidanceKind::Cfg;
    if model.header.unet.classes() > 0 && has_more {
        account
            .not_used
            .push("interval, rescaling and kind of guidance: the page has classifier-free guidance".to_owned());
    }
    account
}
