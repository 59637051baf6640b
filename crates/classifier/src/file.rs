//! The file of a classifier.

use std::path::Path;

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{Device, Tensor, TensorData},
};
use checkpoint::{CheckpointError, ImageFormat, file};
use noise::{Noise, Purpose};
use schedule::ScheduleConfig;
use serde::{Deserialize, Serialize};

use crate::{
    error::ClassifierError,
    network::{Network, PARAMETERS},
    noised::NoisedClassifier,
};

/// Entry of the metadata that holds the [`Header`].
const KEY: &str = "diffuse-classifier";
/// Version of the format; raised when an older build could misread a file.
const FORMAT_VERSION: u32 = 1;
/// Limit of the classes in a header, which a damaged file may exceed.
const MAX_CLASSES: usize = 1 << 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format_version: u32,
    image: ImageFormat,
    classes: usize,
    schedule: ScheduleConfig,
}

impl NoisedClassifier {
    /// Writes the classifier atomically; the bytes depend on the classifier alone.
    ///
    /// # Errors
    /// [`ClassifierError::File`] names the file.
    pub fn save(&self, path: &Path) -> Result<(), ClassifierError> {
        struct Visitor(Vec<TensorData>);
        impl ModuleVisitor for Visitor {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.push(param.val().to_data());
            }
        }
        let mut visitor = Visitor(Vec::new());
        self.network.visit(&mut visitor);
        let tensors: Vec<(String, TensorData)> =
            PARAMETERS.iter().map(|name| (*name).to_owned()).zip(visitor.0).collect();
        let header = Header {
            format_version: FORMAT_VERSION,
            image: self.image,
            classes: self.classes,
            schedule: self.schedule.clone(),
        };
        let header = serde_json::to_string(&header)
            .map_err(|error| CheckpointError::Header { path: path.to_owned(), reason: error.to_string() })?;
        Ok(file::write(path, KEY, header, &tensors)?)
    }

    /// Reads a classifier onto `device`.
    ///
    /// # Errors
    /// [`ClassifierError::File`] names the file and the reason.
    pub fn load(path: &Path, device: &Device) -> Result<Self, ClassifierError> {
        let file = file::TensorFile::read(path, KEY)?;
        let broken = |reason: String| CheckpointError::Header { path: path.to_owned(), reason };
        let Header { image, classes, schedule, .. } = file.header_as(FORMAT_VERSION)?;
        let side = 4..=1 << 12;
        let possible = (1..=64).contains(&image.channels)
            && side.contains(&image.height)
            && side.contains(&image.width)
            && (2..=MAX_CLASSES).contains(&classes);
        if !possible {
            return Err(broken(format!("{classes} classes of images {image:?} are not possible")).into());
        }
        // the tensors must be in the file before a network of their sizes is allocated
        let mut values = Vec::with_capacity(PARAMETERS.len());
        for name in PARAMETERS {
            let data = file.tensor(name)?.ok_or_else(|| broken(format!("the tensor `{name}` is missing")))?;
            if !data.iter::<f32>().all(f32::is_finite) {
                return Err(CheckpointError::NotFinite { path: path.to_owned(), name: name.to_owned() }.into());
            }
            values.push(data);
        }
        let sizes = [image.channels, image.height, image.width];
        let features = values[14].num_elements();
        if features < image.height / 4 * (image.width / 4) || values[16].num_elements() < classes {
            return Err(broken(format!("its weights do not fit {classes} classes of images {image:?}")).into());
        }
        let (mut index, mut problem) = (0, None);
        let network = Network::new(sizes, classes, Noise::new(0).stream(Purpose::Weights), device);
        let network = network.map_parameters(|into, shape| {
            if values[index].shape()[..] == *shape {
                into.copy_from_slice(&values[index].iter::<f32>().collect::<Vec<_>>());
            } else {
                problem = Some(format!("`{}` is {:?}, not {shape:?}", PARAMETERS[index], values[index].shape()));
            }
            index += 1;
        });
        match problem {
            Some(problem) => Err(broken(problem).into()),
            None => Ok(Self { network: network.valid(), image, classes, schedule }),
        }
    }
}
