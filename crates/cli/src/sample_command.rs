//! `diffuse sample`.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use burn::tensor::{Int, Tensor};
use checkpoint::{GuidanceKind, ImageFormat, Model, SamplerKind, SamplingConfig};
use clap::{Args, ValueEnum};
use classifier::NoisedClassifier;
use noise::Noise;
use picture::{DeepPixels, PictureError, Pixels, labeled_grid, save_gif, save_png, save_png_sixteen_bits, strip};
use pipeline::{GenerateError, Guide, Request, generate_guided, grid_columns, pictures, previews, sample_grid};
use sampler::{Classifier, Observer};
use schedule::Spacing;
use serde_json::json;

use crate::{
    UsageError,
    arguments::{ModelArguments, count, load_model},
    class_names::Classes,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// All images in one PNG
    Grid,
    /// One PNG for each image
    Png,
    /// samples.npz: arr_0 u8 (u16 of a model of 16 bits) [N, H, W, C], arr_1 i64 labels
    Npz,
    /// The denoising of the grid as an animation
    Gif,
    /// The denoising of the first image as a row of frames
    Strip,
}

#[derive(Args)]
pub struct SampleArguments {
    /// Number of images
    #[arg(long, default_value_t = 25, value_parser = count(1..=1 << 20))]
    count: usize,
    /// Draw only this part of the images, as in 3/16 for the third of sixteen: all parts together are the same images
    #[arg(long, value_name = "PART/PARTS", value_parser = shard)]
    shard: Option<(usize, usize)>,
    /// ddpm, ddim, euler, euler_ancestral, heun, edm, dpmpp_2m, dpmpp_3m, dpmpp_2m_sde, dpmpp_3m_sde, unipc, deis or pndm; the
    /// model's own if not given, as with steps, spacing, eta, guidance and batch size
    #[arg(long)]
    sampler: Option<SamplerKind>,
    /// Number of steps
    #[arg(long)]
    steps: Option<usize>,
    /// Noise levels of the steps: lucidrains, leading, trailing, linspace, uniform, karras, exponential or flow
    #[arg(long)]
    spacing: Option<Spacing>,
    /// Randomness of DDIM: 0 is deterministic, 1 is DDPM
    #[arg(long, allow_negative_numbers = true)]
    eta: Option<f64>,
    /// Only this class, by its name or number; all in equal parts if not given
    #[arg(long, value_name = "NAME|NUMBER", allow_hyphen_values = true)]
    class: Option<String>,
    /// Scale of classifier-free guidance; 1 is none
    #[arg(long, allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Guidance only where sigma lies between these two
    #[arg(long, num_args = 2, value_names = ["LEAST", "MOST"])]
    guidance_interval: Option<Vec<f64>>,
    /// How far the contrast of guided images is brought back, 0 to 1
    #[arg(long, value_name = "SHARE")]
    guidance_rescale: Option<f64>,
    /// Guide by CFG++, with a scale from 0 to 1
    #[arg(long, conflicts_with_all = ["weaker", "guidance_interval", "guidance_rescale"])]
    cfg_plus_plus: bool,
    /// Guide by a weaker model of the same images (autoguidance) instead of the unconditional network
    #[arg(long, value_name = "RUN|FILE")]
    weaker: Option<PathBuf>,
    /// Guide the unconditional network by a classifier of noised images (from diffuse classifier); --guidance is its scale
    #[arg(long, value_name = "FILE", conflicts_with_all = ["weaker", "cfg_plus_plus", "guidance_interval", "guidance_rescale"])]
    classifier: Option<PathBuf>,
    /// Number of images that go through the network at a time: fewer take less memory and give the same images
    #[arg(long)]
    batch_size: Option<usize>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "samples")]
    out: PathBuf,
    /// Kinds of files to write
    #[arg(long, value_delimiter = ',', default_value = "grid")]
    save: Vec<Output>,
    /// Write the class of each row of the grid beside it
    #[arg(long)]
    row_labels: bool,
    #[command(flatten)]
    model: ModelArguments,
}

/// Parses one part of several, PART/PARTS, counted from 1.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    numbers
        .filter(|(part, parts)| (1..=*parts).contains(part) && *parts <= 1 << 20)
        .ok_or_else(|| "write it as PART/PARTS, as in 3/16, with a PART from 1 to PARTS".to_owned())
}

/// Most frames of an animation and of a strip.
const FRAMES: usize = 12;

const NO_FOLDER: &str = "the pictures need a folder; name one with --out";

pub fn run(arguments: SampleArguments) -> anyhow::Result<()> {
    let indices = arguments.indices()?;
    // before the images are drawn, which may take an hour
    files::check_writable(&arguments.out.join("grid.png")).context(NO_FOLDER)?;
    let (mut model, device) = arguments.model.open()?;
    arguments.lay_over(&mut model.header.sampling);
    let weaker = arguments.weaker.as_ref().map(|path| load_model(path, &device)).transpose()?;
    let classifier = arguments.classifier.as_ref().map(|path| NoisedClassifier::load(path, &device)).transpose()?;
    if let Some(classifier) = &classifier {
        check_guide(classifier, &model)?;
    }
    // a classifier brings classes to a model without
    let classes = classifier.as_ref().map_or(model.header.unet.classes(), NoisedClassifier::classes);
    arguments.check_used(&model.header.sampling, classes)?;
    let names = model.header.classes.clone();
    let names = Classes::new(&names, classes);
    let class = arguments.class.as_deref().map(|class| names.label(class)).transpose()?;
    let has_class_rows = class.is_none() && classes > 0;
    if arguments.row_labels && !(has_class_rows && arguments.shard.is_none() && arguments.save.contains(&Output::Grid))
    {
        let text = "--row-labels needs a grid with a row for each class: a model with classes, --save grid, and neither --class nor --shard";
        return Err(UsageError(text.to_owned()).into());
    }
    let request = arguments.request(class, classes, indices.clone());

    let format = model.header.image;
    if format.preview_channels.is_some() && arguments.save.contains(&Output::Png) {
        let text = format!(
            "PNG files hold gray, RGB or RGBA, and the images of this model have {} channels without colors: take --save npz, which \
             keeps all, or --save grid, which shows three",
            format.channels
        );
        return Err(UsageError(text).into());
    }
    let is_animated = arguments.save.iter().any(|output| matches!(output, Output::Gif | Output::Strip));
    // x_t of the batches, by the number of the step
    let mut frames = BTreeMap::<usize, Vec<Tensor<4>>>::new();
    let images = draw(&model, weaker.as_ref(), classifier.as_ref(), &request, arguments.model.seed, &mut |step| {
        let stride = step.count.div_ceil(FRAMES);
        if is_animated && (step.count - 1 - step.index).is_multiple_of(stride) {
            frames.entry(step.index).or_default().push(format.cropped(step.x_t.clone()));
        }
    })?;
    let columns = if has_class_rows { grid_columns(arguments.count, classes) } else { grid_columns(indices.len(), 0) };
    let frames = frames.into_values().map(|batches| previews(Tensor::cat(batches, 0), &format));
    let drawing = Drawing {
        folder: &arguments.out,
        format,
        indices,
        labels: request.labels,
        classes: &names,
        row_labels: arguments.row_labels,
        columns,
        pictures: pictures(images.clone())?,
        deep: if format.bits == 16 { Some(deep_pictures(images, format)?) } else { None },
        frames: frames.collect::<Result<_, _>>()?,
    };
    files::create_folder(&arguments.out).context(NO_FOLDER)?;
    let mut files = Vec::new();
    for output in Output::value_variants().iter().filter(|output| arguments.save.contains(output)) {
        drawing.save(*output, &mut files)?;
    }
    let lines: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let mut json = json!({ "count": drawing.pictures.len(), "files": files });
    if let Some(labels) = &drawing.labels {
        json["classes"] = labels.iter().map(|label| names.name(*label)).collect();
        json["class_names"] = names.all().into();
    }
    arguments.model.common.print(json, lines.join("\n"))
}

impl SampleArguments {
    /// Numbers of the images to draw.
    fn indices(&self) -> anyhow::Result<Range<usize>> {
        if let (Some(parallel::Launch { launcher, size }), None) = (parallel::launched(), self.shard) {
            return Err(UsageError(format!(
                "{launcher} started {size} processes, which would all draw the same images into the same files: give each a part and \
                 a folder of its own, as --shard 1/{size} --out part-1"
            ))
            .into());
        }
        let ((part, parts), count) = (self.shard.unwrap_or((1, 1)), self.count);
        let indices = parallel::shard(count, part - 1, parts);
        if indices.is_empty() {
            let text = format!("part {part} of --shard holds none of {count} images: use fewer parts");
            return Err(UsageError(text).into());
        }
        Ok(indices)
    }

    /// Lays the arguments over the sampling options of the model.
    fn lay_over(&self, options: &mut SamplingConfig) {
        options.sampler = self.sampler.unwrap_or(options.sampler);
        options.spacing = self.spacing.unwrap_or(options.spacing);
        options.steps = self.steps.unwrap_or(options.steps);
        options.eta = self.eta.unwrap_or(options.eta);
        options.batch_size = self.batch_size.unwrap_or(options.batch_size);
        options.guidance = self.guidance.unwrap_or(options.guidance);
        options.guidance_rescale = self.guidance_rescale.unwrap_or(options.guidance_rescale);
        if let Some(interval) = &self.guidance_interval {
            options.guidance_interval = Some([interval[0], interval[1]]);
        }
        if self.cfg_plus_plus {
            options.guidance_kind = GuidanceKind::CfgPlusPlus;
        }
    }

    /// Refuses options that would change nothing.
    fn check_used(&self, options: &SamplingConfig, classes: usize) -> Result<(), UsageError> {
        let refuse = |text: String| Err(UsageError(text));
        let sampler = options.sampler;
        if self.eta.is_some() && sampler != SamplerKind::Ddim {
            return refuse(format!(
                "--eta is an option of ddim, which --sampler {sampler} does not use: leave it out, or take --sampler ddim"
            ));
        }
        let has_guide = self.weaker.is_some() || classes > 0;
        let flags = [
            ("--guidance", self.guidance.is_some()),
            ("--cfg-plus-plus", self.cfg_plus_plus),
            ("--guidance-interval", self.guidance_interval.is_some()),
            ("--guidance-rescale", self.guidance_rescale.is_some()),
        ];
        if let Some((flag, _)) = flags.iter().find(|(_, is_given)| *is_given && !has_guide) {
            return refuse(format!(
                "{flag} changes nothing: this model was trained without classes; leave it out, or guide by --weaker or --classifier"
            ));
        }
        let needs_scale = [
            ("--guidance-interval", self.guidance_interval.is_some()),
            ("--guidance-rescale", self.guidance_rescale.is_some()),
            ("--weaker", self.weaker.is_some()),
        ];
        let is_without = options.guidance == 1.0 && self.guidance.is_none();
        if let Some((flag, _)) = needs_scale.iter().find(|(_, is_given)| *is_given && is_without) {
            return refuse(format!("{flag} changes nothing without guidance: give its scale, as in --guidance 2"));
        }
        Ok(())
    }

    /// The images `indices` of all.
    fn request(&self, class: Option<usize>, classes: usize, indices: Range<usize>) -> Request {
        let labels = match class {
            Some(class) => Some(vec![class; self.count]),
            None => Request::even(self.count, classes).labels,
        };
        Request {
            noise_indices: indices.clone().map(|index| index as u64).collect(),
            labels: labels.map(|labels| labels[indices].to_vec()),
        }
    }
}

/// Draws images, guided by the classifier or the weaker model if there is one.
fn draw(
    model: &Model,
    weaker: Option<&Model>,
    classifier: Option<&NoisedClassifier>,
    request: &Request,
    seed: u64,
    observe: &mut Observer,
) -> Result<Tensor<4>, GenerateError> {
    let towards = classifier.map(|classifier| {
        |labels: Tensor<1, Int>| -> Box<dyn Classifier + '_> { Box::new(classifier.towards(labels)) }
    });
    let guide = match (&towards, weaker) {
        (Some(towards), _) => Guide::Classifier(towards),
        (None, Some(weaker)) => Guide::Weaker(weaker),
        (None, None) => Guide::Itself,
    };
    generate_guided(model, guide, request, &Noise::new(seed), observe)
}

/// Checks that a classifier was trained on the noise levels and the format of images of a model.
fn check_guide(classifier: &NoisedClassifier, model: &Model) -> anyhow::Result<()> {
    let alike = |format: ImageFormat| ImageFormat { preview_channels: None, ..format };
    if alike(classifier.image()) != alike(model.header.image) || *classifier.schedule() != model.header.schedule {
        bail!(
            "the classifier was trained for images of another size or another schedule than the model's: train one for this \
             model with diffuse classifier"
        );
    }
    Ok(())
}

/// Images with 16 bits from a batch in [-1, 1].
fn deep_pictures(images: Tensor<4>, format: ImageFormat) -> anyhow::Result<Vec<DeepPixels>> {
    let values: Vec<f32> = images.into_data().iter::<f32>().collect();
    Ok(DeepPixels::from_nchw(format.content_height, format.content_width, format.channels, &values)?)
}

/// The images that were drawn, and the folder that they go to.
struct Drawing<'a> {
    folder: &'a Path,
    format: ImageFormat,
    /// Numbers of the images.
    indices: Range<usize>,
    labels: Option<Vec<usize>>,
    classes: &'a Classes<'a>,
    /// Whether the rows of the grid are labeled.
    row_labels: bool,
    /// Columns of the grid.
    columns: usize,
    pictures: Vec<Pixels>,
    /// The pictures with 16 bits, for a model of such images; grids and animations have 8.
    deep: Option<Vec<DeepPixels>>,
    /// All pictures along the chain, the noisiest first.
    frames: Vec<Vec<Pixels>>,
}

impl Drawing<'_> {
    /// Writes one kind of output, and adds its files to `files`.
    fn save(&self, output: Output, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
        let mut path = |name: &str| {
            files.push(self.folder.join(name));
            self.folder.join(name)
        };
        let grid = |pictures: &[Pixels]| sample_grid(pictures, self.columns);
        match output {
            Output::Grid => save_png(&self.grid()?, path("grid.png"))?,
            Output::Png => {
                for (position, index) in self.indices.clone().enumerate() {
                    let file = path(&self.file_name(position, index));
                    match &self.deep {
                        Some(deep) => save_png_sixteen_bits(&deep[position], file)?,
                        None => save_png(&self.pictures[position], file)?,
                    }
                }
            }
            Output::Npz => self.save_npz(&path("samples.npz"))?,
            Output::Gif => {
                let grids = self.frames.iter().map(|frame| grid(frame)).collect::<Result<Vec<_>, _>>()?;
                save_gif(&grids, path("denoising.gif"), 12, 150)?;
            }
            Output::Strip => {
                let scale = self.pictures.first().map_or(1, Pixels::display_scale);
                let row: Vec<Pixels> = self.frames.iter().filter_map(|frame| frame.first().cloned()).collect();
                save_png(&strip(&row, 2, scale)?, path("strip.png"))?;
            }
        }
        Ok(())
    }

    /// The pictures in colors.
    fn shown(&self) -> Result<Cow<'_, [Pixels]>, PictureError> {
        let Some(channels) = self.format.preview_channels else { return Ok(Cow::Borrowed(&self.pictures)) };
        self.pictures.iter().map(|picture| picture.shown(channels)).collect::<Result<Vec<_>, _>>().map(Cow::Owned)
    }

    /// The grid, with the class of each row if that was asked for.
    fn grid(&self) -> anyhow::Result<Pixels> {
        let shown = self.shown()?;
        let Some(labels) = self.labels.as_ref().filter(|_| self.row_labels) else {
            return Ok(sample_grid(&shown, self.columns)?);
        };
        // rows are of one class each, but for the last of a count that the classes do not divide
        let name = |row: &[usize]| {
            let (first, last) = (row.first().copied().unwrap_or(0), row.last().copied().unwrap_or(0));
            if first == last { self.classes.name(first) } else { format!("{} …", self.classes.name(first)) }
        };
        let names: Vec<String> = labels.chunks(self.columns.max(1)).map(name).collect();
        let scale = shown.first().map_or(1, Pixels::display_scale);
        Ok(labeled_grid(&shown, self.columns, 2, scale, &names)?)
    }

    /// The name of the file of one image: its number, and its class where it has a name.
    fn file_name(&self, position: usize, index: usize) -> String {
        let label = self.labels.as_ref().and_then(|labels| labels.get(position));
        match label.and_then(|label| self.classes.in_file_name(*label)) {
            Some(class) => format!("{index:05}-{class}.png"),
            None => format!("{index:05}.png"),
        }
    }

    fn save_npz(&self, file: &Path) -> anyhow::Result<()> {
        let ImageFormat { content_height, content_width, channels, .. } = self.format;
        let shape = [self.pictures.len(), content_height, content_width, channels].map(|side| side as u64);
        let labels = self.labels.as_deref();
        match &self.deep {
            Some(deep) => write_npz(file, shape, deep.iter().flat_map(DeepPixels::data).copied(), labels),
            None => write_npz(file, shape, self.pictures.iter().flat_map(Pixels::data).copied(), labels),
        }
    }
}

/// Writes the arrays that Python evaluators read: `arr_0` u8 (or u16) `[N, H, W, C]`, and `arr_1` i64 `[N]` if there are labels.
fn write_npz<V: npyz::AutoSerialize>(
    path: &Path,
    shape: [u64; 4],
    values: impl Iterator<Item = V>,
    labels: Option<&[usize]>,
) -> anyhow::Result<()> {
    use npyz::WriterBuilder;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    // the bytes do not depend on the time
    let options = zip::write::SimpleFileOptions::default().last_modified_time(zip::DateTime::default());
    let is_large = shape.iter().product::<u64>() * size_of::<V>() as u64 > u64::from(u32::MAX) / 2;
    archive.start_file("arr_0.npy", options.large_file(is_large))?;
    let mut images = npyz::WriteOptions::new().default_dtype().shape(&shape).writer(&mut archive).begin_nd()?;
    images.extend(values)?;
    images.finish()?;
    if let Some(labels) = labels {
        archive.start_file("arr_1.npy", options)?;
        let mut writer =
            npyz::WriteOptions::new().default_dtype().shape(&shape[..1]).writer(&mut archive).begin_nd()?;
        writer.extend(labels.iter().map(|label| *label as i64))?;
        writer.finish()?;
    }
    Ok(files::write_atomically(path, archive.finish()?.get_ref())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_read() {
        assert_eq!(shard("3/16"), Ok((3, 16)));
        for text in ["0/4", "5/4", "3", "3/", "a/b", "-1/2", ""] {
            assert!(shard(text).is_err(), "{text}");
        }
    }
}
