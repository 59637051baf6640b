//! The stage `environment`: what the machine has.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::{Session, networks::FORMATS};

/// Libraries that CUDA's kernels and measurements may need, and Vulkan's.
const LIBRARIES: [&str; 8] = [
    "libcuda.so",
    "libnvrtc.so",
    "libdevice.10.bc",
    "libcudnn.so",
    "libcublasLt.so",
    "libnccl.so",
    "libcudart.so",
    "libvulkan.so",
];
/// The deepest folder that is searched for them.
const DEPTH: usize = 6;
/// The most places of a library that are reported.
const PLACES: usize = 3;

pub fn run(session: &Session) -> anyhow::Result<()> {
    let value = |name: &str, value: Value| session.ok(name, json!({ "value": value }));
    let commit = fs::read_to_string(session.kit.join("commit")).unwrap_or_else(|_| "not from a kit".to_owned());
    value("version", format!("{} {}", env!("CARGO_PKG_VERSION"), commit.trim()).into())?;
    value("gpu", gpu().into())?;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    value("processor", format!("{} ({cores} threads)", field("/proc/cpuinfo", "model name")).into())?;
    value("memory", field("/proc/meminfo", "MemTotal").into())?;
    value("system", field("/etc/os-release", "PRETTY_NAME").trim_matches('"').into())?;
    let places = library_folders();
    let found: Vec<PathBuf> = places.iter().flat_map(libraries_in).collect();
    for library in LIBRARIES {
        let has_name =
            |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(library));
        let mut paths: Vec<String> = found.iter().filter(has_name).map(|path| path.display().to_string()).collect();
        paths.sort_unstable();
        paths.dedup();
        let more = paths.len().saturating_sub(PLACES);
        paths.truncate(PLACES);
        let list = if paths.is_empty() { "not found".to_owned() } else { paths.join(", ") };
        value(library, if more > 0 { format!("{list} and {more} more") } else { list }.into())?;
    }
    let device = match session.open() {
        Ok(device) => device,
        Err(error) => return session.failed("device", &error.to_string()),
    };
    let name = device_name(&device);
    session.ok("device", json!({ "value": format!("{}: {name}", session.device) }))?;
    let formats = FORMATS.into_iter().filter(|format| format.is_supported(&device)).map(|format| format.name);
    value("number formats", formats.collect::<Vec<_>>().join(", ").into())
}

/// The name of the device and what its kernels are compiled for.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm"))]
fn device_name(device: &burn::tensor::Device) -> String {
    device.identity().map_or("the CPU".to_owned(), |identity| format!("{} ({})", identity.name, identity.fingerprint))
}

#[cfg(not(any(feature = "wgpu", feature = "vulkan", feature = "metal", feature = "cuda", feature = "rocm")))]
fn device_name(_: &burn::tensor::Device) -> String {
    "the CPU".to_owned()
}

/// Name, driver, memory and architecture of each GPU by NVIDIA's tool.
fn gpu() -> String {
    let query = "--query-gpu=name,driver_version,memory.total,compute_cap,power.limit,clocks.max.sm";
    let output = Command::new("nvidia-smi").args([query, "--format=csv,noheader"]).output();
    match output {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; "),
        Ok(output) => format!("nvidia-smi ended with {}", output.status),
        Err(_) => "no nvidia-smi".to_owned(),
    }
}

/// The value of the first `name: value` or `name=value` of a file.
fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let value = text.lines().find_map(|line| {
        let (key, value) = line.split_once([':', '='])?;
        (key.trim() == name).then(|| value.trim().to_owned())
    });
    value.unwrap_or_else(|| "unknown".to_owned())
}

/// The folders in which a loader, a toolkit or a Python package has libraries.
fn library_folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> =
        ["/usr/local/cuda", "/usr/local/nvidia", "/opt/cuda", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64"]
            .map(PathBuf::from)
            .into();
    for variable in ["LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH"] {
        folders.extend(std::env::var_os(variable).iter().flat_map(std::env::split_paths));
    }
    // the packages of PyPI that PyTorch installs
    let script = "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')";
    if let Ok(output) = Command::new(super::torch::python()).args(["-c", script]).output() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        folders
            .extend(text.lines().flat_map(|folder| ["nvidia", "triton"].map(|name| PathBuf::from(folder).join(name))));
    }
    folders.retain(|folder| !folder.as_os_str().is_empty());
    folders
}

/// The files of [`LIBRARIES`] in a folder and those inside it.
fn libraries_in(folder: &PathBuf) -> Vec<PathBuf> {
    let files =
        walkdir::WalkDir::new(folder).max_depth(DEPTH).follow_root_links(true).into_iter().filter_map(Result::ok);
    let is_wanted = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        LIBRARIES.iter().any(|library| name.starts_with(library))
    };
    files.map(walkdir::DirEntry::into_path).filter(is_wanted).collect()
}
