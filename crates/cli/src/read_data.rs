//! Opening a dataset with its progress and its use of the cache on the terminal.

use std::{
    cell::{Cell, RefCell},
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::Args;
use data::{Cache, Cached, DataError, LoadOptions, Loaded, Places, Progress, ReadContext, Stage, open_with};
use indicatif::{ProgressBar, ProgressStyle};

/// The columns of images and labels in files that have several.
#[derive(Args, Clone, Default)]
pub struct ColumnArguments {
    /// Which column of a Parquet file, or array of an .npz, has the images; found automatically if not given
    #[arg(long, value_name = "NAME")]
    pub image_column: Option<String>,
    /// Which column of a Parquet file or a table of metadata, or array of an .npz, has the labels; found automatically if not given
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// The values of the data that become black and white, as in 0,4095; the range of its type, or a usual one, if not given
    #[arg(long, value_name = "LOW,HIGH", allow_hyphen_values = true, value_parser = range)]
    pub range: Option<[f64; 2]>,
}

/// Two numbers with a comma between them.
fn range(text: &str) -> Result<[f64; 2], String> {
    let number = |part: &str| part.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    match text.split_once(',').map(|(low, high)| (number(low), number(high))) {
        Some((Some(low), Some(high))) if low < high => Ok([low, high]),
        _ => Err("expected the lowest value, a comma, and a higher one, as in 0,4095".to_owned()),
    }
}

/// Progress is shown after this time, ...
const PATIENCE: Duration = Duration::from_secs(2);
/// ... and, without a terminal, as a line each time that this has passed.
const INTERVAL: Duration = Duration::from_secs(10);

/// As [`data::open`], with its progress on the terminal.
pub fn open_data(path: &str, options: &LoadOptions) -> Result<Loaded, DataError> {
    let cache = Cache::from_environment();
    let folder = cache.as_ref().map(|cache| cache.folder.display().to_string()).unwrap_or_default();
    let (start, last_line) = (Instant::now(), Cell::new(None::<Instant>));
    let is_terminal = std::io::stderr().is_terminal();
    let bar = RefCell::new(None::<ProgressBar>);
    let report = |Progress { stage, done, total }: Progress| {
        if start.elapsed() < PATIENCE {
            return;
        }
        let message = match stage {
            Stage::Looking => "looking at the data",
            Stage::Decoding => "decoding images",
        };
        if is_terminal {
            let mut bar = bar.borrow_mut();
            let bar = bar.get_or_insert_with(|| {
                let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} {eta} left");
                ProgressBar::new(total as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            });
            bar.set_length(total as u64);
            bar.set_position(done as u64);
            bar.set_message(message);
        } else if last_line.get().is_none_or(|last| last.elapsed() >= INTERVAL) {
            last_line.set(Some(Instant::now()));
            eprintln!("{message}: {done} of {total}");
        }
    };
    let loaded = open_with(&Places::from_environment(), path, options, &ReadContext { cache, progress: Some(&report) });
    if let Some(bar) = bar.into_inner() {
        bar.finish_and_clear();
    }
    let loaded = loaded?;
    match &loaded.cached {
        Cached::Unused => {}
        Cached::Read => eprintln!("cached      decoded images are taken from {folder}"),
        Cached::Written => eprintln!("cached      decoded images are kept in {folder} (diffuse data cache)"),
        Cached::Failed(reason) => {
            eprintln!("warning: the decoded images could not be kept in {folder} and lie in memory: {reason}");
        }
    }
    Ok(loaded)
}
