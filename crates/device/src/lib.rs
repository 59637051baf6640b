//! Burn [`Device`]s by name: `flex`, `wgpu` or `cuda:1`.
//!
//! Each backend is a cargo feature of this crate. The other crates of the workspace have the same code for all of them.
//!
//! ```
//! let device = device::open("flex")?; // or "wgpu", "cuda:1", where they are built in
//! assert!(matches!(device::open("cuda:x"), Err(device::DeviceError::Unknown { .. })));
//! # Ok::<(), device::DeviceError>(())
//! ```
#![forbid(unsafe_code)]

pub mod memory;
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm"))]
mod startup;

use core::{fmt, str::FromStr};

use burn::tensor::Device;

/// A backend of burn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Pure Rust on the CPU.
    Flex,
    /// Any GPU through WebGPU; also a CPU through Mesa's lavapipe.
    Wgpu,
    /// wgpu on Vulkan.
    Vulkan,
    /// wgpu on Metal.
    Metal,
    /// NVIDIA.
    Cuda,
    /// AMD.
    Rocm,
}

impl Backend {
    /// All backends, the default first.
    pub const ALL: [Self; 6] = [Self::Flex, Self::Wgpu, Self::Vulkan, Self::Metal, Self::Cuda, Self::Rocm];

    /// Its name on the command line and as a cargo feature.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Wgpu => "wgpu",
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
        }
    }

    /// Whether this build has the backend.
    pub const fn is_compiled(self) -> bool {
        match self {
            Self::Flex => cfg!(feature = "flex"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Metal => cfg!(feature = "metal"),
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Rocm => cfg!(feature = "rocm"),
        }
    }

    /// The devices of this backend that the drivers list, none of which is started.
    fn devices(self) -> Vec<Device> {
        #[allow(unused_imports)]
        use burn::tensor::DeviceType;
        match self {
            #[cfg(feature = "flex")]
            Self::Flex => vec![Device::flex()],
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::enumerate(DeviceType::Wgpu).into_vec(),
            #[cfg(feature = "vulkan")]
            Self::Vulkan => Device::enumerate(DeviceType::Vulkan).into_vec(),
            #[cfg(feature = "metal")]
            Self::Metal => Device::enumerate(DeviceType::Metal).into_vec(),
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(DeviceType::Cuda).into_vec(),
            #[cfg(feature = "rocm")]
            Self::Rocm => Device::enumerate(DeviceType::Rocm).into_vec(),
            #[allow(unreachable_patterns)]
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A backend and the index of a device, written `cuda` or `cuda:1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// The backend.
    pub backend: Backend,
    /// Index of the device, from 0.
    pub index: usize,
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let (name, index) = text.split_once(':').unwrap_or((text, "0"));
        let backend = Backend::ALL.into_iter().find(|backend| backend.name() == name);
        match (backend, index.parse()) {
            (Some(backend), Ok(index)) => Ok(Self { backend, index }),
            _ => Err(DeviceError::Unknown { name: text.to_owned() }),
        }
    }
}

/// A device that cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A text that is not the name of a device.
    #[error(
        "`{name}` is not a device: use one of flex, wgpu, vulkan, metal, cuda, rocm, with `:1` for the second of its kind"
    )]
    Unknown {
        /// The text.
        name: String,
    },
    /// The backend is not in this build.
    #[error(
        "the device `{backend}` is not in this build, which has {}. Build it in with `cargo xtask train --backend \
         {backend}` or `cargo build --package cli --features {backend}`",
        compiled_names()
    )]
    NotCompiled {
        /// The backend.
        backend: Backend,
    },
    /// The drivers list no such device.
    #[error(
        "no device `{backend}:{index}` was found: the drivers report {found} for {backend}. Check the driver, or use \
         `--device flex`, the CPU"
    )]
    NotFound {
        /// The backend.
        backend: Backend,
        /// Index of the device.
        index: usize,
        /// Number of devices of the backend.
        found: usize,
    },
    /// A file without which kernels cannot be compiled is not there.
    #[error("the device `{backend}` needs the file {file}, which was not found in {}: {advice}", places.join(", "))]
    MissingFile {
        /// The backend.
        backend: Backend,
        /// The name of the file.
        file: &'static str,
        /// Where it was looked for.
        places: Vec<String>,
        /// How to get it.
        advice: &'static str,
    },
    /// The build has no backend.
    #[error("this build has no backend: build it with one of the features flex, wgpu, vulkan, metal, cuda, rocm")]
    None,
}

fn compiled_names() -> String {
    let names: Vec<&str> = compiled().iter().map(|backend| backend.name()).collect();
    if names.is_empty() { "no backend".to_owned() } else { names.join(", ") }
}

/// The backends of this build, the default first.
pub fn compiled() -> Vec<Backend> {
    Backend::ALL.into_iter().filter(|backend| backend.is_compiled()).collect()
}

/// The name of the default device: the CPU where this build has it.
///
/// # Errors
/// [`DeviceError::None`] if this build has no backend.
pub fn default_name() -> Result<&'static str, DeviceError> {
    compiled().first().map(|backend| backend.name()).ok_or(DeviceError::None)
}

/// Opens a device by its name. For training, call [`Device::autodiff`] on it.
///
/// # Errors
/// [`DeviceError::Unknown`], [`DeviceError::NotCompiled`], [`DeviceError::MissingFile`] or [`DeviceError::NotFound`].
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let DeviceName { backend, index } = name.parse()?;
    if !backend.is_compiled() {
        return Err(DeviceError::NotCompiled { backend });
    }
    #[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm"))]
    startup::settle();
    // before any tensor is made: a missing device is otherwise a panic in a thread of the driver
    let devices = backend.devices();
    let found = devices.len();
    let device = devices.into_iter().nth(index).ok_or(DeviceError::NotFound { backend, index, found })?;
    #[cfg(feature = "cuda")]
    startup::check_files(backend)?;
    Ok(device)
}

/// Opens the device of that name, or the default one, and returns its name with it.
///
/// # Errors
/// Those of [`default_name`] and [`open`].
pub fn open_or_default(name: Option<&str>) -> Result<(&str, Device), DeviceError> {
    let name = match name {
        Some(name) => name,
        None => default_name()?,
    };
    Ok((name, open(name)?))
}

/// Opens the device of one of several processes on a host and returns its name with it: a name without an index stands for the
/// device `local_rank` modulo the number of devices.
///
/// # Errors
/// Those of [`default_name`] and [`open`].
pub fn open_for_rank(name: Option<&str>, local_rank: usize) -> Result<(String, Device), DeviceError> {
    let name = match name {
        Some(name) => name,
        None => default_name()?,
    };
    let DeviceName { backend, .. } = name.parse()?;
    let found = if name.contains(':') { 1 } else { backend.devices().len() };
    let name = numbered(name, local_rank, found);
    let device = open(&name)?;
    Ok((name, device))
}

fn numbered(name: &str, local_rank: usize, found: usize) -> String {
    match local_rank % found.max(1) {
        0 => name.to_owned(),
        index => format!("{name}:{index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed() {
        assert_eq!("cuda:1".parse(), Ok(DeviceName { backend: Backend::Cuda, index: 1 }));
        assert_eq!("wgpu".parse(), Ok(DeviceName { backend: Backend::Wgpu, index: 0 }));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:1:2", "Flex"] {
            assert_eq!(wrong.parse::<DeviceName>(), Err(DeviceError::Unknown { name: wrong.to_owned() }));
        }
    }

    #[test]
    fn processes_use_the_devices_in_turn() {
        let names = |found| [0, 1, 2, 3].map(|local_rank| numbered("cuda", local_rank, found));
        assert_eq!(names(4), ["cuda", "cuda:1", "cuda:2", "cuda:3"]);
        assert_eq!(names(2), ["cuda", "cuda:1", "cuda", "cuda:1"]);
        assert_eq!(names(0), ["cuda"; 4]);
    }

    #[test]
    fn the_error_of_a_missing_device_says_what_to_do() {
        if !Backend::Rocm.is_compiled() {
            let message = open("rocm").expect_err("not compiled").to_string();
            assert!(message.contains("--features rocm") && message.contains("flex"), "{message}");
        }
        if Backend::Flex.is_compiled() {
            assert!(open("flex").is_ok());
            assert_eq!(open("flex:3"), Err(DeviceError::NotFound { backend: Backend::Flex, index: 3, found: 1 }));
            assert_eq!(default_name(), Ok("flex"));
            assert_eq!(open_or_default(None), open_or_default(Some("flex")));
            // all processes share the CPU, which has the index 0 alone
            assert_eq!(open_for_rank(None, 3), Ok(("flex".to_owned(), Device::flex())));
            assert!(open_for_rank(Some("flex:1"), 0).is_err());
        }
    }
}
