//! `diffuse data`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint::ImageFormat;
use clap::Subcommand;
use data::{Cache, ImageSet, LoadOptions};
use picture::{Pixels, save_png};
use pipeline::{grid_columns, sample_grid};

use crate::{
    print_result,
    read_data::{ColumnArguments, open_data},
};

#[derive(Subcommand)]
pub enum DataCommand {
    /// Download and check a known dataset, or take its files from a folder
    Fetch {
        /// mnist, fashion-mnist or cifar10
        name: String,
        /// Take the files from here instead
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
    },
    /// Summarize a dataset, and draw a preview
    Inspect {
        /// A file, a folder, or a known name
        #[arg(value_name = "PATH|NAME")]
        path: String,
        /// The file of the preview
        #[arg(long, value_name = "FILE", default_value = "preview.png")]
        preview: PathBuf,
        /// The channels that the preview shows as red, green and blue, counted from 0, as in 3,2,1; the first three if not given
        #[arg(long, value_name = "R,G,B", value_parser = three_channels)]
        preview_channels: Option<[usize; 3]>,
        /// Leave out images that cannot be read
        #[arg(long)]
        skip_unreadable: bool,
        /// Resize and crop to this side, for images of different sizes
        #[arg(long, value_name = "N")]
        image_size: Option<usize>,
        /// Keep images of 16 bits as such
        #[arg(long)]
        sixteen_bits: bool,
        #[command(flatten)]
        columns: ColumnArguments,
        /// One JSON object on standard output
        #[arg(long)]
        json: bool,
    },
    /// List the files of decoded images, or remove them
    Cache {
        /// Remove them; they are written again when they are needed
        #[arg(long)]
        clear: bool,
    },
}

/// Images in a preview.
const PREVIEW: usize = 64;

pub fn run(command: DataCommand) -> anyhow::Result<()> {
    match command {
        DataCommand::Fetch { name, from } => {
            let path = data::fetch(&name, from.as_deref(), None, &mut |line| eprintln!("{line}"))?;
            print_result(path.display())
        }
        DataCommand::Inspect {
            path,
            preview,
            preview_channels,
            skip_unreadable,
            image_size,
            sixteen_bits,
            columns,
            json,
        } => {
            let options = LoadOptions {
                skip_unreadable,
                size: image_size.map(|side| (side, side)),
                sixteen_bits,
                image_column: columns.image_column,
                label_column: columns.label_column,
                range: columns.range,
                ..LoadOptions::default()
            };
            let loaded = open_data(&path, &options)?;
            for (path, reason) in &loaded.skipped {
                eprintln!("warning: left out {}: {reason}", path.display());
            }
            draw_preview(&loaded.images, preview_channels, &preview)?;
            let inspection = data::inspect(&loaded.images);
            if json {
                let mut value = serde_json::to_value(&inspection)?;
                value["skipped"] = loaded.skipped.len().into();
                value["account"] = serde_json::to_value(&loaded.account)?;
                value["preview"] = preview.display().to_string().into();
                return print_result(value);
            }
            print_result(format_args!("name       {}", inspection.name))?;
            print_result(format_args!("source     {}", loaded.source))?;
            print_result(format_args!("count      {}", inspection.count))?;
            print_result(format_args!("size       {}x{}", inspection.height, inspection.width))?;
            print_result(format_args!("channels   {}", inspection.channels))?;
            print_result(format_args!("bits       {}", inspection.bits))?;
            for (class, count) in &inspection.classes {
                print_result(format_args!("class      {class}: {count}"))?;
            }
            for line in loaded.account.lines() {
                print_result(format_args!("account    {line}"))?;
            }
            print_result(format_args!("mean       {:.6?}", inspection.mean))?;
            print_result(format_args!("deviation  {:.6?}", inspection.deviation))?;
            print_result(format_args!("preview    {}", preview.display()))
        }
        DataCommand::Cache { clear } => {
            let cache = Cache::from_environment().context("no cache folder: set XDG_CACHE_HOME or HOME")?;
            if clear {
                let bytes = cache.clear()?;
                return print_result(format_args!(
                    "freed      {:.1} MB of {}",
                    bytes as f64 / 1e6,
                    cache.folder.display()
                ));
            }
            let entries = cache.entries()?;
            for entry in &entries {
                print_result(format_args!("{:>10.1} MB  {}", entry.bytes as f64 / 1e6, entry.path.display()))?;
            }
            let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
            print_result(format_args!(
                "{:>10.1} MB  in {} files of {}",
                bytes as f64 / 1e6,
                entries.len(),
                cache.folder.display()
            ))
        }
    }
}

/// Parses three channels.
fn three_channels(text: &str) -> Result<[usize; 3], String> {
    let channels: Result<Vec<usize>, _> = text.split(',').map(|channel| channel.trim().parse()).collect();
    let channels = channels.ok().and_then(|channels| channels.try_into().ok());
    channels.ok_or_else(|| "write three numbers, as in 3,2,1".to_owned())
}

fn draw_preview(images: &ImageSet, channels: Option<[usize; 3]>, path: &Path) -> anyhow::Result<()> {
    let channels = channels.or((!images.has_colors()).then(|| ImageFormat::first_channels(images.channels())));
    let stride = images.len().div_ceil(PREVIEW).max(1);
    let pictures = (0..images.len())
        .step_by(stride)
        .map(|index| {
            let bytes = images.bytes(index).into_owned();
            let picture = Pixels::new(images.height(), images.width(), images.channels(), bytes)?;
            channels.map_or(Ok(picture.clone()), |channels| picture.shown(channels))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let preview = sample_grid(&pictures, grid_columns(pictures.len(), 0))?;
    save_png(&preview, path).context("the preview cannot be drawn; see --preview")
}
