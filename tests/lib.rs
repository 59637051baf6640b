//! Helpers of the end-to-end tests, which build the binary once and run it in an empty folder as a user does.
#![forbid(unsafe_code)]

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

use serde_json::Value;
use tempfile::TempDir;

/// Settings of a network and a run that train in a second.
pub const TINY: [&str; 11] = [
    "unet.dim=8",
    "unet.dim_mults=[1]",
    "unet.attention=[\"off\"]",
    "unet.attention_head_dim=8",
    "data.limit=64",
    "training.batch_size=4",
    "training.warmup_steps=0",
    "training.log_every=1",
    "training.steps=6",
    "sampling.count=10",
    "sampling.steps=3",
];

/// The program `diffuse`, built in the profile and the target directory of the running test.
///
/// # Panics
/// If it does not build.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // TARGET/PROFILE/deps/this-test
        let test = std::env::current_exe().expect("the path of this test");
        let profile_folder = test.ancestors().nth(2).expect("a folder of the profile");
        let target_folder = profile_folder.parent().expect("a target directory");
        let profile = match profile_folder.file_name().and_then(OsStr::to_str) {
            None | Some("debug") => "dev",
            Some(name) => name,
        };
        let features = [
            ("mpi", cfg!(feature = "mpi")),
            ("wgpu", cfg!(feature = "wgpu")),
            ("vulkan", cfg!(feature = "vulkan")),
            ("metal", cfg!(feature = "metal")),
            ("cuda", cfg!(feature = "cuda")),
            ("rocm", cfg!(feature = "rocm")),
        ];
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .args(["build", "--package", "cli", "--bin", "diffuse", "--profile", profile, "--target-dir"])
            .arg(target_folder);
        for (name, _) in features.iter().filter(|(_, is_asked)| *is_asked) {
            build.args(["--features", name]);
        }
        // variables that cargo sets for this test: build scripts that read them would run again and rebuild half of the
        // program, here and at the next call of cargo
        for (name, _) in std::env::vars_os() {
            let shown = name.to_string_lossy();
            if shown.starts_with("CARGO_PKG_") || shown.starts_with("CARGO_MANIFEST_") || shown == "OUT_DIR" {
                build.env_remove(&name);
            }
        }
        let output = build.output().expect("cargo runs");
        assert!(output.status.success(), "{build:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
        profile_folder.join(format!("diffuse{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A temporary folder, the current directory of every run in it.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// Makes an empty folder.
    ///
    /// # Panics
    /// If it cannot be made.
    #[expect(clippy::new_without_default, reason = "it makes a folder on the disk")]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// The path of a file.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads the bytes of a file.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// Reads the text of a file.
    ///
    /// # Panics
    /// If it cannot be read, or is not text.
    pub fn text(&self, name: impl AsRef<Path>) -> String {
        String::from_utf8(self.read(name)).expect("text")
    }

    /// Writes a file, and the folders that it lies in.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// `diffuse` with these arguments, not yet started.
    pub fn command(&self, arguments: &[impl AsRef<OsStr>]) -> Command {
        let mut command = Command::new(program());
        command
            .current_dir(self.folder.path())
            .args(arguments)
            // datasets of the user are not part of a test
            .env("HOME", self.folder.path())
            .env_remove("XDG_CACHE_HOME")
            .env_remove("DIFFUSE_DATASETS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts `diffuse` with these arguments.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(&self, arguments: &[impl AsRef<OsStr>]) -> Child {
        self.command(arguments).spawn().expect("diffuse starts")
    }

    /// Runs `diffuse` with these arguments to its end.
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(&self, arguments: &[impl AsRef<OsStr>]) -> Finished {
        Finished::new(arguments, self.command(arguments).output().expect("diffuse starts"))
    }

    /// Trains the network of [`TINY`], with more arguments.
    ///
    /// # Panics
    /// If it does not start.
    pub fn train_tiny(&self, arguments: &[&str]) -> Finished {
        self.run(&tiny(arguments))
    }
}

/// The arguments that train the network of [`TINY`], then the given ones, which win.
pub fn tiny<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let settings = TINY.iter().flat_map(|setting| ["--set", setting]);
    std::iter::once("train").chain(settings).chain(arguments.iter().copied()).collect()
}

/// The result of a run of `diffuse`.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The arguments.
    pub arguments: String,
    /// The exit code; None where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

impl Finished {
    /// From the output of a process.
    pub fn new(arguments: &[impl AsRef<OsStr>], output: Output) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        Self {
            arguments: arguments.join(" "),
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts that the run succeeded.
    ///
    /// # Panics
    /// If it failed.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// Asserts that the run was refused: exit code 1 or 2, an error with each of `words`, nothing on standard output, no
    /// panic.
    ///
    /// # Panics
    /// If it was not.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Self {
        assert!(matches!(self.code, Some(1 | 2)), "{self}");
        assert!(!self.error.contains("panicked"), "{self}");
        assert!(self.error.lines().any(|line| line.starts_with("error: ")), "{self}");
        for word in words {
            assert!(self.error.contains(word), "`{word}` is not in the error: {self}");
        }
        assert_eq!(self.output, "", "{self}");
        self
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is not one JSON value in one line.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.output.lines().count(), 1, "{self}");
        serde_json::from_str(&self.output).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { arguments, code, output, error } = self;
        write!(
            formatter,
            "diffuse {arguments}\nexit code {code:?}\n--- standard output\n{output}\n--- standard error\n{error}"
        )
    }
}

/// Width and height of a PNG, from its header.
///
/// # Panics
/// If it is not a whole PNG.
#[track_caller]
pub fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "not a PNG");
    assert_eq!(&bytes[12..16], b"IHDR");
    assert_eq!(&bytes[bytes.len() - 8..bytes.len() - 4], b"IEND", "the PNG is not whole");
    let number = |start: usize| u32::from_be_bytes([0, 1, 2, 3].map(|offset| bytes[start + offset]));
    (number(16), number(20))
}

/// The examples of README.md as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
