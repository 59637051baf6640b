//! Evaluates a model, and draws its images from given noise: `from_noise MODEL INPUT.safetensors OUTPUT.safetensors`.
//!
//! MODEL is a model file or a folder of diffusers. INPUT has `x` `[N, C, H, W]` and `t` `[N]` in f32, and `labels` `[N]` in i64
//! where the model has them; OUTPUT has the prediction `y`, and `images`, which DDIM with eta 0 draws from `x`.

use std::{error::Error, fs, path::Path};

use burn::tensor::{Device, Int, Tensor, TensorData};
use checkpoint::Model;
use interchange::diffusers::{ImportOptions, import, is_folder};
use noise::Noise;
use pipeline::NetworkDenoiser;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use sampler::{DdimOptions, ddim};
use unet::Condition;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, input, output] = arguments.as_slice() else {
        return Err("from_noise MODEL INPUT.safetensors OUTPUT.safetensors".into());
    };
    let device = Device::flex();
    let model = if is_folder(Path::new(model)) {
        let (model, account) = import(Path::new(model), &ImportOptions::default(), &device)?;
        eprint!("{account}");
        model
    } else {
        Model::load(Path::new(model), &device)?
    };
    let bytes = fs::read(input)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let x = Tensor::<4>::from_data(floats(&file.tensor("x")?), &device);
    let t = Tensor::<1>::from_data(floats(&file.tensor("t")?), &device);
    let labels = file.tensor("labels").ok().map(|view| {
        let labels: Vec<i64> = view.data().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        Tensor::<1, Int>::from_data(TensorData::new(labels, view.shape().to_vec()), &device)
    });

    let y = model.unet.forward(x.clone(), t, Condition { labels: labels.clone(), ..Condition::default() });
    let options = &model.header.sampling;
    let levels = model.header.schedule.build()?.levels(options.spacing, options.steps)?;
    let clip = options.clip.then_some(1.0);
    let denoiser = NetworkDenoiser::new(&model, labels);
    let options = DdimOptions { clip, ..DdimOptions::default() };
    let images = ddim(&denoiser, x, &levels, options, &Noise::new(0), &mut |_| ())?;

    let data = [("y", y), ("images", images)].map(|(name, tensor)| (name, tensor.into_data()));
    let bytes = data.each_ref().map(|(_, data)| data.iter::<f32>().flat_map(f32::to_le_bytes).collect::<Vec<u8>>());
    let view = |index: usize| TensorView::new(Dtype::F32, data[index].1.shape().to_vec(), &bytes[index]);
    let views = [(data[0].0, view(0)?), (data[1].0, view(1)?)];
    fs::write(output, safetensors::serialize(views, None)?)?;
    Ok(())
}

fn floats(view: &TensorView) -> TensorData {
    let values: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    TensorData::new(values, view.shape().to_vec())
}
