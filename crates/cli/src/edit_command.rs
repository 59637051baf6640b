//! `diffuse edit`: making images out of images.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor, TensorData};
use checkpoint::Model;
use clap::{Args, Subcommand};
use data::{LoadOptions, Split};
use noise::{Noise, Purpose};
use picture::{Pixels, grid, save_png};
use pipeline::NetworkDenoiser;
use sampler::{
    DdimOptions, Denoiser, Guided, RepaintOptions, ddim, ddim_inversion, levels_for_strength, noised, repaint, slerp,
};

use crate::{
    UsageError,
    nll_command::{batch, options},
    print_result,
    read_data::{ColumnArguments, open_data},
    sample_command::model_file,
};

#[derive(Subcommand)]
pub enum EditCommand {
    /// Images between two: their noise (by DDIM inversion) on the way from one to the other
    Interpolate {
        #[command(flatten)]
        common: Common,
        /// The first image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        first: String,
        /// The second
        second: String,
        /// How many images, with both ends
        #[arg(long, default_value_t = 9)]
        count: usize,
        /// Instead of inversion: noise both to this share of the chain and mix them there (lucidrains)
        #[arg(long, value_name = "STRENGTH")]
        at: Option<f64>,
    },
    /// Images like one: it is noised part of the way, and denoised again
    Vary {
        #[command(flatten)]
        common: Common,
        /// The image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        image: String,
        /// How much changes: 0 nothing, 1 everything
        #[arg(long, default_value_t = 0.5)]
        strength: f64,
        /// How many images
        #[arg(long, default_value_t = 9)]
        count: usize,
    },
    /// Fill in a part of an image (RePaint)
    Inpaint {
        #[command(flatten)]
        common: Common,
        /// The image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        image: String,
        /// The rectangle to fill in, in pixels of the model's images
        #[arg(long = "box", num_args = 4, value_names = ["TOP", "LEFT", "HEIGHT", "WIDTH"], required_unless_present = "mask")]
        rectangle: Option<Vec<usize>>,
        /// A picture that is white where the image is to be filled in
        #[arg(long, value_name = "FILE", conflicts_with = "rectangle")]
        mask: Option<PathBuf>,
        /// How often each stretch is walked
        #[arg(long, default_value_t = 10)]
        resamplings: usize,
        /// Steps of a stretch
        #[arg(long, default_value_t = 10)]
        jump_length: usize,
        /// How many images
        #[arg(long, default_value_t = 9)]
        count: usize,
    },
}

#[derive(Args)]
pub struct Common {
    /// A run directory or a model file
    #[arg(value_name = "RUN|FILE")]
    model: PathBuf,
    /// Number of steps of the whole chain; the model's own if not given
    #[arg(long)]
    steps: Option<usize>,
    /// The class that the network is told; none if not given
    #[arg(long)]
    class: Option<usize>,
    /// Scale of classifier-free guidance, with a class
    #[arg(long)]
    guidance: Option<f64>,
    /// The same seed gives the same images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the grid goes: the images given, then those made
    #[arg(long, value_name = "FILE", default_value = "edit.png")]
    out: PathBuf,
    /// flex (the CPU), wgpu, vulkan, metal, cuda, rocm
    #[arg(long)]
    device: Option<String>,
    /// One JSON object on standard output
    #[arg(long)]
    json: bool,
}

/// A model on its device.
struct Editor<'a> {
    common: &'a Common,
    model: Model,
    device: Device,
}

pub fn run(command: EditCommand) -> anyhow::Result<()> {
    match &command {
        EditCommand::Interpolate { common, first, second, count, at } => {
            let editor = Editor::open(common, *count)?;
            editor.interpolate([first, second], *count, *at)
        }
        EditCommand::Vary { common, image, strength, count } => {
            let editor = Editor::open(common, *count)?;
            editor.vary(image, *strength, *count)
        }
        EditCommand::Inpaint { common, image, rectangle, mask, resamplings, jump_length, count } => {
            let editor = Editor::open(common, *count)?;
            let options = RepaintOptions {
                resamplings: *resamplings,
                jump_length: *jump_length,
                clip: editor.clip(),
                ..RepaintOptions::default()
            };
            editor.inpaint(image, rectangle.as_deref(), mask.as_deref(), options, *count)
        }
    }
}

impl<'a> Editor<'a> {
    fn open(common: &'a Common, count: usize) -> anyhow::Result<Self> {
        if !(1..=4096).contains(&count) {
            return Err(UsageError(format!("--count {count} is not possible: it must be 1 to 4096")).into());
        }
        let (_, device) = device::open_or_default(common.device.as_deref())?;
        let mut model = Model::load(&model_file(&common.model)?, &device)?;
        let classes = model.header.unet.classes;
        if let Some(class) = common.class.filter(|class| *class >= classes) {
            let known = if classes == 0 { "none".to_owned() } else { format!("0 to {}", classes - 1) };
            bail!("the class {class} does not exist; the classes of this model: {known}");
        }
        let sampling = &mut model.header.sampling;
        sampling.steps = common.steps.unwrap_or(sampling.steps);
        sampling.guidance = common.guidance.unwrap_or(sampling.guidance);
        Ok(Self { common, model, device })
    }

    fn clip(&self) -> Option<f64> {
        self.model.header.sampling.clip.then_some(1.0)
    }

    fn levels(&self) -> anyhow::Result<Vec<sampler::NoiseLevel>> {
        let header = &self.model.header;
        Ok(header.schedule.build()?.levels(header.sampling.spacing, header.sampling.steps)?)
    }

    /// The network, told the class, for this many images.
    fn denoiser(&self, count: usize) -> anyhow::Result<Box<dyn Denoiser + '_>> {
        let free = NetworkDenoiser::new(&self.model, None);
        let Some(class) = self.common.class else { return Ok(Box::new(free)) };
        let labels = Tensor::from_data(TensorData::new(vec![class as i64; count], [count]), &self.device);
        let guided =
            Guided::new(NetworkDenoiser::new(&self.model, Some(labels)), free, self.model.header.sampling.guidance);
        guided.check()?;
        Ok(Box::new(guided))
    }

    /// An image as the model sees it, `[1, channels, height, width]`.
    fn image(&self, name: &str) -> anyhow::Result<Tensor<4>> {
        let (source, index) = match name.rsplit_once('#') {
            Some((source, index)) => {
                let index: usize = index
                    .parse()
                    .map_err(|_| UsageError(format!("`{name}`: what follows # must be the number of an image")))?;
                (source, index)
            }
            None => (name, 0),
        };
        let read = LoadOptions {
            limit: None,
            split: Split::Train,
            ..options(&self.model, &ColumnArguments::default(), Split::Train, 1)
        };
        let path = Path::new(source);
        if path.is_file() && !name.contains('#') {
            return self.picture(path, &read);
        }
        let images = open_data(source, &read)?.images;
        if index >= images.len() {
            bail!("`{name}`: {source} has the images 0 to {}", images.len().saturating_sub(1));
        }
        Ok(batch(&images, index..index + 1, &self.device))
    }

    /// A single picture, read as a folder of one.
    fn picture(&self, path: &Path, read: &LoadOptions) -> anyhow::Result<Tensor<4>> {
        let folder = tempfile::tempdir().context("a temporary folder is needed")?;
        let name = path.file_name().context("the picture has no name")?;
        std::fs::copy(path, folder.path().join(name))
            .map_err(|source| files::FileError::new(files::Action::Read, path, source))?;
        let shown = folder.path().display().to_string();
        let opened = data::open(&shown, read);
        // the user knows nothing of the temporary folder
        let images =
            opened.map_err(|error| anyhow::anyhow!(error.to_string().replace(&format!("{shown}/"), "")))?.images;
        Ok(batch(&images, 0..1, &self.device))
    }

    fn interpolate(&self, names: [&str; 2], count: usize, at: Option<f64>) -> anyhow::Result<()> {
        let (first, second) = (self.image(names[0])?, self.image(names[1])?);
        let levels = self.levels()?;
        let noise = Noise::new(self.common.seed);
        let share = |index: usize| index as f64 / (count.max(2) - 1) as f64;
        let denoiser = self.denoiser(count)?;
        let options = DdimOptions { clip: self.clip(), ..DdimOptions::default() };
        let made = match at {
            None => {
                // what DDIM would make each of
                let one = self.denoiser(1)?;
                let invert = |image: &Tensor<4>| ddim_inversion(&*one, image.clone(), &levels, 3, &mut |_| ());
                let ends = [invert(&first)?, invert(&second)?];
                let between = (0..count).map(|index| slerp(ends[0].clone(), ends[1].clone(), share(index))).collect();
                ddim(&*denoiser, Tensor::cat(between, 0), &levels, options, &noise, &mut |_| ())?
            }
            Some(strength) => {
                let levels = levels_for_strength(&levels, strength)?;
                let ends =
                    [noised(first.clone(), levels[0], &[0], &noise), noised(second.clone(), levels[0], &[1], &noise)];
                let between = (0..count)
                    .map(|index| ends[0].clone() * (1.0 - share(index)) + ends[1].clone() * share(index))
                    .collect();
                ddim(&*denoiser, Tensor::cat(between, 0), levels, options, &noise, &mut |_| ())?
            }
        };
        self.finish(vec![first, made, second])
    }

    fn vary(&self, name: &str, strength: f64, count: usize) -> anyhow::Result<()> {
        let image = self.image(name)?;
        let levels = self.levels()?;
        let levels = levels_for_strength(&levels, strength)?;
        let noise = Noise::new(self.common.seed);
        let samples: Vec<u64> = (0..count as u64).collect();
        let start = noised(image.clone().repeat_dim(0, count), levels[0], &samples, &noise);
        let options =
            DdimOptions { clip: self.clip(), eta: self.model.header.sampling.eta, noise_indices: Some(samples) };
        let made = ddim(&*self.denoiser(count)?, start, levels, options, &noise, &mut |_| ())?;
        self.finish(vec![image, made])
    }

    fn inpaint(
        &self,
        name: &str,
        rectangle: Option<&[usize]>,
        mask: Option<&Path>,
        options: RepaintOptions,
        count: usize,
    ) -> anyhow::Result<()> {
        let image = self.image(name)?;
        let kept = match (rectangle, mask) {
            (Some(&[top, left, height, width]), _) => self.outside(top, left, height, width)?,
            (_, Some(path)) => {
                // white is to be filled in
                let read = LoadOptions {
                    limit: None,
                    ..crate::nll_command::options(&self.model, &ColumnArguments::default(), Split::Train, 1)
                };
                let white = self.picture(path, &read)?.mean_dim(1).repeat_dim(1, self.model.header.image.channels);
                white.lower_elem(0.0).float()
            }
            _ => return Err(UsageError("inpaint needs --box or --mask".to_owned()).into()),
        };
        let noise = Noise::new(self.common.seed);
        let samples: Vec<u64> = (0..count as u64).collect();
        let [_, channels, height, width] = image.dims();
        let start =
            noise.stream(Purpose::InitialNoise).normal_images(&samples, 0, [channels, height, width], &self.device);
        let (known, mask) = (image.clone().repeat_dim(0, count), kept.clone().repeat_dim(0, count));
        let levels = self.levels()?;
        let options = RepaintOptions { noise_indices: Some(samples), ..options };
        let made = repaint(&*self.denoiser(count)?, known, mask, start, &levels, options, &noise, &mut |_| ())?;
        // what was there to see: gray where it is to be filled in
        let shown = image.clone() * kept;
        self.finish(vec![image, shown, made])
    }

    /// 1 outside of a rectangle of the content, 0 inside.
    fn outside(&self, top: usize, left: usize, height: usize, width: usize) -> anyhow::Result<Tensor<4>> {
        let image = self.model.header.image;
        let fits = |start: usize, length: usize, all: usize| length > 0 && start < all && length <= all - start;
        if !(fits(top, height, image.content_height) && fits(left, width, image.content_width)) {
            let text = format!(
                "--box {top} {left} {height} {width} does not lie in the images of this model, {}x{} (height x width)",
                image.content_height, image.content_width
            );
            return Err(UsageError(text).into());
        }
        let (border_top, border_left) =
            ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
        let mut values = vec![1f32; image.channels * image.height * image.width];
        for plane in values.chunks_exact_mut(image.height * image.width) {
            for row in plane.chunks_exact_mut(image.width).skip(border_top + top).take(height) {
                row[border_left + left..][..width].fill(0.0);
            }
        }
        let shape = [1, image.channels, image.height, image.width];
        Ok(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }

    fn finish(&self, parts: Vec<Tensor<4>>) -> anyhow::Result<()> {
        let image = self.model.header.image;
        let (top, left) = ((image.height - image.content_height) / 2, (image.width - image.content_width) / 2);
        let all = Tensor::cat(parts, 0).narrow(2, top, image.content_height).narrow(3, left, image.content_width);
        let pictures = pipeline::pictures(all)?;
        let columns =
            if pictures.len() <= 16 { pictures.len() } else { (pictures.len() as f64).sqrt().ceil() as usize };
        let scale = pictures.first().map_or(1, Pixels::display_scale);
        save_png(&grid(&pictures, columns, 2, scale)?, &self.common.out)?;
        match self.common.json {
            true => print_result(serde_json::json!({ "images": pictures.len(), "grid": self.common.out })),
            false => print_result(self.common.out.display()),
        }
    }
}
