//! `cargo xtask gpu-kit`: packs program, script and reference values for a machine with a GPU and nothing else of ours.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::ci::{shell, target_folder};
use crate::{UsageError, cargo, choice_and_folder, cuda};

/// The backends that a kit can be built for, the default first.
const BACKENDS: [&str; 3] = ["cuda", "wgpu", "vulkan"];
/// The largest kit, in bytes.
const LARGEST: u64 = 45_000_000;
/// The files of the repository that are part of it.
const FILES: [&str; 3] =
    ["crates/bench/kit/run.sh", "crates/bench/python/torch_speed.py", "crates/bench/python/lucidrains.py"];

/// `cargo xtask gpu-kit [--backend BACKEND] [--out FOLDER]`.
pub fn main(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let (backend, out) = parse(arguments)?;
    let out = match out {
        Some(out) => out,
        None => target_folder()?.join("gpu-kit").join(backend),
    };
    pack(backend, &out)?;
    Ok(ExitCode::SUCCESS)
}

/// Packs the kit for Vulkan devices and runs it with small sizes.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let out = target_folder()?.join("gpu-kit/wgpu");
    pack("wgpu", &out)?;
    shell(&format!("'{}/run.sh' --small", out.display()), root)
}

/// The values of `--backend` and `--out`.
fn parse(arguments: &[OsString]) -> Result<(&'static str, Option<PathBuf>), UsageError> {
    choice_and_folder(arguments, "--backend", "backend of a kit", &BACKENDS)
}

/// Builds `bench` and makes the folder `out`, in which files of an earlier kit are replaced.
fn pack(backend: &str, out: &Path) -> anyhow::Result<()> {
    let root = cargo::workspace_root();
    let variables = if backend == "cuda" { cuda::variables(&root)? } else { String::new() };
    // the whole workspace, so that the dependencies are those of the other commands
    shell(&format!("{variables} cargo build --workspace --bin bench --features {backend}"), &root)?;
    let program = std::env::current_exe()?.with_file_name("bench");
    fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let out = out.canonicalize().with_context(|| format!("cannot find {}", out.display()))?;
    let copy = |from: &Path, to: PathBuf| {
        fs::create_dir_all(to.parent().unwrap_or(&out))
            .and_then(|()| fs::copy(from, &to))
            .with_context(|| format!("cannot write {}", to.display()))
    };
    for file in FILES {
        copy(&root.join(file), out.join(Path::new(file).file_name().unwrap_or_default()))?;
    }
    if backend == "cuda" {
        copy(&cuda::libdevice()?, out.join("cuda").join(cuda::LIBDEVICE))?;
    }
    let write = |name: &str, text: &str| {
        fs::write(out.join(name), text).with_context(|| format!("cannot write {}", out.join(name).display()))
    };
    write("device", backend)?;
    let (program, kit) = (program.display(), out.display());
    shell(
        &format!("git describe --always --dirty --abbrev=12 >'{kit}/commit' || echo unknown >'{kit}/commit'"),
        &root,
    )?;
    // the values of the CPU, by the program that is packed
    for size in ["", "--small"] {
        shell(&format!("'{program}' gpu reference --device flex --kit '{kit}' --work '{kit}' {size}"), &root)?;
    }
    shell(&format!("strip -o '{kit}/bench' '{program}' && xz -6 -T0 --force '{kit}/bench'"), &root)?;
    let size = kit_size(&out)?;
    eprintln!("{kit}: {:.1} MB; run it by ./run.sh there", size as f64 / 1e6);
    if size > LARGEST {
        bail!("the kit has {size} bytes, more than {LARGEST}; what has the program grown by?");
    }
    Ok(())
}

/// The bytes of the kit's files, without the folder `work` that running it makes.
fn kit_size(folder: &Path) -> anyhow::Result<u64> {
    let mut size = 0;
    for entry in fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let (entry, path) = entry.map(|entry| (entry.metadata(), entry.path()))?;
        let entry = entry.with_context(|| format!("cannot read {}", path.display()))?;
        if !entry.is_dir() {
            size += entry.len();
        } else if !path.ends_with("work") {
            size += kit_size(&path)?;
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<(&'static str, Option<PathBuf>), String> {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn backend_and_folder_are_options() {
        assert_eq!(parsed(""), Ok(("cuda", None)));
        assert_eq!(parsed("--backend wgpu --out=a/b"), Ok(("wgpu", Some("a/b".into()))));
        assert!(parsed("--backend flex").is_err_and(|message| message.contains("cuda, wgpu, vulkan")));
        assert!(parsed("--bakend cuda").is_err_and(|message| message.contains("did you mean `--backend`?")));
        assert!(parsed("--out").is_err());
    }

    #[test]
    fn the_size_of_a_kit_leaves_out_what_running_it_makes() {
        let folder = std::env::temp_dir().join(format!("gpu-kit-{}", std::process::id()));
        for (file, length) in [("a", 3), ("inner/b", 4), ("work/c", 5)] {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap_or(&folder)).expect("a folder");
            fs::write(path, vec![0; length]).expect("a file");
        }
        assert_eq!(kit_size(&folder).expect("a size"), 7);
        fs::remove_dir_all(folder).expect("an empty place");
    }

    #[test]
    fn the_files_of_the_kit_exist() {
        for file in FILES {
            assert!(cargo::workspace_root().join(file).is_file(), "{file}");
        }
    }
}
