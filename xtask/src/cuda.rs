//! The build of the CUDA backend without a CUDA toolkit.

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::ci::{install, shell};

/// Static LLVM libraries from PyPI, as pip takes them, and the folder in which the build of the CUDA backend looks for them.
const LLVM_PACKAGES: &str = "mlc-llvm-static==23.1.1.post0 mlc-llvm-static-extra-targets==23.1.1.post0 --no-deps";
const LLVM_FOLDER: &str = "tracel-llvm-23.1.0-4";
/// The CUDA release whose interface is compiled against. Without it, the build asks `nvcc`, which need not be installed.
const VERSION: &str = "CUDARC_CUDA_VERSION=13000";
/// The package of PyPI that has NVIDIA's library of device functions, and where the library is in a CUDA toolkit.
const LIBDEVICE_PACKAGE: &str = "nvidia-nvvm==13.0.88 --no-deps";
pub const LIBDEVICE: &str = "nvvm/libdevice/libdevice.10.bc";

/// Installs LLVM from PyPI, unless it is there, and returns the variables with which cargo builds the CUDA backend, for the
/// shell.
///
/// The build looks for LLVM in `$XDG_DATA_HOME/tracel/tracel-llvm-…`, takes a folder with a certain empty file as complete,
/// and downloads its own otherwise. A private data home leaves that of the user alone.
pub fn variables(root: &Path) -> anyhow::Result<String> {
    let packages = install("cuda-link", LLVM_PACKAGES)?;
    let llvm = packages.join("mlc_llvm_static/static");
    if !llvm.is_dir() {
        bail!("{} was not installed by {LLVM_PACKAGES}; have the packages changed?", llvm.display());
    }
    let (llvm, home) = (llvm.display(), packages.with_file_name("data-home"));
    let home = home.display();
    let prepare = format!(
        "touch '{llvm}/.tracel-llvm-installed' && mkdir -p '{home}/tracel' && ln -sfn '{llvm}' '{home}/tracel/{LLVM_FOLDER}'"
    );
    shell(&prepare, root)?;
    Ok(format!("XDG_DATA_HOME='{home}' {VERSION}"))
}

/// The library that is linked into kernels when they are compiled, from PyPI. Small, and redistributable by CUDA's license.
pub fn libdevice() -> anyhow::Result<PathBuf> {
    let file = install("libdevice", LIBDEVICE_PACKAGE)?.join("nvidia/cu13").join(LIBDEVICE);
    if !file.is_file() {
        bail!("{} was not installed by {LIBDEVICE_PACKAGE}; has the package changed?", file.display());
    }
    Ok(file)
}
