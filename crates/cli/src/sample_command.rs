//! `diffuse sample`.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, bail};
use burn::tensor::{Int, Tensor};
use checkpoint::{GuidanceKind, Model, SamplerKind};
use clap::{Args, ValueEnum};
use classifier::NoisedClassifier;
use noise::Noise;
use picture::{DeepPixels, Pixels, grid, save_gif, save_png, save_png_sixteen_bits, strip};
use pipeline::{GenerateError, Guide, Request, generate_guided};
use sampler::Classifier;
use schedule::Spacing;

use crate::{UsageError, print_result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// All images in one PNG
    Grid,
    /// One PNG for each image
    Png,
    /// samples.npz: arr_0 u8 (u16 where the model learned 16 bits) [N, H, W, C], arr_1 i64 labels
    Npz,
    /// The denoising of the grid as an animation
    Gif,
    /// The denoising of the first image as a row of frames
    Strip,
}

#[derive(Args)]
pub struct SampleArguments {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
    /// Number of images
    #[arg(long, default_value_t = 25)]
    count: usize,
    /// Draw only this part of the images, as in 3/16 for the third of sixteen: all parts together are the same images
    #[arg(long, value_name = "PART/PARTS")]
    shard: Option<Shard>,
    /// Which sampler: ddpm, ddim, euler, euler_ancestral, heun, edm, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, dpmpp_3m_sde, unipc,
    /// deis or pndm; the model's own choice if not given, as with all that follow
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Number of steps
    #[arg(long)]
    steps: Option<usize>,
    /// Which noise levels: lucidrains, leading, trailing, linspace, uniform, karras, exponential or flow
    #[arg(long)]
    spacing: Option<Spacing>,
    /// How random DDIM is: 0 not at all, 1 as DDPM
    #[arg(long)]
    eta: Option<f64>,
    /// The same seed gives the same images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only this class; all in equal parts if not given
    #[arg(long)]
    class: Option<usize>,
    /// Scale of classifier-free guidance; 1 is none
    #[arg(long)]
    guidance: Option<f64>,
    /// Guidance only where the noise level sigma lies between these two
    #[arg(long, num_args = 2, value_names = ["LEAST", "MOST"])]
    guidance_interval: Option<Vec<f64>>,
    /// How far the contrast of guided images is brought back, 0 to 1
    #[arg(long, value_name = "SHARE")]
    guidance_rescale: Option<f64>,
    /// Guide by CFG++, with a scale from 0 to 1
    #[arg(long)]
    cfg_plus_plus: bool,
    /// Guide by a weaker model of the same images (autoguidance) instead of the network without the class
    #[arg(long, value_name = "RUN|FILE")]
    weaker: Option<PathBuf>,
    /// Guide by a classifier of noised images (from diffuse classifier), the network not being told the class; --guidance is
    /// its scale
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weaker", "cfg_plus_plus"])]
    classifier: Option<PathBuf>,
    /// How many images go through the network at a time: fewer take less memory, and are the same
    #[arg(long)]
    batch_size: Option<usize>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "samples")]
    out: PathBuf,
    /// What to write
    #[arg(long, value_delimiter = ',', default_value = "grid")]
    save: Vec<Output>,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// One part of several, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    part: usize,
    parts: usize,
}

impl Shard {
    /// The images of this part, of `count`.
    fn range(self, count: usize) -> Range<usize> {
        (self.part - 1) * count / self.parts..self.part * count / self.parts
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) && parts <= 1 << 20 => Ok(Self { part, parts }),
            _ => Err("write it as PART/PARTS, as in 3/16, with a PART from 1 to PARTS".to_owned()),
        }
    }
}

/// Frames of an animation and of a strip.
const FRAMES: usize = 12;

pub fn run(arguments: SampleArguments) -> anyhow::Result<()> {
    let (_, device) = device::open_or_default(arguments.device.as_deref())?;
    if !(1..=1 << 20).contains(&arguments.count) {
        return Err(UsageError(format!("--count {} is not possible: it must be 1 to 1048576", arguments.count)).into());
    }
    if let (Some(launch), None) = (parallel::launched(), arguments.shard) {
        let parallel::Launch { launcher, size } = launch;
        return Err(UsageError(format!(
            "{launcher} started {size} processes, which would all draw the same images into the same files: give each a part and a \
             folder of its own, as --shard 1/{size} --out part-1"
        ))
        .into());
    }
    // before the images are drawn, which may take an hour
    files::check_writable(&arguments.out.join("grid.png"))
        .context("the pictures need a folder; name one with --out")?;
    let mut model = Model::load(&model_file(&arguments.model)?, &device)?;
    let options = &mut model.header.sampling;
    options.sampler = arguments.sampler.unwrap_or(options.sampler);
    options.spacing = arguments.spacing.unwrap_or(options.spacing);
    options.steps = arguments.steps.unwrap_or(options.steps);
    options.eta = arguments.eta.unwrap_or(options.eta);
    options.batch_size = arguments.batch_size.unwrap_or(options.batch_size);
    options.guidance = arguments.guidance.unwrap_or(options.guidance);
    options.guidance_rescale = arguments.guidance_rescale.unwrap_or(options.guidance_rescale);
    if let Some(interval) = &arguments.guidance_interval {
        options.guidance_interval = Some([interval[0], interval[1]]);
    }
    if arguments.cfg_plus_plus {
        options.guidance_kind = GuidanceKind::CfgPlusPlus;
    }
    let classifier = match &arguments.classifier {
        Some(path) => Some(NoisedClassifier::load(path, &device)?),
        None => None,
    };
    // a classifier brings classes to a model that knows none
    let classes = classifier.as_ref().map_or(model.header.unet.classes, NoisedClassifier::classes);
    if let Some(classifier) = &classifier {
        check_guide(classifier, &model, arguments.class)?;
    }
    let request = match arguments.class {
        Some(class) => Request { labels: Some(vec![class; arguments.count]), ..Request::count(arguments.count) },
        None => Request::even(arguments.count, classes),
    };
    let range = arguments.shard.map_or(0..arguments.count, |shard| shard.range(arguments.count));
    if range.is_empty() {
        let (part, count) = (arguments.shard.map_or(1, |shard| shard.part), arguments.count);
        return Err(UsageError(format!("part {part} of --shard holds none of {count} images: use fewer parts")).into());
    }
    let request = Request {
        noise_indices: request.noise_indices[range.clone()].to_vec(),
        labels: request.labels.map(|labels| labels[range.clone()].to_vec()),
    };

    let wants = |output| arguments.save.contains(&output);
    let keeps_frames = wants(Output::Gif) || wants(Output::Strip);
    // x_t along the way, for each batch, without what the data was padded with
    let image = model.header.image;
    let (top, left) = ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
    let mut frames: Vec<Vec<Tensor<4>>> = Vec::new();
    let weaker = match &arguments.weaker {
        Some(path) => Some(Model::load(&model_file(path)?, &device)?),
        None => None,
    };
    let towards = classifier.as_ref().map(|classifier| {
        |labels: Tensor<1, Int>| -> Box<dyn Classifier + '_> { Box::new(classifier.towards(labels)) }
    });
    let guide = match (&towards, &weaker) {
        (Some(towards), _) => Guide::Classifier(towards),
        (None, Some(weaker)) => Guide::Weaker(weaker),
        (None, None) => Guide::Itself,
    };
    let images = generate_guided(&model, guide, &request, &Noise::new(arguments.seed), &mut |step| {
        if keeps_frames {
            if step.index == 0 {
                frames.push(Vec::new());
            }
            let stride = step.count.div_ceil(FRAMES);
            if (step.count - 1 - step.index).is_multiple_of(stride)
                && let Some(batch) = frames.last_mut()
            {
                let frame = step.x_t.clone();
                batch.push(frame.narrow(2, top, image.content_height).narrow(3, left, image.content_width));
            }
        }
    })?;
    let pictures = pipeline::pictures(images.clone())?;
    let Some(first) = pictures.first() else { bail!("no image was drawn") };
    files::create_folder(&arguments.out).context("the pictures need a folder; name one with --out")?;

    let columns = match (arguments.class, classes) {
        (None, classes) if classes > 0 => arguments.count.div_ceil(classes),
        _ => (pictures.len() as f64).sqrt().ceil() as usize,
    };
    // what was learned in 16 bits is drawn in 16 bits; grids and animations are to be looked at
    let deep = match image.bits {
        16 => {
            let values: Vec<f32> = images.into_data().iter::<f32>().collect();
            Some(DeepPixels::from_nchw(first.height(), first.width(), first.channels(), &values)?)
        }
        _ => None,
    };
    let scale = first.display_scale();
    let mut files = Vec::new();
    let path = |name: &str| arguments.out.join(name);
    if wants(Output::Grid) {
        save_png(&grid(&pictures, columns, 2, scale)?, path("grid.png"))?;
        files.push(path("grid.png"));
    }
    if wants(Output::Png) {
        // numbered as in the whole
        for (index, picture) in range.clone().zip(&pictures) {
            let file = path(&format!("{index:05}.png"));
            match &deep {
                Some(deep) => save_png_sixteen_bits(&deep[index - range.start], &file)?,
                None => save_png(picture, &file)?,
            }
            files.push(file);
        }
    }
    if wants(Output::Npz) {
        let shape = [pictures.len(), first.height(), first.width(), first.channels()].map(|side| side as u64);
        let labels = request.labels.as_deref();
        match &deep {
            Some(deep) => {
                write_npz(&path("samples.npz"), shape, deep.iter().flat_map(DeepPixels::data).copied(), labels)?
            }
            None => write_npz(&path("samples.npz"), shape, pictures.iter().flat_map(Pixels::data).copied(), labels)?,
        }
        files.push(path("samples.npz"));
    }
    if keeps_frames {
        let count = frames.iter().map(Vec::len).min().unwrap_or(0);
        let moments = (0..count)
            .map(|moment| {
                let all = frames.iter().map(|batch| batch[moment].clone()).collect();
                pipeline::pictures(Tensor::cat(all, 0))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if wants(Output::Gif) {
            let grids = moments.iter().map(|moment| grid(moment, columns, 2, scale)).collect::<Result<Vec<_>, _>>()?;
            save_gif(&grids, path("denoising.gif"), 12, 150)?;
            files.push(path("denoising.gif"));
        }
        if wants(Output::Strip) {
            let row: Vec<Pixels> = moments.iter().filter_map(|moment| moment.first().cloned()).collect();
            save_png(&strip(&row, 2, scale)?, path("strip.png"))?;
            files.push(path("strip.png"));
        }
    }
    if arguments.json {
        return print_result(serde_json::json!({ "count": pictures.len(), "files": files }));
    }
    files.iter().try_for_each(|file| print_result(file.display()))
}

/// A classifier knows the noise levels and the images that it was trained on, and no others.
fn check_guide(classifier: &NoisedClassifier, model: &Model, class: Option<usize>) -> anyhow::Result<()> {
    if classifier.image() != model.header.image || *classifier.schedule() != model.header.schedule {
        bail!(
            "the classifier was trained for images of another size or another schedule than the model's: train one for this \
             model with diffuse classifier"
        );
    }
    match class {
        Some(class) if class >= classifier.classes() => {
            Err(GenerateError::Class { class, classes: classifier.classes() }.into())
        }
        _ => Ok(()),
    }
}

/// The model file that a path means.
pub fn model_file(path: &Path) -> anyhow::Result<PathBuf> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let file = path.join("model.safetensors");
    if !file.exists() {
        bail!("the run {} has no model.safetensors yet: let its training end, or stop it with Ctrl-C", path.display());
    }
    Ok(file)
}

/// What the Python evaluators read: `arr_0` u8 (or u16) `[N, H, W, C]`, and `arr_1` i64 `[N]` where labels were asked for.
fn write_npz<V: npyz::AutoSerialize>(
    path: &Path,
    shape: [u64; 4],
    values: impl Iterator<Item = V>,
    labels: Option<&[usize]>,
) -> anyhow::Result<()> {
    use npyz::WriterBuilder;
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut archive = npyz::npz::NpzWriter::new(&mut bytes);
    // the same pictures are the same bytes, whatever the time
    let options = || npyz::zip::write::FileOptions::default().last_modified_time(npyz::zip::DateTime::default());
    let mut images = archive.array("arr_0", options())?.default_dtype().shape(&shape).begin_nd()?;
    images.extend(values)?;
    images.finish()?;
    if let Some(labels) = labels {
        let mut writer = archive.array("arr_1", options())?.default_dtype().shape(&shape[..1]).begin_nd()?;
        writer.extend(labels.iter().map(|label| *label as i64))?;
        writer.finish()?;
    }
    drop(archive);
    Ok(files::write_atomically(path, bytes.get_ref())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_cover_everything_once() {
        for (count, parts) in [(10, 3), (7, 7), (5, 1), (2, 4), (1000, 16)] {
            let all: Vec<usize> = (1..=parts).flat_map(|part| Shard { part, parts }.range(count)).collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
        }
        assert_eq!("3/16".parse(), Ok(Shard { part: 3, parts: 16 }));
        for text in ["0/4", "5/4", "3", "3/", "a/b", "-1/2", ""] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
