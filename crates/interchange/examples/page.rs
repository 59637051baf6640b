//! Writes a page that draws with a model file: `cargo run --package interchange --example page -- MODEL.safetensors FOLDER
//! ONNXRUNTIME_WEB`, where the last is the folder of the npm package onnxruntime-web.

use std::path::Path;

use burn::tensor::Device;
use checkpoint::Model;
use interchange::page;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, runtime] = &arguments[..] else {
        return Err("give a model file, the folder to write, and the folder of onnxruntime-web".into());
    };
    let model = Model::load(Path::new(model), &Device::flex())?;
    eprint!("{}", page::export(&model, Path::new(folder), Some(Path::new(runtime)))?);
    Ok(())
}
