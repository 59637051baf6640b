//! One picture: its header and its values, with limits against decompression bombs.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Seek};
use std::path::PathBuf;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::animation;
use crate::disk;
use crate::formats::{FIRST_BYTES, name_by_bytes};
use crate::levels::{Levels, check_depth, stretched};
use crate::numbers::NumberType;
use crate::range::{Extremes, Range};
use crate::tiff;
use crate::transform::{Raster, Value};

/// Pixels of a side of a source image at most, ...
pub(crate) const LARGEST_SOURCE_SIDE: u32 = 65_535;
/// ... bytes of a decoded image, ...
pub(crate) const LARGEST_DECODED: u64 = 512 << 20;
/// ... and bytes of a file.
pub(crate) const LARGEST_FILE: u64 = 1 << 30;

/// The reason why a picture cannot be read.
pub(crate) type Reason = Box<dyn Error + Send + Sync>;

/// The format of a picture before it is decoded; height and width are those after its EXIF orientation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub height: usize,
    pub width: usize,
    /// 1 (gray), 3 (RGB), 4 (RGBA), or the number of bands.
    pub channels: usize,
    /// Whether a value has more than a byte.
    pub sixteen_bits: bool,
}

/// What the first bytes of a picture say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub header: Header,
    /// Of a TIFF file.
    pub tiff: Option<tiff::Layout>,
    /// Frames of an animation, the first of which is read; 1 of other pictures.
    pub frames: usize,
}

impl From<Header> for Look {
    /// A picture without anything else to say.
    fn from(header: Header) -> Self {
        Self { header, tiff: None, frames: 1 }
    }
}

impl Look {
    /// Whether the channels have no colors.
    pub fn is_bands(&self) -> bool {
        match self.tiff.filter(|layout| layout.header().is_some()) {
            Some(layout) => layout.is_bands(),
            None => !matches!(self.header.channels, 1 | 3 | 4),
        }
    }

    /// The channels, as in `3 channels (RGB)`.
    pub fn in_words(&self) -> String {
        match self.header.channels {
            bands if self.is_bands() => format!("{bands} bands"),
            1 => "1 channel (gray)".into(),
            3 => "3 channels (RGB)".into(),
            _ => "4 channels (RGBA)".into(),
        }
    }
}

/// A picture of a source.
#[derive(Debug)]
pub(crate) enum Encoded {
    /// A file of its own, in any image format.
    File(PathBuf),
    /// The bytes of such a file.
    Bytes(Vec<u8>),
    /// A page of a TIFF file.
    Page(tiff::Page),
    /// Values of any type.
    Bare(Bare),
    /// A picture that the source cannot read, and the reason.
    Broken(String),
}

/// A picture that is not encoded.
#[derive(Debug)]
pub(crate) struct Bare {
    pub header: Header,
    /// Whether the values are `[channels, height, width]` instead of `[height, width, channels]`.
    pub planar: bool,
    /// The type of the values.
    pub numbers: NumberType,
    /// The range from black to white; that of the type, which then has one, where it is `None`.
    pub range: Option<Range>,
    pub bytes: Vec<u8>,
}

impl Encoded {
    /// Bytes that it takes in memory.
    pub fn held(&self) -> usize {
        match self {
            Self::File(_) | Self::Page(_) | Self::Broken(_) => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Bare(bare) => bare.bytes.len(),
        }
    }

    /// What the first bytes say.
    pub fn look(&self) -> Result<Look, Reason> {
        match self {
            Self::File(path) => {
                let file = File::open(path)?;
                check_length(file.metadata()?.len())?;
                look_at(BufReader::new(file), ImageFormat::from_path(path).ok())
                    .map_err(|reason| named(&disk::first_bytes(path, FIRST_BYTES), reason))
            }
            Self::Bytes(bytes) => {
                check_length(bytes.len() as u64)?;
                let first = &bytes[..bytes.len().min(FIRST_BYTES)];
                look_at(Cursor::new(bytes), None).map_err(|reason| named(first, reason))
            }
            Self::Page(page) => {
                let mut look = look_at(page.reader(), Some(ImageFormat::Tiff))?;
                // those that follow are pictures of their own
                if let Some(layout) = &mut look.tiff {
                    (layout.more_pages, layout.copies) = (0, 0);
                }
                Ok(look)
            }
            Self::Bare(bare) => Ok(bare.header.into()),
            Self::Broken(reason) => Err(reason.as_str().into()),
        }
    }

    /// The picture (of a GIF its first frame, of a TIFF its first page), turned by its EXIF orientation, with its colors stretched
    /// from `given` (in values of the source) to black and white, and the extremes of its values. Numbers of a TIFF file that have
    /// no range of their own are read in `found`, unless `given` is set.
    pub fn decode_in<V: Value>(
        &self,
        given: Option<Range>,
        found: Option<Range>,
    ) -> Result<(Raster<V>, Levels), Reason> {
        match self {
            Self::File(path) => decode(&std::fs::read(path)?, ImageFormat::from_path(path).ok(), given, found),
            Self::Bytes(bytes) => decode(bytes, None, given, found),
            Self::Page(page) => match decode_tiff(|| page.reader(), given, found)? {
                Some(picture) => Ok(picture),
                None => decode_image(ImageReader::with_format(page.reader(), ImageFormat::Tiff), given),
            },
            Self::Bare(bare) => bare.raster(given),
            Self::Broken(reason) => Err(reason.as_str().into()),
        }
    }

    /// The extremes of the numbers of a TIFF file whose numbers have no range of their own.
    pub fn extremes(&self) -> Option<Extremes> {
        match self {
            Self::File(path) => extremes(|| File::open(path).map(BufReader::new)),
            Self::Bytes(bytes) => extremes(|| Ok(Cursor::new(bytes))),
            Self::Page(page) => extremes(|| Ok(page.reader())),
            Self::Bare(_) | Self::Broken(_) => None,
        }
    }
}

impl Bare {
    fn raster<V: Value>(&self, given: Option<Range>) -> Result<(Raster<V>, Levels), Reason> {
        let Header { height, width, channels, .. } = self.header;
        let own = self.numbers.range();
        let range = given.or(self.range).or(own).ok_or("has numbers whose range is not known; set `data.range`")?;
        if let (Some(given), Some(own)) = (given, own) {
            check_depth(own, given)?;
        }
        let (mut values, levels) = if self.numbers == NumberType::UINT8 {
            let table: Vec<V> = (0..=255).map(|byte: u8| range.value(byte.into())).collect();
            let levels = Levels::of_values(range, &self.bytes, 1, 1);
            (self.bytes.iter().map(|&byte| table[usize::from(byte)]).collect(), levels)
        } else {
            self.values(range)?
        };
        if self.planar {
            let plane = height * width;
            let places = (0..plane).flat_map(|at| (0..channels).map(move |channel| channel * plane + at));
            values = places.map(|at| values[at]).collect();
        }
        Ok((Raster::new(values, height, width, channels)?, levels))
    }

    /// The values in the order of the source, and their extremes.
    fn values<V: Value>(&self, range: Range) -> Result<(Vec<V>, Levels), Reason> {
        let mut values = Vec::with_capacity(self.bytes.len() / self.numbers.bytes());
        let mut bad = None;
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        self.numbers.each(&self.bytes, |number| {
            if !number.is_finite() {
                bad = bad.or(Some((values.len(), number)));
            }
            (least, greatest) = (least.min(number), greatest.max(number));
            values.push(range.value(number));
        });
        if let Some((at, number)) = bad {
            let Header { height, width, channels, .. } = self.header;
            let (pixel, channel) = if self.planar {
                (at % (height * width), at / (height * width))
            } else {
                (at / channels, at % channels)
            };
            let (row, column) = (pixel / width, pixel % width);
            return Err(format!("its value at row {row}, column {column}, channel {channel} is {number}").into());
        }
        let found = Extremes { least, greatest, count: values.len() as u64 };
        Ok((values, Levels::from((range, found))))
    }
}

/// Values of 16 bits out of their bytes, least significant byte first.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u16> + '_ {
    bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
}

fn check_length(length: u64) -> Result<(), Reason> {
    match length {
        0 => Err("is empty".into()),
        1..=LARGEST_FILE => Ok(()),
        _ => Err(format!("has {length} bytes, more than the limit of {LARGEST_FILE} for an image").into()),
    }
}

/// The reason why a picture cannot be read: that it is of another format, where its first bytes tell it.
fn named(first: &[u8], reason: Reason) -> Reason {
    name_by_bytes(first).map_or(reason, Reason::from)
}

fn look_at(mut input: impl BufRead + Seek, format: Option<ImageFormat>) -> Result<Look, Reason> {
    let tiff = if tiff::is_tiff(input.fill_buf()?) { Some(tiff::layout(&mut input)?) } else { None };
    if let Some(header) = tiff.and_then(|layout| layout.header()) {
        return Ok(Look { tiff, ..header.into() });
    }
    input.rewind()?;
    let mut reader = ImageReader::new(&mut input);
    if let Some(format) = format {
        reader.set_format(format);
    }
    let reader = reader.with_guessed_format()?;
    let format = reader.format();
    let header = header_of(reader)?;
    input.rewind()?;
    Ok(Look { header, tiff, frames: animation::frames(input, format) })
}

fn header_of(reader: ImageReader<impl BufRead + Seek>) -> Result<Header, Reason> {
    // its decoder gives alpha to every picture
    let is_gif = reader.format() == Some(ImageFormat::Gif);
    let mut decoder = decoder(reader)?;
    let (width, height) = decoder.dimensions();
    let color = decoder.color_type();
    let (mut height, mut width) = (height as usize, width as usize);
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    if let Ok(Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH) = decoder.orientation() {
        std::mem::swap(&mut height, &mut width);
    }
    let sixteen_bits = color.bytes_per_pixel() > color.channel_count();
    let channels = if is_gif { 3 } else { channels_of(color) };
    Ok(Header { height, width, channels, sixteen_bits })
}

fn channels_of(color: image::ColorType) -> usize {
    if color.has_alpha() {
        4
    } else if color.has_color() {
        3
    } else {
        1
    }
}

fn decode<V: Value>(
    bytes: &[u8],
    format: Option<ImageFormat>,
    given: Option<Range>,
    found: Option<Range>,
) -> Result<(Raster<V>, Levels), Reason> {
    if tiff::is_tiff(bytes)
        && let Some(picture) = decode_tiff(|| Cursor::new(bytes), given, found)?
    {
        return Ok(picture);
    }
    let mut reader = ImageReader::new(Cursor::new(bytes));
    if let Some(format) = format {
        reader.set_format(format);
    }
    if bytes.starts_with(&[0xff, 0xd8]) && !jpeg_ends(bytes) {
        return Err("truncated: this JPEG has no end marker".into());
    }
    decode_image(reader, given)
}

/// A TIFF that crate `image` does not read.
fn decode_tiff<V: Value, R: BufRead + Seek>(
    open: impl Fn() -> R,
    given: Option<Range>,
    found: Option<Range>,
) -> Result<Option<(Raster<V>, Levels)>, Reason> {
    let layout = tiff::layout(open())?;
    if layout.header().is_none() {
        return Ok(None);
    }
    if let (Some(given), Some(own)) = (given, layout.fixed_range()) {
        check_depth(own, given)?;
    }
    let range = given.or(found.filter(|_| layout.needs_range()));
    tiff::decode(open(), &layout, range).map(Some)
}

/// The extremes of the numbers of a TIFF that have no range of their own.
fn extremes<R: BufRead + Seek>(open: impl Fn() -> std::io::Result<R>) -> Option<Extremes> {
    let layout = tiff::layout(open().ok()?).ok().filter(tiff::Layout::needs_range)?;
    tiff::extremes(open().ok()?, &layout).ok()?
}

fn decode_image<V: Value>(
    reader: ImageReader<impl BufRead + Seek>,
    range: Option<Range>,
) -> Result<(Raster<V>, Levels), Reason> {
    let mut decoder = decoder(reader)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    let (height, width) = (image.height() as usize, image.width() as usize);
    let channels = channels_of(image.color());
    let mut levels = Levels::of_image(&image);
    let pixels = match range {
        Some(range) => {
            levels = levels.within(range);
            stretched(image, channels, range)?
        }
        None => V::of_image(image, channels),
    };
    Ok((Raster::new(pixels, height, width, channels)?, levels))
}

/// Opens a decoder, unless the picture decodes to too many bytes.
fn decoder<'a, R: BufRead + Seek + 'a>(reader: ImageReader<R>) -> Result<impl ImageDecoder + 'a, Reason> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SOURCE_SIDE);
    limits.max_image_height = Some(LARGEST_SOURCE_SIDE);
    limits.max_alloc = Some(LARGEST_DECODED);
    let mut reader = reader.with_guessed_format()?;
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|error| match error {
        image::ImageError::Limits(_) => Reason::from(format!(
            "is larger than {LARGEST_SOURCE_SIDE} pixels on a side, or decodes to more than {LARGEST_DECODED} bytes"
        )),
        error => error.into(),
    })?;
    let ((width, height), bytes) = (decoder.dimensions(), decoder.total_bytes());
    if width == 0 || height == 0 {
        return Err(format!("has no pixel: {height}x{width}").into());
    }
    if bytes > LARGEST_DECODED {
        let problem = format!("{height}x{width} decodes to {bytes} bytes, more than the limit of {LARGEST_DECODED}");
        return Err(problem.into());
    }
    Ok(decoder)
}

/// Whether an end marker (ff d9) comes after the first start of scan (ff da): the decoder is lenient and fills the missing
/// part with gray. The segments before the scan are skipped, since a thumbnail in them has its own end marker; in a scan, ff
/// is always followed by 00 or a restart marker.
pub(crate) fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            0xff => at += 1,
            0xda => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    // of another layout: the decoder reports faults
    true
}
