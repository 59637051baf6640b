//! Pictures in archives that are read as a folder: what zips and tars have in common.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::{Encoded, Reason};
use crate::error::DataError;
use crate::listing::Listing;
use crate::loaded::Loaded;
use crate::options::LoadOptions;
use crate::tree::Tree;

/// Reads the file at a place.
type Reader<'a, Place> = dyn Fn(&Place) -> Result<Vec<u8>, Reason> + 'a;

/// The files of one or more archives.
pub(crate) struct Archives<'a, Place> {
    /// The archive, or the folder of several, for messages.
    pub root: &'a Path,
    /// The archives: with the pictures that are chosen, the key of the cache.
    pub paths: Vec<PathBuf>,
    /// Whether they are shards of one data set, whose pictures have no classes but those in files beside them.
    pub are_shards: bool,
    /// The files by their paths in the archive; in shards, after its name.
    pub places: BTreeMap<PathBuf, Place>,
    /// Reads the first bytes of a file; none where it cannot be read.
    pub first_bytes: &'a dyn Fn(&Place) -> Vec<u8>,
    /// Reads a file.
    pub read: &'a Reader<'a, Place>,
    /// What was left out, beside this number of pictures.
    pub account: &'a dyn Fn(usize) -> Account,
}

impl<Place> Archives<'_, Place> {
    /// Reads the pictures as `options` say: [`crate::folder::load`], in archives.
    ///
    /// # Errors
    /// Those of a folder, and [`DataError::BadOption`] for classes or splits that several archives cannot have.
    pub(crate) fn load(self, name: &str, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
        let Self { root, places, read, .. } = self;
        let first_bytes = |inner: &Path| places.get(inner).map(self.first_bytes).unwrap_or_default();
        let files = Listing::of(places.keys().cloned(), &first_bytes);
        let exists = |inner: &Path| places.contains_key(inner);
        let table = |inner: &Path| {
            let Some(place) = places.get(inner) else { return Ok(None) };
            read(place).map(Some).map_err(|reason| DataError::bad_file(&root.join(inner), reason.to_string()))
        };
        let account = (self.account)(files.pictures.len());
        let tree = Tree { root, files, unreadable: Vec::new(), account, exists: &exists, table: &table };
        let pictures = if self.are_shards { tree.shards(options)? } else { tree.pictures(options)? };
        let key = pictures.key();
        let place = |inner: &PathBuf| Some((pictures.folder.join(inner), places.get(&pictures.part.join(inner))?));
        Collection {
            name,
            root: &pictures.folder,
            files: self.paths.into_iter().enumerate().map(|(at, path)| (format!("{key} {at}"), path)).collect(),
            source: &Parts { places: pictures.paths.iter().filter_map(place).collect(), read },
            classes: pictures.classes,
            unreadable: pictures.unreadable,
            account: pictures.account,
        }
        .load(options, context)
    }
}

/// Pictures that are parts of archives.
struct Parts<'a, Place> {
    /// The paths, for messages, and the places.
    places: Vec<(PathBuf, &'a Place)>,
    read: &'a Reader<'a, Place>,
}

impl<Place> Source for Parts<'_, Place> {
    fn len(&self) -> usize {
        self.places.len()
    }

    fn title(&self, index: usize) -> PathBuf {
        self.places[index].0.clone()
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        indices.iter().try_for_each(|&index| {
            let bytes = (self.read)(self.places[index].1);
            visit(index, bytes.map_or_else(|reason| Encoded::Broken(reason.to_string()), Encoded::Bytes))
        })
    }
}
