//! The folders that named datasets lie in.

use std::path::PathBuf;

/// The folders in which named datasets are looked for.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// Folders of datasets (`ROOT/NAME/…`), in this order: `$DIFFUSE_DATASETS`, then `datasets/` in the current
    /// directory and in each above it.
    pub roots: Vec<PathBuf>,
    /// The folder in which [`fetch()`](crate::fetch()) keeps them: `$XDG_CACHE_HOME/diffuse/datasets`, else
    /// `$HOME/.cache/diffuse/datasets`.
    pub cache: Option<PathBuf>,
    /// The folder in which packages of the system install them: `/usr/share/datasets` on Debian.
    pub system: Option<PathBuf>,
}

impl Places {
    /// The places that the environment names.
    pub fn from_environment() -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut roots: Vec<PathBuf> = variable("DIFFUSE_DATASETS").into_iter().collect();
        if let Ok(current) = std::env::current_dir() {
            roots.extend(current.ancestors().map(|folder| folder.join("datasets")).filter(|folder| folder.is_dir()));
        }
        // the XDG specification: a relative path is to be ignored
        let cache = variable("XDG_CACHE_HOME")
            .filter(|folder| folder.is_absolute())
            .or_else(|| variable("HOME").map(|home| home.join(".cache")))
            .map(|folder| folder.join("diffuse").join("datasets"));
        Self { roots, cache, system: Some(PathBuf::from("/usr/share/datasets")) }
    }

    /// The folders in which the dataset `name` may lie, in order.
    pub(crate) fn folders(&self, name: &str) -> Vec<PathBuf> {
        self.roots.iter().chain(&self.cache).chain(&self.system).map(|root| root.join(name)).collect()
    }
}
