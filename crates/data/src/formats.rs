//! The formats of pictures that are read, and those that people have and this build does not read.

use std::path::Path;

use image::ImageFormat;

/// The extensions of images, in any letter case. The format of a file is told by its first bytes.
pub const EXTENSIONS: [&str; 15] =
    ["png", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "dib", "gif", "tif", "tiff", "pnm", "pbm", "pgm", "ppm"];

/// Bytes at the begin of a file that tell its format.
pub(crate) const FIRST_BYTES: usize = 32;

/// Formats that are not read: the name, the extensions, and how to convert them.
const UNREAD: &[(&str, &[&str], &str)] = &[
    ("HEIC", &["heic", "heif", "hif", "heics", "heifs"], "`heif-convert` or `magick mogrify -format jpg`"),
    ("AVIF", &["avif", "avifs"], "`avifdec` or `magick mogrify -format png`"),
    ("JPEG XL", &["jxl"], "`djxl` or `magick mogrify -format png`"),
    (
        "JPEG 2000",
        &["jp2", "j2k", "jpf", "jpx", "jpm", "j2c", "jpc"],
        "`opj_decompress` or `magick mogrify -format png`",
    ),
    ("JPEG XR", &["jxr", "wdp", "hdp"], "`JxrDecApp`"),
    (
        "camera RAW",
        &[
            "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "k25", "kdc", "mef", "mos", "mrw",
            "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f",
        ],
        "`darktable-cli` or `dcraw_emu -T`",
    ),
    ("Photoshop files", &["psd", "psb"], "`magick mogrify -format png`"),
    ("GIMP or Krita files", &["xcf", "kra"], "the program itself: export PNG"),
    ("SVG", &["svg", "svgz"], "`rsvg-convert` or `magick mogrify -format png`"),
    ("EPS", &["eps", "ai"], "`magick mogrify -format png`"),
    ("WMF", &["wmf", "emf"], "`magick mogrify -format png`"),
    ("OpenEXR", &["exr"], "`magick mogrify -format tiff`"),
    ("Radiance HDR", &["hdr", "rgbe", "pfm"], "`magick mogrify -format tiff`"),
    ("TGA", &["tga", "icb", "vda", "vst"], "`magick mogrify -format png`"),
    ("icons", &["ico", "cur", "icns"], "`magick mogrify -format png`"),
    ("DDS", &["dds"], "`magick mogrify -format png`"),
    ("QOI", &["qoi"], "`magick mogrify -format png`"),
    ("PCX", &["pcx"], "`magick mogrify -format png`"),
    ("XPM", &["xpm", "xbm"], "`magick mogrify -format png`"),
    ("farbfeld", &["ff"], "`magick mogrify -format png`"),
    ("PAM", &["pam"], "`pamtopnm` or `magick mogrify -format png`"),
    ("DICOM", &["dcm", "dicom"], "`dcmj2pnm --write-16-bit-png`"),
    ("NIfTI", &["nii"], "a script: slices as PNG, or one `.npy`"),
    ("FITS", &["fit", "fits", "fts"], "a script: PNG of 16 bits, or one `.npy`"),
    ("microscope files", &["czi", "lif", "nd2", "svs", "ndpi", "lsm", "oib", "oif", "vsi"], "`bfconvert` to TIFF"),
    // read, once their first bytes say what they are
    ("animated PNG", &["apng"], "`magick mogrify -format png`"),
    ("stereo JPEG", &["mpo", "jps"], "`magick mogrify -format jpg`"),
    ("JPEG", &["jif", "jfi", "pjpeg", "pjp", "jpg_large", "jpg-large", "jpeg_large", "jpg_orig"], "the name .jpg"),
];

/// The extensions of archives and packed files.
const ARCHIVES: [&str; 14] =
    ["zip", "tar", "tgz", "gz", "tbz", "tbz2", "bz2", "txz", "xz", "7z", "rar", "zst", "lz4", "cbz"];

/// A format that is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unread {
    pub name: &'static str,
    /// The program that converts it.
    pub converter: &'static str,
}

/// The extension of a path in lower case; empty without one.
pub(crate) fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a name has the extension of an image.
pub(crate) fn is_image(path: &Path) -> bool {
    EXTENSIONS.contains(&extension(path).as_str())
}

/// Whether a name has the extension of an archive.
pub(crate) fn is_archive(path: &Path) -> bool {
    ARCHIVES.contains(&extension(path).as_str())
}

/// The format of a name's extension, if it is one that is not read.
pub(crate) fn unread(path: &Path) -> Option<Unread> {
    let extension = extension(path);
    let found = UNREAD.iter().find(|(_, extensions, _)| extensions.contains(&extension.as_str()))?;
    Some(Unread { name: found.0, converter: found.2 })
}

/// Whether a file whose name does not tell it is a picture that is read. TIFF does not count where the extension is that of a
/// format that is not read, since most camera RAW files begin as TIFF.
pub(crate) fn is_image_by_bytes(path: &Path, first: &[u8]) -> bool {
    match image::guess_format(first) {
        Ok(ImageFormat::Tiff) => path.extension().is_none(),
        Ok(ImageFormat::Png | ImageFormat::Gif | ImageFormat::WebP) => true,
        Ok(ImageFormat::Jpeg) => first.starts_with(&[0xff, 0xd8, 0xff]),
        // the other formats have too short a mark
        _ => false,
    }
}

/// The format of bytes that no decoder takes, and what to do about it.
pub(crate) fn name_by_bytes(first: &[u8]) -> Option<String> {
    let at = |from: usize, mark: &[u8]| first.get(from..).is_some_and(|rest| rest.starts_with(mark));
    let brands = || first.get(8..).unwrap_or_default();
    let has_brand = |brand: &[u8; 4]| brands().chunks(4).any(|chunk| chunk == brand);
    let extension = match first {
        _ if at(4, b"ftyp") && (has_brand(b"avif") || has_brand(b"avis")) => "avif",
        _ if at(4, b"ftypcrx ") => "cr3",
        _ if at(4, b"ftyp")
            && [b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"].into_iter().any(has_brand) =>
        {
            "heic"
        }
        _ if at(4, b"ftyp") => return Some("is a video, no picture".to_string()),
        _ if at(0, &[0xff, 0x0a]) || at(4, b"JXL ") => "jxl",
        _ if at(4, b"jP  ") || at(0, &[0xff, 0x4f, 0xff, 0x51]) => "jp2",
        _ if at(0, b"II\xbc\x01") => "jxr",
        _ if at(0, b"8BPS") => "psd",
        _ if at(0, b"gimp xcf") => "xcf",
        _ if at(0, b"<svg") => "svg",
        _ if at(0, b"%!PS") => "eps",
        _ if at(0, b"v/1\x01") => "exr",
        _ if at(0, b"#?RADIANCE") => "hdr",
        _ if at(0, b"DDS ") => "dds",
        _ if at(0, b"qoif") => "qoi",
        _ if at(0, &[0, 0, 1, 0]) => "ico",
        _ if at(0, b"farbfeld") => "ff",
        _ if at(0, b"SIMPLE  =") => "fits",
        _ if at(0, b"%PDF") => return Some("is a PDF document, no picture".to_string()),
        _ if at(0, b"version https://git-lfs") => {
            return Some("is a pointer of Git LFS, no picture: get the file with `git lfs pull`".to_string());
        }
        _ => {
            let text = String::from_utf8_lossy(first).trim_start().to_ascii_lowercase();
            let is_page = text.starts_with("<!doctype html") || text.starts_with("<html");
            return is_page.then(|| "is a web page, no picture: its download failed".to_string());
        }
    };
    let Unread { name, converter } = unread(&Path::new("x").with_extension(extension))?;
    Some(format!("is {name}, which this build does not read: convert it, e.g. with {converter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_name_and_by_first_bytes() {
        assert!(is_image(Path::new("a/b.JPG")) && !is_image(Path::new("jpg")));
        assert!(is_archive(Path::new("a.tar.GZ")));
        assert_eq!(unread(Path::new("IMG_1.HEIC")).map(|unread| unread.name), Some("HEIC"));
        assert_eq!(unread(Path::new("a.txt")), None);
        for (first, expected) in [
            (&b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"[..], Some("is HEIC")),
            (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", Some("is AVIF")),
            (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", Some("is a video")),
            (b"\xff\x0a\xfa\x7f", Some("is JPEG XL")),
            (b"\n<!DOCTYPE html><html>", Some("is a web page")),
            (b"this is no picture", None),
            (b"", None),
            (b"\0\0\0\x18ftyp", Some("is a video")),
        ] {
            let name = name_by_bytes(first);
            assert_eq!(name.is_some(), expected.is_some(), "{name:?}");
            assert!(expected.is_none_or(|expected| name.as_ref().unwrap().starts_with(expected)), "{name:?}");
        }
        let (jpeg, tiff) = (b"\xff\xd8\xff\xe0\0\x10JFIF", b"II*\0\x08\0\0\0");
        assert!(is_image_by_bytes(Path::new("a.heic"), jpeg) && is_image_by_bytes(Path::new("0a1b"), tiff));
        assert!(!is_image_by_bytes(Path::new("a.nef"), tiff) && !is_image_by_bytes(Path::new("a"), b"BM text"));
    }
}
