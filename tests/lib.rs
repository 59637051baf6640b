//! Helpers of the end-to-end tests: the binary is built once, and run in an empty folder as a user would.
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

/// A network and a run so small that training takes a second.
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
        // what cargo told this test about itself: build scripts that look at it would run again, and half of the program be
        // built anew, here and then once more by whoever calls cargo next
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

/// An empty folder that is the current directory of every run in it, and goes when the test ends.
#[derive(Debug)]
pub struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// An empty one.
    ///
    /// # Panics
    /// If there is no room for a temporary folder.
    #[expect(clippy::new_without_default, reason = "it makes a folder on the disk")]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Where a file of this name lies.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The bytes of a file.
    ///
    /// # Panics
    /// If it cannot be read.
    pub fn read(&self, name: impl AsRef<Path>) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
    }

    /// The text of a file.
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
            // data sets of this machine's user have no part in a test
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

/// The arguments that train the network of [`TINY`]; those given come last, and win.
pub fn tiny<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    let settings = TINY.iter().flat_map(|setting| ["--set", setting]);
    std::iter::once("train").chain(settings).chain(arguments.iter().copied()).collect()
}

/// What a run of `diffuse` left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// What was asked.
    pub arguments: String,
    /// The exit code; None where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub error: String,
}

impl Finished {
    /// From what the standard library gives.
    pub fn new(arguments: &[impl AsRef<OsStr>], output: Output) -> Self {
        let arguments: Vec<_> = arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect();
        Self {
            arguments: arguments.join(" "),
            code: output.status.code(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// It must have ended well.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "{self}");
        self
    }

    /// It must have refused: exit code 1 or 2, an error that holds each of `words`, nothing on standard output, and no
    /// panic.
    ///
    /// # Panics
    /// If it did not.
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

    /// Standard output, which must be one JSON value in one line and nothing else.
    ///
    /// # Panics
    /// If it is not.
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
/// If it is none, or not whole.
#[track_caller]
pub fn png_size(bytes: &[u8]) -> (u32, u32) {
    assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n", "not a PNG");
    assert_eq!(&bytes[12..16], b"IHDR");
    assert_eq!(&bytes[bytes.len() - 8..bytes.len() - 4], b"IEND", "the PNG is not whole");
    let number = |start: usize| u32::from_be_bytes([0, 1, 2, 3].map(|offset| bytes[start + offset]));
    (number(16), number(20))
}

/// Its examples are tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
