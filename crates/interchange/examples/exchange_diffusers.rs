//! Takes a model in and out of diffusers: `exchange_diffusers FOLDER|MODEL MODEL.safetensors BACK`.
//!
//! The first is a folder of diffusers or a model file; it becomes the second, a model file, and the third, a folder of diffusers.

use std::{error::Error, path::Path};

use burn::tensor::Device;
use checkpoint::Model;
use interchange::diffusers::{ImportOptions, export, import, is_folder};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [from, model, back] = arguments.as_slice() else {
        return Err("exchange_diffusers FOLDER|MODEL MODEL.safetensors BACK".into());
    };
    let device = Device::flex();
    let read = if is_folder(Path::new(from)) {
        let (read, account) = import(Path::new(from), &ImportOptions::default(), &device)?;
        eprint!("{account}");
        read
    } else {
        Model::load(Path::new(from), &device)?
    };
    read.save(Path::new(model))?;
    eprint!("{}", export(&read, Path::new(back))?);
    Ok(())
}
