//! Reads a checkpoint of lucidrains' trainer, and draws four images: `cargo run --package interchange --example lucidrains -- model-1.pt`.

use burn::tensor::Device;
use interchange::lucidrains::{ImportOptions, import};
use noise::Noise;
use pipeline::{Request, generate};

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let path = std::env::args().nth(1).ok_or("name a file that Trainer.save wrote")?;
    let options = ImportOptions { sampling_timesteps: Some(20), ..ImportOptions::default() };
    let imported = import(path.as_ref(), &options, &Device::flex())?;
    eprint!("{}", imported.account);
    let images = generate(&imported.model, &Request::count(4), &Noise::new(0), &mut |_| ())?;
    eprintln!("drawn     {:?}", images.dims());
    imported.model.save("model.safetensors".as_ref())?;
    Ok(())
}
