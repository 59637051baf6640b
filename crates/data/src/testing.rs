//! Small files for the tests of this crate.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, Luma};
use zip::write::{SimpleFileOptions, ZipWriter};

/// An IDX file of unsigned bytes whose header claims `dimensions`.
pub(crate) fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|side| side.to_be_bytes()));
    bytes.extend(values);
    bytes
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes `name`, which may contain folders, under `folder`.
pub(crate) fn write(folder: impl AsRef<Path>, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.as_ref().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// An image file.
pub(crate) fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// A PNG file of one shade.
pub(crate) fn gray(height: u32, width: u32, value: u8) -> Vec<u8> {
    encoded(GrayImage::from_pixel(width, height, Luma([value])), ImageFormat::Png)
}

/// A GIF of `count` frames of 2x2 pixels.
pub(crate) fn animated_gif(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 2, 2, &[0, 0, 0, 255, 255, 255]).unwrap();
    for frame in 0..count {
        encoder.write_frame(&gif::Frame::from_indexed_pixels(2, 2, [(frame % 2) as u8; 4], None)).unwrap();
    }
    drop(encoder);
    bytes
}

/// A PNG of `count` frames of 2x2 pixels; of one frame no animation.
pub(crate) fn animated_png(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 2);
    if count > 1 {
        encoder.set_animated(count as u32, 0).unwrap();
    }
    let mut writer = encoder.write_header().unwrap();
    for frame in 0..count {
        writer.write_image_data(&[frame as u8; 4]).unwrap();
    }
    writer.finish().unwrap();
    bytes
}

/// A WebP of `count` frames of 2x2 pixels; of one frame no animation.
pub(crate) fn animated_webp(count: usize) -> Vec<u8> {
    let still = encoded(image::RgbImage::from_pixel(2, 2, image::Rgb([9, 9, 9])), ImageFormat::WebP);
    if count == 1 {
        return still;
    }
    let chunk = |name: &[u8; 4], content: &[u8]| {
        [name.as_slice(), &(content.len() as u32).to_le_bytes(), content, &vec![0; content.len() % 2]].concat()
    };
    // flag of an animation; width and height less 1, in 3 bytes each
    let mut chunks = chunk(b"VP8X", &[2, 0, 0, 0, 1, 0, 0, 1, 0, 0]);
    chunks.extend(chunk(b"ANIM", &[0; 6]));
    for _ in 0..count {
        // x, y, width, height, duration, flags, then the chunk of the still picture
        let frame = [&[0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 10, 0, 0, 0][..], &still[12..]].concat();
        chunks.extend(chunk(b"ANMF", &frame));
    }
    [b"RIFF".as_slice(), &(4 + chunks.len() as u32).to_le_bytes(), b"WEBP", &chunks].concat()
}

/// A zip of files.
pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A tar of files.
pub(crate) fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Copies of `whole` with some bytes changed, a part repeated, or the end cut off.
pub(crate) fn mutations(whole: &[u8], count: usize) -> impl Iterator<Item = Vec<u8>> {
    let mut state = 1u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below.max(1)
    };
    (0..count).map(move |_| {
        let mut bytes = whole.to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(8) {
                0 => bytes.truncate(at),
                1 => {
                    let part = &whole[random(whole.len())..];
                    bytes.splice(at..at, part[..random(part.len().min(64))].to_vec()).for_each(drop);
                }
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = random(256) as u8),
            }
        }
        bytes
    })
}

/// A batch of CIFAR in its Python version, as Python 2 has published it, or as Python 3 writes it again in protocol 2.
pub(crate) fn cifar_pickle(python3: bool, label_key: &str, labels: &[u8], data: &[u8]) -> Vec<u8> {
    let string = |bytes: &[u8]| {
        if python3 {
            let text: String = bytes.iter().copied().map(char::from).collect();
            let length = (text.len() as u32).to_le_bytes();
            [b"c_codecs\nencode\nX", length.as_slice(), text.as_bytes(), b"X\x06\0\0\0latin1\x86R"].concat()
        } else if bytes.len() < 256 {
            [b"U", [bytes.len() as u8].as_slice(), bytes, b"q\x07"].concat()
        } else {
            [b"T", (bytes.len() as u32).to_le_bytes().as_slice(), bytes].concat()
        }
    };
    let module: &[u8] = if python3 { b"numpy._core.multiarray" } else { b"numpy.core.multiarray" };
    let kind: &[u8] = if python3 { b"X\x02\0\0\0u1\x89\x88\x87R" } else { b"U\x02u1K\0K\x01\x87R" };
    let state: &[u8] = if python3 { b"(K\x03X\x01\0\0\0|" } else { b"(K\x03U\x01|" };
    let mut bytes = b"\x80\x02}q\x01(".to_vec();
    bytes.extend(
        [string(b"batch_label"), string(b"training batch 1 of 5"), string(label_key.as_bytes()), b"]q\x02(".to_vec()]
            .concat(),
    );
    bytes.extend(labels.iter().flat_map(|&label| [b'K', label]));
    bytes
        .extend([b"e", string(b"data").as_slice(), b"c", module, b"\n_reconstruct\ncnumpy\nndarray\nK\0\x85"].concat());
    bytes.extend(
        [string(b"b").as_slice(), b"\x87R(K\x01K", &[labels.len() as u8], b"M\0\x0c\x86cnumpy\ndtype\n", kind].concat(),
    );
    bytes.extend([state, b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89", &string(data), b"tb"].concat());
    bytes.extend(
        [string(b"filenames"), b"](".to_vec(), string(b"leptodactylus_s_000004.png"), b"eu.".to_vec()].concat(),
    );
    bytes
}

/// A page of a TIFF file without compression; the default is a gray pixel of 8 bits.
pub(crate) struct TiffPage<'a> {
    pub size: (u16, u16),
    pub bands: u16,
    pub bits: u16,
    /// SampleFormat: 1 unsigned, 2 signed, 3 floating point.
    pub format: u16,
    /// PhotometricInterpretation: 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr.
    pub photometric: u16,
    pub extra: &'a [u16],
    pub is_planar: bool,
    pub compression: u16,
    pub orientation: u16,
    pub palette: &'a [u16],
    /// NewSubfileType: 1 for a smaller copy.
    pub kind: u16,
    /// The values, least significant byte first.
    pub values: Vec<u8>,
}

impl Default for TiffPage<'_> {
    fn default() -> Self {
        Self {
            size: (1, 1),
            bands: 1,
            bits: 8,
            format: 1,
            photometric: 1,
            extra: &[],
            is_planar: false,
            compression: 1,
            orientation: 1,
            palette: &[],
            kind: 0,
            values: vec![0],
        }
    }
}

/// A TIFF file of these pages.
pub(crate) fn tiff(pages: &[TiffPage<'_>]) -> Vec<u8> {
    let mut file = b"II*\0\0\0\0\0".to_vec();
    let mut link = 4;
    for page in pages {
        let strips = if page.is_planar { usize::from(page.bands) } else { 1 };
        let strip = page.values.len() / strips;
        let start = file.len();
        file.extend(&page.values);
        let longs = |values: Vec<usize>| values.into_iter().flat_map(|value| (value as u32).to_le_bytes()).collect();
        let shorts = |values: &[u16]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let fields: Vec<(u16, u16, Vec<u8>)> = [
            (254, 4, longs(vec![page.kind.into()])),
            (256, 3, shorts(&[page.size.1])),
            (257, 3, shorts(&[page.size.0])),
            (258, 3, shorts(&vec![page.bits; page.bands.into()])),
            (259, 3, shorts(&[page.compression])),
            (262, 3, shorts(&[page.photometric])),
            (273, 4, longs((0..strips).map(|at| start + at * strip).collect())),
            (274, 3, shorts(&[page.orientation])),
            (277, 3, shorts(&[page.bands])),
            (278, 3, shorts(&[page.size.0])),
            (279, 4, longs(vec![strip; strips])),
            (284, 3, shorts(&[1 + u16::from(page.is_planar)])),
            (320, 3, shorts(page.palette)),
            (338, 3, shorts(page.extra)),
            (339, 3, shorts(&vec![page.format; page.bands.into()])),
        ]
        .into_iter()
        .filter(|(_, _, value): &(u16, u16, Vec<u8>)| !value.is_empty())
        .collect();
        let mut directory = (fields.len() as u16).to_le_bytes().to_vec();
        for (tag, kind, mut value) in fields {
            let count = value.len() / if kind == 3 { 2 } else { 4 };
            directory.extend([tag.to_le_bytes(), kind.to_le_bytes()].concat());
            directory.extend((count as u32).to_le_bytes());
            if value.len() > 4 {
                let at = file.len() as u32;
                file.append(&mut value);
                value = at.to_le_bytes().to_vec();
            }
            value.resize(4, 0);
            directory.extend(value);
        }
        let at = (file.len() as u32).to_le_bytes();
        file[link..link + 4].copy_from_slice(&at);
        file.extend(directory);
        link = file.len();
        file.extend([0; 4]);
    }
    file
}
