//! A network with its header, to and from a file.

use std::path::Path;

use burn::tensor::Device;
use unet::Network;

use crate::{
    CheckpointError,
    file::{Safetensors, TensorFile, write},
    header::{FORMAT_VERSION, Header},
};

/// Entry of the metadata that holds the [`Header`].
const KEY: &str = "diffuse";

/// A trained network with everything that sampling needs.
#[derive(Clone, Debug)]
pub struct Model {
    /// The network.
    pub unet: Network,
    /// Its description.
    pub header: Header,
}

impl Model {
    /// Writes the model. The bytes depend on weights and header alone.
    ///
    /// # Errors
    /// [`CheckpointError::NotFinite`] if a weight is not finite: such a model is never written. Otherwise
    /// [`CheckpointError::File`]. A previous file at `path` stays if writing fails.
    pub fn save(&self, path: &Path) -> Result<(), CheckpointError> {
        let tensors = self.unet.state_dict();
        for (name, data) in &tensors {
            if !data.as_slice::<f32>().is_ok_and(|values| values.iter().all(|value| value.is_finite())) {
                return Err(CheckpointError::NotFinite { path: path.to_owned(), name: name.clone() });
            }
        }
        let header = serde_json::to_string(&self.header)
            .map_err(|error| CheckpointError::Header { path: path.to_owned(), reason: error.to_string() })?;
        write(path, KEY, header, &tensors)
    }

    /// Reads the header of a model file alone. Its network is possible and not larger than the file; [`load`](Self::load) checks all.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn read_header(path: &Path) -> Result<Header, CheckpointError> {
        let file = TensorFile::read(path, KEY)?;
        let header: Header = file.header_as(FORMAT_VERSION)?;
        file.check_network(&header.unet)?;
        Ok(header)
    }

    /// Reads a model onto `device`.
    ///
    /// # Errors
    /// [`CheckpointError`] names the file and what is wrong with it.
    pub fn load(path: &Path, device: &Device) -> Result<Self, CheckpointError> {
        Self::of_file(&TensorFile::read(path, KEY)?, device)
    }

    /// As [`load`](Self::load), from the bytes of a model file; `name` stands for its path in errors.
    ///
    /// # Errors
    /// [`CheckpointError`] names what is wrong with it.
    pub fn from_bytes(name: &str, bytes: &[u8], device: &Device) -> Result<Self, CheckpointError> {
        let file = Safetensors::of_bytes(Path::new(name), bytes.to_vec())?;
        Self::of_file(&TensorFile::of(file, KEY)?, device)
    }

    fn of_file(file: &TensorFile, device: &Device) -> Result<Self, CheckpointError> {
        let path = file.path();
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let header: Header = file.header_as(FORMAT_VERSION)?;
        let image = header.image;
        let network = |source| CheckpointError::Network { path: path.to_owned(), source };
        file.check_network(&header.unet)?;
        let unet = header.unet.init(device).map_err(network)?;
        header.unet.check_image_size(image.height, image.width).map_err(network)?;
        let content_fits = (1..=image.height).contains(&image.content_height)
            && (1..=image.width).contains(&image.content_width)
            && image.height.max(image.width) <= 1 << 14;
        if !content_fits || image.channels != header.unet.channels() {
            return Err(broken(format!(
                "its images {image:?} are not possible with {} channels",
                header.unet.channels()
            )));
        }
        if !header.classes.is_empty() && header.classes.len() != header.unet.classes() {
            let (names, classes) = (header.classes.len(), header.unet.classes());
            return Err(broken(format!("it names {names} classes but its network has {classes}")));
        }
        let mut problem = None;
        let loaded = unet.load_state_dict(|name| match file.tensor(name) {
            Ok(Some(data)) if data.as_slice::<f32>().is_ok_and(|v| v.iter().all(|value| value.is_finite())) => {
                Some(data)
            }
            Ok(Some(_)) => {
                problem = Some(CheckpointError::NotFinite { path: path.to_owned(), name: name.to_owned() });
                None
            }
            Ok(None) => None,
            Err(error) => {
                problem = Some(error);
                None
            }
        });
        match (loaded, problem) {
            (_, Some(problem)) => Err(problem),
            (Err(source), None) => Err(CheckpointError::Weights { path: path.to_owned(), source }),
            (Ok(unet), None) => Ok(Self { unet, header }),
        }
    }
}
