//! What a GPU needs before the first tensor: the settings of CubeCL, and the files of its compiler.

#[cfg(any(feature = "cuda", feature = "kernel-cache", test))]
use std::path::PathBuf;

use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

#[cfg(any(feature = "cuda", test))]
use crate::{Backend, DeviceError};

/// Settles CubeCL's configuration in this process, unless another part of it was first.
///
/// A `cubecl.toml` has no say, wherever the program is started; CubeCL's environment variables have.
pub(crate) fn settle() {
    CubeClRuntimeConfig::try_set(settings().override_from_env());
}

/// Checks that the files of the compiler are there.
///
/// # Errors
/// [`DeviceError::MissingFile`] names the file and the package that has it.
#[cfg(feature = "cuda")]
pub(crate) fn check_files(backend: Backend) -> Result<(), DeviceError> {
    let chosen = std::env::var_os("CUDA_PATH").map(PathBuf::from);
    if backend == Backend::Cuda { find_libdevice(&toolkits(chosen)) } else { Ok(()) }
}

/// CubeCL's own defaults, and compiled kernels in the cache folder of the user.
fn settings() -> CubeClRuntimeConfig {
    #[allow(unused_mut, reason = "a build without the kernel cache changes nothing")]
    let mut settings = CubeClRuntimeConfig::default();
    #[cfg(feature = "kernel-cache")]
    if let Some(cache) = kernel_cache(std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from), std::env::home_dir()) {
        settings.compilation.cache = true;
        settings.environment.path = cubecl::config::cache::CacheConfig::Directory(cache);
    }
    settings
}

/// `$XDG_CACHE_HOME/diffuse/kernels`, else `~/.cache/diffuse/kernels`.
#[cfg(any(feature = "kernel-cache", test))]
fn kernel_cache(cache: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    let cache = cache.filter(|path| path.is_absolute()).or(home.map(|home| home.join(".cache")))?;
    Some(cache.join("diffuse/kernels"))
}

/// The folders in which CubeCL's compiler looks for a CUDA toolkit.
#[cfg(any(feature = "cuda", test))]
fn toolkits(chosen: Option<PathBuf>) -> Vec<PathBuf> {
    match chosen {
        Some(path) => vec![path],
        None => ["/usr/local/cuda", "/opt/cuda", "/usr/lib/cuda", "/usr"].map(PathBuf::from).to_vec(),
    }
}

/// Kernels call functions of NVIDIA's library `libdevice`, which is linked into them when they are compiled.
#[cfg(any(feature = "cuda", test))]
fn find_libdevice(toolkits: &[PathBuf]) -> Result<(), DeviceError> {
    let file = "nvvm/libdevice/libdevice.10.bc";
    if toolkits.iter().any(|toolkit| toolkit.join(file).is_file()) {
        return Ok(());
    }
    Err(DeviceError::MissingFile {
        backend: Backend::Cuda,
        file,
        places: toolkits.iter().map(|toolkit| toolkit.display().to_string()).collect(),
        advice: "it is part of the CUDA toolkit (Debian: nvidia-cuda-toolkit; PyPI: nvidia-nvvm or nvidia-cuda-nvcc-cu12). Set \
                 CUDA_PATH to the folder that has `nvvm`, or use `--device flex`, the CPU",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_kernels_go_to_the_cache_of_the_user() {
        let path =
            |cache: Option<&str>, home: Option<&str>| kernel_cache(cache.map(PathBuf::from), home.map(PathBuf::from));
        assert_eq!(path(Some("/c"), Some("/h")), Some(PathBuf::from("/c/diffuse/kernels")));
        assert_eq!(path(None, Some("/h")), Some(PathBuf::from("/h/.cache/diffuse/kernels")));
        // a relative path would depend on the current directory
        assert_eq!(path(Some("c"), Some("/h")), Some(PathBuf::from("/h/.cache/diffuse/kernels")));
        assert_eq!(path(None, None), None);
    }

    #[test]
    fn a_missing_libdevice_is_named_with_its_package() {
        let folder = std::env::temp_dir().join(format!("toolkit-{}", std::process::id()));
        let found = || find_libdevice(&toolkits(Some(folder.clone())));
        let message = found().expect_err("no such folder").to_string();
        assert!(message.contains("libdevice.10.bc") && message.contains("nvidia-cuda-toolkit"), "{message}");
        assert!(message.contains(&folder.display().to_string()), "{message}");
        std::fs::create_dir_all(folder.join("nvvm/libdevice")).expect("a folder");
        std::fs::write(folder.join("nvvm/libdevice/libdevice.10.bc"), "").expect("a file");
        assert_eq!(found(), Ok(()));
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
