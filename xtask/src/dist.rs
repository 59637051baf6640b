//! `cargo xtask dist`: `diffuse` as a wheel for pip, an archive and a Debian package, each tried in an empty folder.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};

use crate::ci::{install, shell, target_folder};
use crate::{UsageError, choice_and_folder, print};

/// What builds the wheel, from PyPI.
const MATURIN: &str = "maturin==1.16.0";
/// The name of the packages. Debian has a program `diffuse`, which compares text files.
const NAME: &str = "diffuse-rs";
/// The files of the repository that every package has.
const DOCUMENTS: &str = "README.md CHANGELOG.md LICENSE-APACHE LICENSE-MIT";
/// Cargo's profiles that are packed, the default first: `dev` is what tests and `cargo xtask train` have built already.
const PROFILES: [&str; 2] = ["release", "dev"];

/// The packages that were made.
struct Packages {
    wheel: PathBuf,
    archive: PathBuf,
    debian: PathBuf,
}

/// `cargo xtask dist [--profile PROFILE] [--out FOLDER]`.
pub fn main(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let (profile, out) = parse(arguments)?;
    let out = match out {
        Some(out) => out,
        None => target_folder()?.join("dist"),
    };
    let root = crate::cargo::workspace_root();
    let packages = pack(&root, profile, &out)?;
    let table = packages.check(&out.join("tried"))?;
    print(&table)
}

/// Packs what the tests have built, and tries it.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let out = target_folder()?.join("dist");
    let packages = pack(root, "dev", &out)?;
    eprint!("{}", packages.check(&out.join("tried"))?);
    Ok(())
}

/// The values of `--profile` and `--out`.
fn parse(arguments: &[OsString]) -> Result<(&'static str, Option<PathBuf>), UsageError> {
    choice_and_folder(arguments, "--profile", "profile", &PROFILES)
}

/// Builds `diffuse` and makes the packages in `out`; those of an earlier time are removed.
fn pack(root: &Path, profile: &str, out: &Path) -> anyhow::Result<Packages> {
    let version = env!("CARGO_PKG_VERSION");
    let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let architecture = match (system, processor) {
        ("linux", "x86_64") => "amd64",
        ("linux", "aarch64") => "arm64",
        _ => {
            bail!("packages are made on Linux for x86_64 and aarch64, not on {system} for {processor}: docs/install.md")
        }
    };
    fs::create_dir_all(out).with_context(|| format!("cannot make the folder {}", out.display()))?;
    let out = fs::canonicalize(out).with_context(|| format!("cannot find {}", out.display()))?;
    let maturin = install("maturin", MATURIN)?;
    shell(&format!("cargo build --package cli --bin diffuse --features hf --profile {profile}"), root)?;
    let program = target_folder()?.join(if profile == "dev" { "debug" } else { profile }).join("diffuse");

    let folder = format!("{NAME}-{version}-{processor}-linux");
    let archive = out.join(format!("{folder}.tar.gz"));
    let debian = out.join(format!("{NAME}_{version}_{architecture}.deb"));
    let (shown, program, maturin) = (out.display(), program.display(), maturin.display());
    // the program, its manual and completions as they lie under /usr
    let usr = format!("{shown}/staged/usr");
    shell(
        &format!(
            "rm -rf '{shown}/staged' '{shown}'/*.whl '{shown}'/*.tar.gz '{shown}'/*.deb && mkdir -p '{usr}/bin' \
             '{usr}/share/bash-completion/completions' '{usr}/share/zsh/vendor-completions' \
             '{usr}/share/fish/vendor_completions.d' '{usr}/share/doc/{NAME}' && strip -o '{usr}/bin/diffuse' '{program}' && \
             '{program}' man '{usr}/share/man/man1' >/dev/null && \
             '{program}' completions bash >'{usr}/share/bash-completion/completions/diffuse' && \
             '{program}' completions zsh >'{usr}/share/zsh/vendor-completions/_diffuse' && \
             '{program}' completions fish >'{usr}/share/fish/vendor_completions.d/diffuse.fish' && \
             cp {DOCUMENTS} '{usr}/share/doc/{NAME}/'"
        ),
        root,
    )?;
    // files of the same bytes have the same name and time in every archive
    let owned = "--sort=name --owner=0 --group=0 --numeric-owner --mtime=@0";
    shell(
        &format!("tar {owned} --transform 's,^usr,{folder},' -czf '{}' -C '{shown}/staged' usr", archive.display()),
        root,
    )?;
    // the C library that it was linked with is recent enough
    let control = format!(
        "Package: {NAME}\\nVersion: {version}\\nArchitecture: amd64\\nMaintainer: the authors of diffuse\\nSection: science\\n\
         Priority: optional\\nConflicts: diffuse\\nDepends: libc6 (>= '\"$(getconf GNU_LIBC_VERSION | cut -d\" \" -f2)\"'), libgcc-s1\\n\
         Description: trains, samples and judges denoising diffusion models\\n"
    );
    shell(
        &format!(
            "cd '{shown}/staged' && gzip -9n usr/share/man/man1/*.1 && mkdir DEBIAN && printf '{control}' >DEBIAN/control && \
             SOURCE_DATE_EPOCH=0 dpkg-deb --root-owner-group --build . '{}'",
            debian.display()
        ),
        root,
    )?;
    shell(
        &format!(
            "'{maturin}/bin/maturin' build --quiet --profile {profile} --manifest-path crates/cli/Cargo.toml --out '{shown}'"
        ),
        root,
    )?;
    Ok(Packages { wheel: the_wheel(&out)?, archive, debian })
}

/// The wheel in a folder.
fn the_wheel(folder: &Path) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .with_context(|| format!("maturin left no wheel in {}", folder.display()))
}

impl Packages {
    /// Installs each package into an empty folder of its own below `tried` and lets it draw digits; returns a table of sizes
    /// and times.
    fn check(&self, tried: &Path) -> anyhow::Result<String> {
        let mut table = String::new();
        for (package, how, program) in [
            (&self.wheel, "python3 -m pip install --quiet --no-index --no-cache-dir --target . '{}'", "bin/diffuse"),
            (&self.archive, "tar -xzf '{}' --strip-components=1", "bin/diffuse"),
            (&self.debian, "dpkg-deb --extract '{}' .", "usr/bin/diffuse"),
        ] {
            let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let folder = tried.join(&name);
            let shown = folder.display();
            shell(&format!("rm -rf '{shown}' && mkdir -p '{shown}'"), Path::new("/"))?;
            let began = Instant::now();
            shell(&how.replace("{}", &package.display().to_string()), &folder)?;
            let installed = began.elapsed().as_secs_f64();
            let began = Instant::now();
            // nothing of this machine's environment: no cache, no settings
            shell(&format!("env -i HOME='{shown}' ./{program} sample digits --count 10 --out drawn"), &folder)?;
            let drawn = began.elapsed().as_secs_f64();
            let size = fs::metadata(package).with_context(|| format!("cannot read {}", package.display()))?.len();
            if !folder.join("drawn/grid.png").is_file() {
                bail!("{name} drew no grid.png in {shown}");
            }
            table += &format!(
                "{name:<56}{:>6.1} MB  installed in {installed:.1} s  ten digits in {drawn:.1} s\n",
                size as f64 / 1e6
            );
        }
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profile_and_folder_are_options() {
        let parsed = |line: &str| {
            let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            parse(&arguments).map_err(|error| error.to_string())
        };
        assert_eq!(parsed(""), Ok(("release", None)));
        assert_eq!(parsed("--profile dev --out=a/b"), Ok(("dev", Some("a/b".into()))));
        assert!(parsed("--profile fast").is_err_and(|message| message.contains("release, dev")));
        assert!(parsed("--prfile dev").is_err_and(|message| message.contains("did you mean `--profile`?")));
        assert!(parsed("--out").is_err());
    }
}
