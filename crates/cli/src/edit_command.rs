//! `diffuse edit`.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use burn::tensor::{Device, Int, Tensor, TensorData, s};
use checkpoint::Model;
use clap::{Args, Subcommand};
use data::LoadOptions;
use files::{Action, FileError};
use noise::{Noise, Purpose};
use picture::save_png;
use pipeline::{NetworkDenoiser, grid_columns, previews, sample_grid};
use sampler::{
    DdimOptions, Denoiser, Guided, NoiseLevel, RepaintOptions, ddim, ddim_inversion, levels_for_strength, noised,
    repaint, slerp,
};
use serde_json::json;

use crate::{
    UsageError,
    arguments::{ModelArguments, count},
    class_names::Classes,
    model_images::{batch, load_options},
    read_data::{ColumnArguments, open_data},
};

#[derive(Subcommand)]
pub enum EditCommand {
    /// Images between two: their noise (by DDIM inversion) on the way from one to the other
    Interpolate {
        #[command(flatten)]
        common: EditArguments,
        /// The first image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        first: String,
        /// The second
        second: String,
        /// Instead of inversion: noise both to this share of the chain and mix them there (lucidrains)
        #[arg(long, value_name = "STRENGTH")]
        at: Option<f64>,
    },
    /// Images like one: it is noised part of the way, and denoised again
    Vary {
        #[command(flatten)]
        common: EditArguments,
        /// The image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        image: String,
        /// How much changes: 0 nothing, 1 everything
        #[arg(long, default_value_t = 0.5)]
        strength: f64,
    },
    /// Fill in a part of an image (RePaint)
    Inpaint {
        #[command(flatten)]
        common: EditArguments,
        /// The image: a file, or NAME#INDEX or PATH#INDEX of a dataset
        image: String,
        /// The rectangle to fill in, in pixels of the model's images
        #[arg(long = "box", num_args = 4, value_names = ["TOP", "LEFT", "HEIGHT", "WIDTH"], required_unless_present = "mask")]
        rectangle: Option<Vec<usize>>,
        /// A picture that is white where the image is to be filled in
        #[arg(long, value_name = "FILE", conflicts_with = "rectangle")]
        mask: Option<PathBuf>,
        /// How often each stretch of the chain is walked
        #[arg(long, default_value_t = 10)]
        resamplings: usize,
        /// Steps of a stretch
        #[arg(long, default_value_t = 10)]
        jump_length: usize,
    },
}

#[derive(Args)]
pub struct EditArguments {
    #[command(flatten)]
    model: ModelArguments,
    /// Number of images; of an interpolation with both ends
    #[arg(long, default_value_t = 9, value_parser = count(1..=4096))]
    count: usize,
    /// Number of steps of the whole chain; the model's own if not given
    #[arg(long)]
    steps: Option<usize>,
    /// The class of the images, by its name or number; none if not given
    #[arg(long, value_name = "NAME|NUMBER", allow_hyphen_values = true)]
    class: Option<String>,
    /// Scale of classifier-free guidance, with a class
    #[arg(long, requires = "class", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Where the grid goes: the images given, then those made
    #[arg(long, value_name = "FILE", default_value = "edit.png")]
    out: PathBuf,
}

pub fn run(command: EditCommand) -> anyhow::Result<()> {
    match &command {
        EditCommand::Interpolate { common, first, second, at } => Editor::open(common)?.interpolate(first, second, *at),
        EditCommand::Vary { common, image, strength } => Editor::open(common)?.vary(image, *strength),
        EditCommand::Inpaint { common, image, rectangle, mask, resamplings, jump_length } => {
            let options =
                RepaintOptions { resamplings: *resamplings, jump_length: *jump_length, ..RepaintOptions::default() };
            Editor::open(common)?.inpaint(image, rectangle.as_deref(), mask.as_deref(), options)
        }
    }
}

/// A model on its device, with the arguments of all edits.
struct Editor<'a> {
    arguments: &'a EditArguments,
    model: Model,
    device: Device,
    class: Option<usize>,
    /// Noise levels of the whole chain.
    levels: Vec<NoiseLevel>,
    noise: Noise,
    /// Bound that x_0 is clipped to.
    clip: Option<f64>,
}

impl<'a> Editor<'a> {
    fn open(arguments: &'a EditArguments) -> anyhow::Result<Self> {
        let (model, device) = arguments.model.open()?;
        let classes = Classes::new(&model.header.classes, model.header.unet.classes());
        let class = arguments.class.as_deref().map(|class| classes.label(class)).transpose()?;
        let sampling = &model.header.sampling;
        let steps = arguments.steps.unwrap_or(sampling.steps);
        let levels = model.header.schedule.build()?.levels(sampling.spacing, steps)?;
        let clip = sampling.clip.then_some(1.0);
        Ok(Self { arguments, model, device, class, levels, noise: Noise::new(arguments.model.seed), clip })
    }

    /// The network as a denoiser of `count` images of the class.
    fn denoiser(&self, count: usize) -> anyhow::Result<Box<dyn Denoiser + '_>> {
        let unconditional = NetworkDenoiser::new(&self.model, None);
        let Some(class) = self.class else { return Ok(Box::new(unconditional)) };
        let labels = Tensor::<1, Int>::from_data(TensorData::new(vec![class as i64; count], [count]), &self.device);
        let conditional = NetworkDenoiser::new(&self.model, Some(labels));
        let scale = self.arguments.guidance.unwrap_or(self.model.header.sampling.guidance);
        let guided = Guided::new(conditional, unconditional, scale);
        guided.check()?;
        Ok(Box::new(guided))
    }

    /// An image in the format of the model, `[1, channels, height, width]`.
    fn image(&self, name: &str) -> anyhow::Result<Tensor<4>> {
        let path = Path::new(name);
        if path.is_file() && !name.contains('#') {
            return self.picture(path);
        }
        let (source, index) = name.rsplit_once('#').unwrap_or((name, "0"));
        let index: usize =
            index.parse().map_err(|_| UsageError(format!("`{name}`: write the number of an image after #")))?;
        let images = open_data(source, &self.load_options())?.images;
        if index >= images.len() {
            bail!("`{name}`: {source} has the images 0 to {}", images.len().saturating_sub(1));
        }
        Ok(batch(&images, index..index + 1, &self.device))
    }

    /// A single picture, read as a folder of one.
    fn picture(&self, path: &Path) -> anyhow::Result<Tensor<4>> {
        let folder = tempfile::tempdir().context("a temporary folder is needed")?;
        let name = path.file_name().context("the picture has no name")?;
        std::fs::copy(path, folder.path().join(name)).map_err(|source| FileError::new(Action::Read, path, source))?;
        let shown = folder.path().display().to_string();
        let opened = data::open(&shown, &self.load_options());
        // the user did not name the temporary folder
        let opened = opened.map_err(|error| anyhow!(error.to_string().replace(&format!("{shown}/"), "")))?;
        Ok(batch(&opened.images, 0..1, &self.device))
    }

    fn load_options(&self) -> LoadOptions {
        load_options(self.model.header.image, &ColumnArguments::default())
    }

    fn interpolate(&self, first: &str, second: &str, at: Option<f64>) -> anyhow::Result<()> {
        let (first, second) = (self.image(first)?, self.image(second)?);
        let mix: fn(Tensor<4>, Tensor<4>, f64) -> Tensor<4>;
        let (levels, ends) = match at {
            // by the noise from which DDIM makes each of them
            None => {
                mix = slerp;
                let denoiser = self.denoiser(1)?;
                let invert =
                    |image: &Tensor<4>| ddim_inversion(&*denoiser, image.clone(), &self.levels, 3, &mut |_| ());
                (&self.levels[..], [invert(&first)?, invert(&second)?])
            }
            Some(strength) => {
                mix = |first, second, share| first * (1.0 - share) + second * share;
                let levels = levels_for_strength(&self.levels, strength)?;
                let noised = |image: &Tensor<4>, index| noised(image.clone(), levels[0], &[index], &self.noise);
                (levels, [noised(&first, 0), noised(&second, 1)])
            }
        };
        let count = self.arguments.count;
        let share = |index: usize| index as f64 / (count.max(2) - 1) as f64;
        let between = (0..count).map(|index| mix(ends[0].clone(), ends[1].clone(), share(index))).collect();
        let options = DdimOptions { clip: self.clip, ..DdimOptions::default() };
        let denoiser = self.denoiser(count)?;
        let made = ddim(&*denoiser, Tensor::cat(between, 0), levels, options, &self.noise, &mut |_| ())?;
        self.save(vec![first, made, second])
    }

    fn vary(&self, name: &str, strength: f64) -> anyhow::Result<()> {
        let image = self.image(name)?;
        let levels = levels_for_strength(&self.levels, strength)?;
        let count = self.arguments.count;
        let noise_indices: Vec<u64> = (0..count as u64).collect();
        let start = noised(image.clone().repeat_dim(0, count), levels[0], &noise_indices, &self.noise);
        let eta = self.model.header.sampling.eta;
        let options = DdimOptions { clip: self.clip, eta, noise_indices: Some(noise_indices) };
        let made = ddim(&*self.denoiser(count)?, start, levels, options, &self.noise, &mut |_| ())?;
        self.save(vec![image, made])
    }

    fn inpaint(
        &self,
        name: &str,
        rectangle: Option<&[usize]>,
        mask: Option<&Path>,
        options: RepaintOptions,
    ) -> anyhow::Result<()> {
        let image = self.image(name)?;
        let mask = match (rectangle, mask) {
            (Some(&[top, left, height, width]), _) => self.outside(top, left, height, width)?,
            (_, Some(path)) => {
                let white = self.picture(path)?.mean_dim(1).repeat_dim(1, self.model.header.image.channels);
                white.lower_elem(0.0).float()
            }
            _ => return Err(UsageError("inpaint needs --box or --mask".to_owned()).into()),
        };
        let count = self.arguments.count;
        let noise_indices: Vec<u64> = (0..count as u64).collect();
        let [_, channels, height, width] = image.dims();
        let stream = self.noise.stream(Purpose::InitialNoise);
        let start = stream.normal_images(&noise_indices, 0, [channels, height, width], &self.device);
        let [known, masks] = [&image, &mask].map(|one| one.clone().repeat_dim(0, count));
        let options = RepaintOptions { clip: self.clip, noise_indices: Some(noise_indices), ..options };
        let denoiser = self.denoiser(count)?;
        let made = repaint(&*denoiser, known, masks, start, &self.levels, options, &self.noise, &mut |_| ())?;
        // the second picture is the known part, gray where it was filled in
        self.save(vec![image.clone(), image * mask, made])
    }

    /// A mask that is 0 in a rectangle of the content and 1 elsewhere, `[1, channels, height, width]`.
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
        let top = top + (image.height - image.content_height) / 2;
        let left = left + (image.width - image.content_width) / 2;
        let ones = Tensor::ones([1, image.channels, image.height, image.width], &self.device);
        Ok(ones.slice_fill(s![.., .., top..top + height, left..left + width], 0f32))
    }

    /// Saves the grid of all images, up to 16 of them in one row.
    fn save(&self, images: Vec<Tensor<4>>) -> anyhow::Result<()> {
        let format = self.model.header.image;
        let pictures = previews(format.cropped(Tensor::cat(images, 0)), &format)?;
        let count = pictures.len();
        let columns = if count <= 16 { count } else { grid_columns(count, 0) };
        let out = &self.arguments.out;
        save_png(&sample_grid(&pictures, columns)?, out)?;
        self.arguments.model.common.print(json!({ "images": count, "grid": out }), out.display())
    }
}
