//! The manifests of the known datasets: `datasets/NAME/manifest.toml`, compiled into the crate.

use std::path::Path;
use std::sync::LazyLock;

use files::Action;
use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A known dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name on the command line.
    pub name: String,
    /// A line that describes it.
    pub title: String,
    /// The format of its files.
    pub format: Format,
    /// Images of the training split.
    pub count: usize,
    /// Rows of every image.
    pub height: usize,
    /// Columns of every image.
    pub width: usize,
    /// 1 (gray) or 3 (RGB).
    pub channels: usize,
    /// The names of the classes, in order of their labels.
    pub classes: Vec<String>,
    /// The license, as an SPDX expression where there is one.
    pub license: String,
    /// The authors, and where they describe it.
    pub source: String,
    /// URLs, each ending in `/`, to which the name of a file is added; tried in order. Empty for a dataset of the repository.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// The published files.
    pub files: Vec<ManifestFile>,
    /// The files in a published archive, which are accepted too; empty without an archive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unpacked: Vec<ManifestFile>,
}

/// The format of the files of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// IDX files of images and labels.
    Idx,
    /// CIFAR-10's binary batches.
    Cifar10,
}

/// One file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name, without a folder.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of the file, in lower-case hexadecimal.
    pub sha256: String,
    /// For a gzip file: the length of its contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents_bytes: Option<u64>,
    /// For a gzip file: SHA-256 of its contents. It identifies a copy that was compressed again, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents_sha256: Option<String>,
}

/// The files of mnist-5k, which are part of the binary: (file name, bytes).
pub(crate) const MNIST_5K: [(&str, &[u8]); 2] = [
    ("images-idx3-ubyte.gz", include_bytes!("../../../datasets/mnist-5k/images-idx3-ubyte.gz")),
    ("labels-idx1-ubyte.gz", include_bytes!("../../../datasets/mnist-5k/labels-idx1-ubyte.gz")),
];

static KNOWN: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
    [
        include_str!("../../../datasets/mnist-5k/manifest.toml"),
        include_str!("../../../datasets/mnist/manifest.toml"),
        include_str!("../../../datasets/fashion-mnist/manifest.toml"),
        include_str!("../../../datasets/cifar10/manifest.toml"),
    ]
    .into_iter()
    .map(|text| toml::from_str(text).expect("a manifest of this repository parses, which a test checks"))
    .collect()
});

/// All known datasets.
pub fn known() -> &'static [Manifest] {
    &KNOWN
}

/// The dataset called `name`, if there is one.
///
/// ```
/// let manifest = data::manifest::find("fashion-mnist").expect("it is known");
/// assert_eq!((manifest.count, manifest.classes.len()), (60_000, 10));
/// ```
pub fn find(name: &str) -> Option<&'static Manifest> {
    known().iter().find(|manifest| manifest.name == name)
}

/// Reads a manifest file.
///
/// # Errors
/// [`DataError::File`], or [`DataError::BadManifest`] with the error of the parser.
pub fn read(path: &Path) -> Result<Manifest, DataError> {
    let text = std::fs::read_to_string(path).map_err(|error| DataError::io(Action::Read, path, error))?;
    toml::from_str(&text)
        .map_err(|error| DataError::BadManifest { path: path.display().to_string(), problem: error.to_string() })
}

/// The known names, separated by commas.
pub(crate) fn names() -> String {
    known().iter().map(|manifest| manifest.name.as_str()).collect::<Vec<_>>().join(", ")
}

impl ManifestFile {
    /// The names that the file may have in a folder, and whether they are those of the compressed one.
    pub(crate) fn possible_names(&self) -> Vec<(String, bool)> {
        let mut names = vec![(self.name.clone(), true)];
        if let Some(plain) = self.name.strip_suffix(".gz")
            && self.contents_sha256.is_some()
        {
            names.push((plain.to_string(), false));
            // of some archives: train-images.idx3-ubyte
            let dotted = plain.replace("-idx", ".idx");
            names.push((format!("{dotted}.gz"), true));
            names.push((dotted, false));
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifests_are_complete() {
        assert_eq!(names(), "mnist-5k, mnist, fashion-mnist, cifar10");
        for manifest in known() {
            assert_eq!(manifest.classes.len(), 10, "{}", manifest.name);
            for file in manifest.files.iter().chain(&manifest.unpacked) {
                for sum in [Some(&file.sha256), file.contents_sha256.as_ref()].into_iter().flatten() {
                    assert_eq!(sum.len(), 64, "{}", file.name);
                    assert!(sum.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')), "{}", file.name);
                }
                assert!(file.bytes > 0);
            }
            assert!(manifest.mirrors.iter().all(|mirror| mirror.starts_with("http") && mirror.ends_with('/')));
            let text = toml::to_string(manifest).unwrap();
            assert_eq!(&toml::from_str::<Manifest>(&text).unwrap(), manifest);
        }
    }

    /// The lengths of IDX files follow from the shapes.
    #[test]
    fn lengths_agree_with_the_shapes() {
        for manifest in known().iter().filter(|manifest| manifest.format == Format::Idx) {
            let bytes = |part: &str| {
                manifest.files.iter().find(|file| file.name.starts_with(part)).and_then(|file| file.contents_bytes)
            };
            let (images, labels) =
                if manifest.name == "mnist-5k" { ("images", "labels") } else { ("train-i", "train-l") };
            let pixels = manifest.count * manifest.height * manifest.width * manifest.channels;
            assert_eq!(bytes(images), Some(pixels as u64 + 16), "{}", manifest.name);
            assert_eq!(bytes(labels), Some(manifest.count as u64 + 8), "{}", manifest.name);
        }
    }
}
