//! Writes a model file as ONNX, and with a number of steps as a whole DDIM chain:
//! `cargo run --package interchange --example onnx -- MODEL.safetensors FILE.onnx [STEPS]`.

use std::path::Path;

use burn::tensor::Device;
use checkpoint::Model;
use interchange::onnx;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, file, chain) = match &arguments[..] {
        [model, file] => (model, file, None),
        [model, file, steps] => (model, file, Some(steps.parse()?)),
        _ => return Err("give a model file, the file to write, and perhaps a number of steps".into()),
    };
    let model = Model::load(Path::new(model), &Device::flex())?;
    eprint!("{}", onnx::export(&model, onnx::Options { chain }, Path::new(file))?);
    Ok(())
}
