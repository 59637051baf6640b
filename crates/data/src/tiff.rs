//! TIFF files: any number of bands, integers and floating-point numbers. Pages after the first are counted.
//!
//! Gray, RGB, RGBA and CMYK of 8 and 16 bits are read by crate `image`; what it lacks is read here, on its decoder
//! (<https://docs.rs/tiff>). The format: TIFF 6.0, Adobe, 1992.

use std::collections::BTreeSet;
use std::io::{BufRead, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::sync::Arc;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{IfdPointer, Tag};
use tiff::{TiffError, TiffUnsupportedError};

use crate::decode::{Header, LARGEST_DECODED, LARGEST_SOURCE_SIDE, Reason};
use crate::guard::guarded;
use crate::levels::Levels;
use crate::range::{Extremes, Range};
use crate::transform::{MOST_CHANNELS, Raster, Value};

/// Pages that are counted at most.
const MOST_PAGES: usize = 65_536;

/// Whether a file that starts with these bytes is a TIFF.
pub(crate) fn is_tiff(start: &[u8]) -> bool {
    [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| start.starts_with(*magic))
}

/// The first page of a file, and the number of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Rows and columns as stored.
    height: usize,
    width: usize,
    bands: usize,
    bits: u8,
    numbers: Numbers,
    colors: Colors,
    /// The tag of that name, 1 to 8.
    orientation: u16,
    /// The pages after the first, ...
    pub more_pages: usize,
    /// ... and the smaller copies and masks of pages.
    pub copies: usize,
}

/// The type of the values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbers {
    Unsigned,
    Signed,
    Float,
}

/// The meaning of the bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colors {
    /// Of a picture that crate `image` reads.
    OfImage,
    /// CMYK, which crate `image` reads, with further bands, which it drops.
    CmykAndMore,
    Gray,
    GrayAlpha,
    Rgb,
    Rgba,
    /// Bands without colors; those of RGB with a fourth band that the file does not describe are `is_rgb`.
    Bands {
        is_rgb: bool,
    },
    Palette,
    YCbCr,
}

impl Layout {
    /// The header of a picture that is read here; `None` where crate `image` reads it.
    pub fn header(&self) -> Option<Header> {
        let channels = match self.colors {
            Colors::OfImage | Colors::CmykAndMore => return None,
            Colors::Gray => 1,
            Colors::Rgb | Colors::Palette | Colors::YCbCr => 3,
            Colors::GrayAlpha | Colors::Rgba => 4,
            Colors::Bands { .. } => self.bands,
        };
        let (mut height, mut width) = (self.height, self.width);
        if self.orientation > 4 {
            std::mem::swap(&mut height, &mut width);
        }
        Some(Header { height, width, channels, sixteen_bits: self.bits > 8 })
    }

    /// Whether the channels have no colors.
    pub fn is_bands(&self) -> bool {
        matches!(self.colors, Colors::Bands { .. })
    }

    /// Whether the fourth of four bands is neither described as alpha nor as anything else.
    pub fn has_unspecified_fourth(&self) -> bool {
        self.bands == 4 && self.is_bands()
    }

    /// Bands of CMYK that are not read.
    pub fn dropped_bands(&self) -> usize {
        if self.colors == Colors::CmykAndMore { self.bands - 4 } else { 0 }
    }

    /// Whether black and white must be told or found.
    pub fn needs_range(&self) -> bool {
        self.header().is_some() && self.fixed_range().is_none()
    }

    pub fn is_integer(&self) -> bool {
        self.numbers != Numbers::Float
    }

    /// The type of the values, as in `float32`.
    pub fn type_name(&self) -> String {
        let kind = match self.numbers {
            Numbers::Unsigned => "uint",
            Numbers::Signed => "int",
            Numbers::Float => "float",
        };
        format!("{kind}{}", self.bits)
    }

    /// The range of unsigned integers of at most 16 bits.
    pub fn fixed_range(&self) -> Option<Range> {
        let high = f64::from((1u32 << self.bits.min(16)) - 1);
        (self.numbers == Numbers::Unsigned && self.bits <= 16).then_some(Range { low: 0.0, high })
    }

    /// Bytes of the values when they are decoded.
    fn bytes(&self) -> u64 {
        let values = (self.height as u64).saturating_mul(self.width as u64).saturating_mul(self.bands as u64);
        values.saturating_mul(u64::from(self.bits.div_ceil(8)))
    }
}

/// Reads the tags of the first page, and counts the others.
///
/// # Errors
/// What this build does not read, in words.
pub(crate) fn layout(reader: impl Read + Seek) -> Result<Layout, Reason> {
    guarded(|| layout_of(reader)).unwrap_or_else(|_| Err("is a broken TIFF".into()))
}

fn layout_of(reader: impl Read + Seek) -> Result<Layout, Reason> {
    let mut decoder = Decoder::new(reader).map_err(in_words)?;
    let (width, height) = decoder.dimensions().map_err(in_words)?;
    if width.max(height) > LARGEST_SOURCE_SIDE {
        return Err(format!("{height}x{width} has a side above the limit of {LARGEST_SOURCE_SIDE}").into());
    }
    let number = |decoder: &mut Decoder<_>, tag, otherwise: u16| -> Result<u16, Reason> {
        let numbers = decoder.find_tag_unsigned_vec::<u16>(tag).map_err(in_words)?;
        Ok(numbers.and_then(|numbers| numbers.first().copied()).unwrap_or(otherwise))
    };
    check_compression(number(&mut decoder, Tag::Compression, 1)?)?;
    let bands = usize::from(number(&mut decoder, Tag::SamplesPerPixel, 1)?);
    if bands > MOST_CHANNELS {
        return Err(format!("has {bands} bands, more than the limit of {MOST_CHANNELS}").into());
    }
    let bits = number(&mut decoder, Tag::BitsPerSample, 1)?;
    let numbers = match number(&mut decoder, Tag::SampleFormat, 1)? {
        1 => Numbers::Unsigned,
        2 => Numbers::Signed,
        3 => Numbers::Float,
        other => return Err(format!("has values of the sample format {other}; 1 to 3 are read").into()),
    };
    let is_read = match numbers {
        Numbers::Unsigned => matches!(bits, 1 | 2 | 4 | 8 | 16 | 32 | 64),
        Numbers::Signed => matches!(bits, 8 | 16 | 32 | 64),
        Numbers::Float => matches!(bits, 16 | 32 | 64),
    };
    if !is_read {
        return Err(format!("has values of {bits} bits; write it with 8 or 16").into());
    }
    let extra = decoder.find_tag_unsigned_vec::<u16>(Tag::ExtraSamples).map_err(in_words)?.unwrap_or_default();
    let orientation = number(&mut decoder, Tag::Orientation, 1)?;
    let mut layout = Layout {
        height: height as usize,
        width: width as usize,
        bands,
        bits: bits as u8,
        numbers,
        colors: Colors::Gray,
        orientation: if (1..=8).contains(&orientation) { orientation } else { 1 },
        more_pages: 0,
        copies: 0,
    };
    let is_planar = number(&mut decoder, Tag::PlanarConfiguration, 1)? == 2;
    layout.colors = colors(&layout, number(&mut decoder, Tag::PhotometricInterpretation, 1)?, &extra, is_planar)?;
    if layout.bytes() > LARGEST_DECODED {
        let bytes = layout.bytes();
        let problem = format!("{height}x{width} decodes to {bytes} bytes, more than the limit of {LARGEST_DECODED}");
        return Err(problem.into());
    }
    (layout.more_pages, layout.copies) = count_pages(&mut decoder);
    Ok(layout)
}

/// The meaning of the bands, by the tags PhotometricInterpretation and ExtraSamples.
fn colors(layout: &Layout, photometric: u16, extra: &[u16], is_planar: bool) -> Result<Colors, Reason> {
    let Layout { bands, bits, numbers, .. } = *layout;
    let is_small = numbers == Numbers::Unsigned && matches!(bits, 8 | 16);
    let is_bit = numbers == Numbers::Unsigned && bits == 1;
    // 1: multiplied into the colors, 2: not
    let is_alpha = matches!(extra, [1 | 2]);
    match photometric {
        0 | 1 if bands == 1 && (is_small || is_bit) => Ok(Colors::OfImage),
        0 if bands > 1 || !(is_small || is_bit || numbers == Numbers::Float) => {
            Err("has white as its lowest value; write it with black as the lowest".into())
        }
        0 | 1 if bands == 1 => Ok(Colors::Gray),
        1 if bands == 2 && is_alpha => Ok(Colors::GrayAlpha),
        1 => Ok(Colors::Bands { is_rgb: false }),
        2 if bands == 3 => Ok(if is_small { Colors::OfImage } else { Colors::Rgb }),
        2 if bands == 4 && is_alpha => Ok(if is_small { Colors::OfImage } else { Colors::Rgba }),
        2 if bands > 3 => Ok(Colors::Bands { is_rgb: true }),
        3 if bands == 1 && numbers == Numbers::Unsigned && bits <= 8 => Ok(Colors::Palette),
        5 if is_small && bands == 4 && !is_planar => Ok(Colors::OfImage),
        5 if is_small && bands > 4 && !is_planar => Ok(Colors::CmykAndMore),
        6 if bands == 3 && numbers == Numbers::Unsigned && bits == 8 && !is_planar => Ok(Colors::YCbCr),
        _ => {
            let name = match photometric {
                2 => "RGB",
                3 => "palette",
                4 => "mask",
                5 => "CMYK",
                6 => "YCbCr",
                8..=10 => "CIE L*a*b*",
                _ => "unknown",
            };
            let kind = layout.type_name();
            Err(format!("has colors of a kind that is not read ({name}, {bands} bands of {kind}); write it as RGB")
                .into())
        }
    }
}

/// Refuses compressions that the decoder lacks, by their names.
fn check_compression(number: u16) -> Result<(), Reason> {
    let name = match number {
        // none, CCITT group 4, LZW, JPEG, Deflate, PackBits, Deflate by its old number
        1 | 4 | 5 | 7 | 8 | 32_773 | 32_946 => return Ok(()),
        2 | 3 => "CCITT group 3",
        6 => "JPEG of the old kind",
        34_661 => "JBIG",
        33_003 | 33_004 | 33_005 | 34_712 => "JPEG 2000",
        34_887 => "LERC",
        34_925 => "LZMA",
        50_000 => "Zstandard",
        50_001 => "WebP",
        50_002 | 52_546 => "JPEG XL",
        _ => "of an unknown kind",
    };
    Err(format!("has the compression {number} ({name}), which is not read; write it with LZW or Deflate").into())
}

/// The number of pages after the first, and that of smaller copies and masks among them.
fn count_pages(decoder: &mut Decoder<impl Read + Seek>) -> (usize, usize) {
    let pages = later_pages(decoder);
    let copies = pages.iter().filter(|(_, is_copy)| *is_copy).count();
    (pages.len() - copies, copies)
}

/// The places of the pages after the first, and whether each is a smaller copy or a mask of another.
fn later_pages(decoder: &mut Decoder<impl Read + Seek>) -> Vec<(u64, bool)> {
    let (mut pages, mut places) = (Vec::new(), BTreeSet::new());
    let mut next: Option<IfdPointer> = decoder.image_ifd().directory().next();
    while let Some(pointer) = next
        && pages.len() < MOST_PAGES
        && places.insert(pointer.0)
    {
        // a chain that is broken ends
        let Ok(directory) = decoder.read_directory(pointer) else { break };
        let kind = decoder.read_directory_tags(&directory).find_tag_unsigned::<u32>(Tag::NewSubfileType);
        // bit 0: of less resolution, bit 2: a mask
        let is_copy = kind.ok().flatten().is_some_and(|kind| kind & 0b101 != 0);
        pages.push((pointer.0, is_copy));
        next = directory.next();
    }
    pages
}

/// A page of a file, read as a file whose first page it is.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    file: Arc<Vec<u8>>,
    /// The first bytes, with the place of the page.
    start: Vec<u8>,
}

impl Page {
    /// The pages of a file, without smaller copies and masks, and the number of these.
    ///
    /// # Errors
    /// A broken file, in words.
    pub fn all(file: Vec<u8>) -> Result<(Vec<Self>, usize), Reason> {
        let later = guarded(|| {
            let mut decoder = Decoder::new(Cursor::new(&file)).map_err(in_words)?;
            let first = decoder.ifd_pointer().map_or(0, |pointer| pointer.0);
            Ok::<_, Reason>((first, later_pages(&mut decoder)))
        });
        let (first, later) = later.unwrap_or_else(|_| Err("is a broken TIFF".into()))?;
        let copies = later.iter().filter(|(_, is_copy)| *is_copy).count();
        let places = later.into_iter().filter(|(_, is_copy)| !is_copy).map(|(place, _)| place);
        let file = Arc::new(file);
        let pages = std::iter::once(first).chain(places).map(|place| Self::at(&file, place)).collect();
        Ok((pages, copies))
    }

    fn at(file: &Arc<Vec<u8>>, place: u64) -> Self {
        let (is_little, is_big_tiff) = (file.starts_with(b"II"), matches!(file.get(2..4), Some([43, 0] | [0, 43])));
        let mut start = file[..file.len().min(if is_big_tiff { 16 } else { 8 })].to_vec();
        let width = start.len() / 2;
        let bytes =
            if is_little { place.to_le_bytes()[..width].to_vec() } else { place.to_be_bytes()[8 - width..].to_vec() };
        start[width..].copy_from_slice(&bytes);
        Self { file: file.clone(), start }
    }

    pub fn reader(&self) -> PageReader<'_> {
        PageReader { page: self, at: 0 }
    }
}

/// Reads a [`Page`].
pub(crate) struct PageReader<'a> {
    page: &'a Page,
    at: usize,
}

impl Read for PageReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl BufRead for PageReader<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let Page { file, start } = self.page;
        Ok(start.get(self.at..).filter(|rest| !rest.is_empty()).or(file.get(self.at..)).unwrap_or_default())
    }

    fn consume(&mut self, read: usize) {
        self.at += read;
    }
}

impl Seek for PageReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let mut cursor = Cursor::new(self.page.file.as_slice());
        cursor.set_position(self.at as u64);
        let at = cursor.seek(to)?;
        self.at = usize::try_from(at).unwrap_or(usize::MAX);
        Ok(at)
    }
}

/// Decodes the first page; numbers without a range of their own are read with `range`, or as bytes. With it come the extremes of
/// the numbers, of which a palette has none.
///
/// # Errors
/// A broken file, or a number that is not finite, in words.
pub(crate) fn decode<V: Value>(
    reader: impl Read + Seek,
    layout: &Layout,
    range: Option<Range>,
) -> Result<(Raster<V>, Levels), Reason> {
    let page = Decoded::read(reader, layout)?;
    let is_planar = page.is_planar;
    let (values, levels) = if let Some(palette) = &page.palette {
        (palette_colors(page.numbers, palette)?, Levels::default())
    } else {
        let range = range.or(layout.fixed_range()).unwrap_or(Range::BYTES);
        let (values, found) = page.values(layout, range)?;
        (values, Levels::from((range, found)))
    };
    let values: Vec<V> = if is_planar { interleaved(&values, layout.bands) } else { values };
    let values = match layout.colors {
        Colors::GrayAlpha => values.chunks_exact(2).flat_map(|pair| [pair[0], pair[0], pair[0], pair[1]]).collect(),
        Colors::YCbCr => {
            values.chunks_exact(3).flat_map(|pixel| rgb_of_ycbcr([pixel[0], pixel[1], pixel[2]])).collect()
        }
        _ => values,
    };
    let Header { height, width, channels, .. } = layout.header().ok_or("is read by another decoder")?;
    let values = turned(values, channels, layout);
    let raster = if layout.is_bands() { Raster::of_bands } else { Raster::new };
    Ok((raster(values, height, width, channels)?, levels))
}

/// The least and the greatest number of the first page; `None` where none is finite.
///
/// # Errors
/// A broken file, in words.
pub(crate) fn extremes(reader: impl Read + Seek, layout: &Layout) -> Result<Option<Extremes>, Reason> {
    Ok(Extremes::of(Decoded::read(reader, layout)?.numbers))
}

/// The first page, decoded.
struct Decoded {
    numbers: Box<dyn Iterator<Item = f64>>,
    /// Whether one band comes after the other.
    is_planar: bool,
    /// The colors of a palette, `[3, entries]`.
    palette: Option<Vec<u16>>,
}

impl Decoded {
    fn read(mut reader: impl Read + Seek, layout: &Layout) -> Result<Self, Reason> {
        if !matches!(layout.colors, Colors::Palette | Colors::Bands { is_rgb: true }) {
            return Self::read_guarded(reader, layout);
        }
        let mut patched = Vec::new();
        reader.read_to_end(&mut patched)?;
        set_black_is_zero(&mut patched).ok_or("ends within its tags")?;
        Self::read_guarded(Cursor::new(patched), layout)
    }

    fn read_guarded(reader: impl Read + Seek, layout: &Layout) -> Result<Self, Reason> {
        guarded(|| Self::read_with(reader, layout)).unwrap_or_else(|_| Err("is a broken TIFF".into()))
    }

    fn read_with(reader: impl Read + Seek, layout: &Layout) -> Result<Self, Reason> {
        let mut limits = Limits::default();
        let most = LARGEST_DECODED as usize;
        (limits.decoding_buffer_size, limits.intermediate_buffer_size) = (most, most);
        let mut decoder = Decoder::new(reader).map_err(in_words)?.with_limits(limits);
        let mut result = DecodingResult::U8(Vec::new());
        let read = decoder.read_image_to_buffer(&mut result).map_err(in_words)?;
        if result.as_buffer(0).as_bytes().len() < read.complete_len {
            return Err(in_words(TiffError::LimitsExceeded));
        }
        let palette = match layout.colors {
            Colors::Palette => Some(decoder.get_tag_u16_vec(Tag::ColorMap).map_err(in_words)?),
            _ => None,
        };
        let is_planar = read.planes > 1;
        let numbers = numbers(result, layout, if is_planar { 1 } else { layout.bands });
        // rows of packed bits end with padding
        let numbers = Box::new(numbers.take(layout.height * layout.width * layout.bands));
        Ok(Self { numbers, is_planar, palette })
    }
}

impl Decoded {
    /// The numbers as values, in the order of the file, and their extremes.
    fn values<V: Value>(self, layout: &Layout, range: Range) -> Result<(Vec<V>, Extremes), Reason> {
        let Layout { height, width, bands, .. } = *layout;
        let mut values = Vec::with_capacity(height * width * bands);
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for number in self.numbers {
            if !number.is_finite() {
                let (at, area) = (values.len(), height * width);
                let (pixel, band) = if self.is_planar { (at % area, at / area) } else { (at / bands, at % bands) };
                let (row, column) = (pixel / width, pixel % width);
                return Err(format!("its value at row {row}, column {column}, band {} is {number}", band + 1).into());
            }
            (least, greatest) = (least.min(number), greatest.max(number));
            values.push(range.value(number));
        }
        let count = values.len() as u64;
        Ok((values, Extremes { least, greatest, count }))
    }
}

/// The numbers of any type; a row has this number of bands.
fn numbers(result: DecodingResult, layout: &Layout, bands: usize) -> Box<dyn Iterator<Item = f64>> {
    match result {
        DecodingResult::U8(values) if layout.bits < 8 => Box::new(unpacked(values, layout, bands)),
        DecodingResult::U8(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::U16(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::U32(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::U64(values) => Box::new(values.into_iter().map(|value| value as f64)),
        DecodingResult::I8(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::I16(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::I32(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::I64(values) => Box::new(values.into_iter().map(|value| value as f64)),
        DecodingResult::F16(values) => Box::new(values.into_iter().map(|value| value.to_f64())),
        DecodingResult::F32(values) => Box::new(values.into_iter().map(f64::from)),
        DecodingResult::F64(values) => Box::new(values.into_iter()),
    }
}

/// Values of less than 8 bits out of rows of whole bytes, the highest bits first.
fn unpacked(bytes: Vec<u8>, layout: &Layout, bands: usize) -> impl Iterator<Item = f64> + use<> {
    let (bits, row) = (usize::from(layout.bits), layout.width * bands);
    let (row_bytes, mask) = ((row * bits).div_ceil(8), (1u8 << bits) - 1);
    (0..bytes.len() / row_bytes * row).map(move |at| {
        let (line, bit) = (at / row, at % row * bits);
        f64::from(bytes[line * row_bytes + bit / 8] >> (8 - bits - bit % 8) & mask)
    })
}

/// `[height, width, bands]` out of `[bands, height, width]`.
fn interleaved<V: Value>(planes: &[V], bands: usize) -> Vec<V> {
    let area = planes.len() / bands;
    (0..area).flat_map(|at| (0..bands).map(move |band| planes[band * area + at])).collect()
}

/// Sets the photometric interpretation of the first page to "black is zero", with which the decoder returns every band; with
/// that of RGB it drops those after the third, or takes the fourth for alpha. `None` where the bytes end before.
fn set_black_is_zero(bytes: &mut [u8]) -> Option<()> {
    let is_little = bytes.starts_with(b"II");
    let is_big_tiff = matches!(bytes.get(2..4)?, [43, 0] | [0, 43]);
    let number = |bytes: &[u8], at: usize, width: usize| {
        let field = bytes.get(at..at.checked_add(width)?)?.iter();
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        let sum = if is_little { field.rev().fold(0, add) } else { field.fold(0, add) };
        usize::try_from(sum).ok()
    };
    let (at, count_bytes, entry_bytes, value_at) =
        if is_big_tiff { (number(bytes, 8, 8)?, 8, 20, 12) } else { (number(bytes, 4, 4)?, 2, 12, 8) };
    let mut entry = at.checked_add(count_bytes)?;
    for _ in 0..number(bytes, at, count_bytes)? {
        if number(bytes, entry, 2)? == usize::from(Tag::PhotometricInterpretation.to_u16()) {
            // the type SHORT, and the value
            for (place, value) in [(entry + 2, 3u16), (entry + value_at, 1)] {
                let value = if is_little { value.to_le_bytes() } else { value.to_be_bytes() };
                bytes.get_mut(place..place + 2)?.copy_from_slice(&value);
            }
        }
        entry = entry.checked_add(entry_bytes)?;
    }
    Some(())
}

/// RGB of the entries of a palette, `[3, entries]` of 16 bits or, by some programs, 8.
fn palette_colors<V: Value>(entries: impl Iterator<Item = f64>, palette: &[u16]) -> Result<Vec<V>, Reason> {
    let count = palette.len() / 3;
    let shift = if palette.iter().any(|&value| value > 255) { 8 } else { 0 };
    let mut values = Vec::new();
    for entry in entries {
        for color in 0..3 {
            let value = palette.get(color * count + entry as usize).filter(|_| (entry as usize) < count);
            let value = value.ok_or_else(|| format!("has a pixel {entry}, and a palette of {count} colors"))?;
            values.push(Range::BYTES.value(f64::from(value >> shift)));
        }
    }
    Ok(values)
}

/// ITU-R BT.601 with the full range, as of JPEG.
fn rgb_of_ycbcr<V: Value>(pixel: [V; 3]) -> [V; 3] {
    let [luma, blue, red] = pixel.map(|value| value.into() as f64);
    let most = V::MOST as f64;
    let (blue, red) = (blue - most * 128.0 / 255.0, red - most * 128.0 / 255.0);
    let rgb = [luma + 1.402 * red, luma - 0.344_136 * blue - 0.714_136 * red, luma + 1.772 * blue];
    rgb.map(|value| V::from_number(value.clamp(0.0, most).round() as u64))
}

/// The pixels, `[height, width, channels]`, as the tag Orientation shows them.
fn turned<V: Value>(values: Vec<V>, channels: usize, layout: &Layout) -> Vec<V> {
    let Layout { height, width, orientation, .. } = *layout;
    if orientation == 1 || values.len() != height * width * channels {
        return values;
    }
    let (rows, columns) = if orientation > 4 { (width, height) } else { (height, width) };
    let (bottom, right) = (height - 1, width - 1);
    let source = |row: usize, column: usize| match orientation {
        2 => (row, right - column),
        3 => (bottom - row, right - column),
        4 => (bottom - row, column),
        5 => (column, row),
        6 => (bottom - column, row),
        7 => (bottom - column, right - row),
        _ => (column, right - row),
    };
    let pixels = (0..rows).flat_map(|row| (0..columns).map(move |column| source(row, column)));
    pixels.flat_map(|(row, column)| &values[(row * width + column) * channels..][..channels]).copied().collect()
}

/// The reason of an error, without terms of the decoder's source.
fn in_words(error: TiffError) -> Reason {
    match error {
        TiffError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            "ends early: the file is truncated, get it again".into()
        }
        TiffError::IoError(error) => error.into(),
        TiffError::LimitsExceeded => format!("decodes to more than the limit of {LARGEST_DECODED} bytes").into(),
        TiffError::UnsupportedError(TiffUnsupportedError::InconsistentBitsPerSample(bits)) => {
            let bits = bits.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            format!("has bands of different sizes ({bits} bits); write it with bands of the same").into()
        }
        TiffError::UnsupportedError(TiffUnsupportedError::UnknownInterpretation) => {
            "has no kind of colors (PhotometricInterpretation), or one that is not read; write it as gray or RGB".into()
        }
        TiffError::UnsupportedError(_) => "uses a part of TIFF that is not read; write it as gray or RGB".into(),
        error => format!("is a broken TIFF: {error}").into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::testing::{TiffPage, tiff};

    fn look(page: TiffPage<'_>) -> Result<Layout, Reason> {
        layout(Cursor::new(tiff(&[page])))
    }

    fn decoded(page: TiffPage<'_>, range: Option<Range>) -> Raster {
        let bytes = tiff(&[page]);
        decode(Cursor::new(&bytes), &layout(Cursor::new(&bytes)).unwrap(), range).unwrap().0
    }

    fn little(values: impl IntoIterator<Item = u16>) -> Vec<u8> {
        values.into_iter().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn every_number_of_bands_is_kept() {
        for (bands, photometric, extra) in [
            (2, 1, vec![]),
            (4, 1, vec![0, 0, 0]),
            (4, 2, vec![0]),
            (4, 2, vec![]),
            (5, 2, vec![0, 0]),
            (64, 1, vec![]),
        ] {
            for is_planar in [false, true] {
                let values: Vec<u8> = (0..6 * bands).map(|at| (at * 7 % 256) as u8).collect();
                let page = |bits, values| TiffPage {
                    size: (2, 3),
                    bands,
                    bits,
                    photometric,
                    extra: &extra,
                    is_planar,
                    values,
                    ..TiffPage::default()
                };
                let planar = |at: u16| (at % bands) * 6 + at / bands;
                let stored = |at: u16| values[usize::from(if is_planar { planar(at) } else { at })];
                let expected: Vec<u8> = (0..6 * bands).map(stored).collect();
                let picture = decoded(page(8, values.clone()), None);
                assert_eq!((picture.height(), picture.width(), picture.channels()), (2, 3, bands.into()));
                assert_eq!((picture.pixels(), picture.has_alpha()), (expected.as_slice(), false));
                let deep = page(16, little(values.iter().map(|&value| u16::from(value) * 257)));
                assert_eq!(decoded(deep, None).pixels(), expected);
            }
        }
        let error = look(TiffPage { bands: 65, values: vec![0; 65], ..TiffPage::default() }).unwrap_err().to_string();
        assert_eq!(error, "has 65 bands, more than the limit of 64");
    }

    #[test]
    fn alpha_is_what_the_file_calls_alpha() {
        let gray = TiffPage { bands: 2, extra: &[2], values: vec![9, 100], ..TiffPage::default() };
        let picture = decoded(gray, None);
        assert_eq!((picture.pixels(), picture.has_alpha()), ([9, 9, 9, 100].as_slice(), true));
        let rgba = TiffPage { bands: 4, photometric: 2, extra: &[2], values: vec![1, 2, 3, 4], ..TiffPage::default() };
        assert_eq!(look(rgba).unwrap().header(), None);
        let unspecified =
            TiffPage { bands: 4, photometric: 2, extra: &[0], values: vec![1, 2, 3, 4], ..TiffPage::default() };
        let found = look(unspecified).unwrap();
        assert!(found.has_unspecified_fourth());
    }

    #[test]
    fn numbers_of_all_types_are_read_in_a_range() {
        let range = |low, high| Some(Range { low, high });
        let page = |bits, format, values| TiffPage { size: (1, 2), bits, format, values, ..TiffPage::default() };
        let float: Vec<u8> = [0.0f32, 0.5].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(decoded(page(32, 3, float.clone()), range(0.0, 1.0)).pixels(), [0, 128]);
        let double: Vec<u8> = [-1.0f64, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(decoded(page(64, 3, double), range(-1.0, 1.0)).pixels(), [0, 255]);
        let signed = little([-1024i16 as u16, 1024]);
        assert_eq!(decoded(page(16, 2, signed.clone()), range(-1024.0, 1024.0)).pixels(), [0, 255]);
        assert_eq!(decoded(page(8, 2, vec![0, 127]), range(0.0, 127.0)).pixels(), [0, 255]);
        let long: Vec<u8> = [0u32, 200].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(decoded(page(32, 1, long), range(0.0, 255.0)).pixels(), [0, 200]);
        // a range stretches bands of 8 and 16 bits too
        let deep = TiffPage { bands: 2, bits: 16, values: little([4095, 0]), ..TiffPage::default() };
        assert_eq!(decoded(deep, range(0.0, 4095.0)).pixels(), [255, 0]);

        let bytes = tiff(&[page(16, 2, signed)]);
        let found = layout(Cursor::new(&bytes)).unwrap();
        let ends = extremes(Cursor::new(&bytes), &found).unwrap().unwrap();
        assert_eq!((ends.least, ends.greatest, found.type_name()), (-1024.0, 1024.0, "int16".into()));
        assert!(found.needs_range() && found.is_integer());
        let rgb = [0.0f32, 0.5, 1.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let rgb = TiffPage { bands: 3, bits: 32, format: 3, photometric: 2, values: rgb, ..TiffPage::default() };
        assert_eq!(decoded(rgb, range(0.0, 1.0)).pixels(), [0, 128, 255]);
    }

    #[test]
    fn values_that_are_not_finite_are_refused() {
        let values = [0.5f32, f32::NAN].iter().flat_map(|value| value.to_le_bytes()).collect();
        let bytes = tiff(&[TiffPage { size: (1, 2), bits: 32, format: 3, values, ..TiffPage::default() }]);
        let error =
            decode::<u8>(Cursor::new(&bytes), &layout(Cursor::new(&bytes)).unwrap(), None).unwrap_err().to_string();
        assert_eq!(error, "its value at row 0, column 1, band 1 is NaN");
    }

    #[test]
    fn few_bits_palettes_and_video_colors_are_read() {
        // 3 pixels of 2 bits, 0 1 3, and padding
        let page = TiffPage { size: (1, 3), bits: 2, values: vec![0b0001_1100], ..TiffPage::default() };
        assert_eq!(decoded(page, None).pixels(), [0, 85, 255]);
        let palette = [0, 0x1234, 0xffff, 0, 0, 0, 0, 0, 0, 0, 0xff00, 0];
        let page = TiffPage {
            size: (2, 2),
            bits: 2,
            photometric: 3,
            palette: &palette,
            values: vec![0b0110_0000, 0b1000_0000],
            ..TiffPage::default()
        };
        assert_eq!(decoded(page, None).pixels(), [0x12, 0, 0, 255, 0, 255, 255, 0, 255, 0, 0, 0]);
        // red and gray, as of JPEG
        assert_eq!(rgb_of_ycbcr([76u8, 85, 255]), [254, 0, 0]);
        assert_eq!(rgb_of_ycbcr([99u8, 128, 128]), [99, 99, 99]);
    }

    fn decode_error(page: TiffPage<'_>) -> String {
        let bytes = tiff(&[page]);
        layout(Cursor::new(&bytes))
            .and_then(|found| decode::<u8>(Cursor::new(&bytes), &found, None))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn pixels_are_turned_as_by_the_other_decoder() {
        for orientation in 1..=8 {
            let values: Vec<u8> = (0..2 * 3 * 3).map(|at| at * 9).collect();
            let page = |bits, values| TiffPage {
                size: (2, 3),
                bands: 3,
                bits,
                format: if bits == 32 { 3 } else { 1 },
                photometric: 2,
                orientation,
                values,
                ..TiffPage::default()
            };
            let float = values.iter().flat_map(|&value| f32::from(value).to_le_bytes()).collect();
            let expected = crate::decode::Encoded::Bytes(tiff(&[page(8, values)]));
            let got = decoded(page(32, float), Some(Range::BYTES));
            assert_eq!(got, expected.decode_in::<u8>(None, None).unwrap().0, "orientation {orientation}");
        }
    }

    /// A damaged file gives a picture or a reason.
    #[test]
    fn damaged_files_never_panic() {
        let count = std::env::var("MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1000);
        let mut state = 1u64;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let page = |bands, bits: u16, format, photometric, is_planar| TiffPage {
            size: (3, 4),
            bands,
            bits,
            format,
            photometric,
            is_planar,
            orientation: 6,
            palette: &[0, 7, 65535, 9, 0, 5],
            values: (0..12 * bands * bits.div_ceil(8)).map(|at| at as u8).collect(),
            ..TiffPage::default()
        };
        let mut refused = 0;
        for whole in [
            tiff(&[page(5, 8, 1, 2, false)]),
            tiff(&[page(4, 16, 1, 2, true)]),
            tiff(&[page(2, 32, 3, 1, false)]),
            tiff(&[page(1, 1, 1, 3, false), page(1, 8, 1, 1, false)]),
            tiff(&[page(3, 8, 1, 6, false)]),
        ] {
            for _ in 0..count {
                let mut bytes = whole.clone();
                for _ in 0..=random(4) {
                    let at = random(bytes.len());
                    bytes[at] = [0, 1, 255, random(256) as u8][random(4)];
                }
                let found = layout(Cursor::new(&bytes)).and_then(|found| {
                    extremes(Cursor::new(&bytes), &found)?;
                    found.header().map_or(Ok(()), |_| decode::<u8>(Cursor::new(&bytes), &found, None).map(|_| ()))
                });
                refused += usize::from(found.is_err());
            }
        }
        assert!(refused > count, "only {refused} of {} damaged files were refused", 5 * count);
    }

    #[test]
    fn pages_are_counted_and_copies_apart() {
        let page = |kind| TiffPage { kind, ..TiffPage::default() };
        let found = layout(Cursor::new(tiff(&[page(0), page(0), page(1), page(0)]))).unwrap();
        assert_eq!((found.more_pages, found.copies), (2, 1));
    }

    #[test]
    fn every_page_is_read_as_a_file() {
        let page = |value, kind| TiffPage { size: (1, 2), kind, values: vec![value, value + 1], ..TiffPage::default() };
        let deep = TiffPage { bits: 16, format: 2, values: little([7]), ..TiffPage::default() };
        let (pages, copies) = Page::all(tiff(&[page(3, 0), page(5, 1), page(8, 0), deep])).unwrap();
        assert_eq!((pages.len(), copies), (3, 1));
        for (page, expected) in pages.into_iter().zip([vec![3, 4], vec![8, 9], vec![7]]) {
            let picture = crate::decode::Encoded::Page(page).decode_in::<u8>(None, None).unwrap().0;
            assert_eq!(picture.pixels(), expected);
        }
    }

    #[test]
    fn what_is_not_read_is_named() {
        let page = TiffPage::default;
        for (page, words) in [
            (TiffPage { compression: 50_000, ..page() }, "Zstandard"),
            (TiffPage { compression: 34_712, ..page() }, "JPEG 2000"),
            (TiffPage { photometric: 8, bands: 3, values: vec![0; 3], ..page() }, "CIE L*a*b*"),
            (TiffPage { photometric: 0, bands: 2, values: vec![0; 2], ..page() }, "white as its lowest value"),
            (TiffPage { bits: 12, values: vec![0; 2], ..page() }, "values of 12 bits"),
            (TiffPage { format: 4, ..page() }, "sample format 4"),
            (TiffPage { photometric: 32_803, ..page() }, "PhotometricInterpretation"),
            (TiffPage { size: (99, 99), bands: 4, photometric: 2, ..page() }, "truncated"),
        ] {
            let error = decode_error(page);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn big_endian_files_and_big_tiffs_show_all_bands() {
        // the tags of a file of 4 bands: size, bits, colors, place, bands, and length
        let entries: [(u16, u16, u32); 9] = [
            (256, 3, 1),
            (257, 3, 1),
            (258, 3, 8),
            (259, 3, 1),
            (262, 3, 2),
            (273, 4, 8),
            (277, 3, 4),
            (278, 3, 1),
            (279, 4, 4),
        ];
        let mut file = b"MM\0*\0\0\0\x0c\x01\x02\x03\x04\0\x09".to_vec();
        for (tag, kind, value) in entries {
            file.extend([tag.to_be_bytes(), kind.to_be_bytes(), [0, 0], [0, 1]].concat());
            file.extend(if kind == 3 { value << 16 } else { value }.to_be_bytes());
        }
        file.extend([0; 4]);
        let mut big = b"II+\0\x08\0\0\0\x14\0\0\0\0\0\0\0\x01\x02\x03\x04\x09\0\0\0\0\0\0\0".to_vec();
        for (tag, kind, value) in entries {
            big.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            big.extend(1u64.to_le_bytes());
            big.extend(u64::from(if tag == 273 { 16 } else { value }).to_le_bytes());
        }
        big.extend([0; 8]);
        for bytes in [file, big] {
            let picture = decode::<u8>(Cursor::new(&bytes), &layout(Cursor::new(&bytes)).unwrap(), None).unwrap().0;
            assert_eq!((picture.pixels(), picture.has_alpha()), ([1, 2, 3, 4].as_slice(), false));
        }
    }
}
