//! Folders of diffusers: the configuration of the network, a line of `---`, that of the scheduler, another such line, the list of
//! the parts.
#![no_main]

use interchange::diffusers::{ImportOptions, import};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, "\n---\n");
    let mut write = |name: &str| {
        fuzz::with_file(&format!("pipeline/{name}"), parts.next().unwrap_or("{}").as_bytes(), |path| path.to_owned())
    };
    write("unet/config.json");
    write("scheduler/scheduler_config.json");
    let index = write("model_index.json");
    // a whole file without tensors: the network is refused after everything else was read
    let empty = b"\x08\0\0\0\0\0\0\0{}      ";
    fuzz::with_file("pipeline/unet/diffusion_pytorch_model.safetensors", empty, |_| ());
    let options = ImportOptions { image_size: Some((64, 64)) };
    let folder = index.parent().expect("a folder");
    drop(import(folder, &options, &burn::tensor::Device::flex()));
});
