//! NumPy arrays: `.npy`, and several of them in an `.npz`, as `numpy.save` and `numpy.savez` write them; see
//! <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
//!
//! Images are `[count, height, width]`, `[count, height, width, channels]` or `[count, channels, height, width]`, or one picture
//! without the count, in either order, of integers, floats or bool; labels `[count]`, `[count, 1]` or one-hot `[count, classes]`,
//! of whole numbers, strings or bool.

mod labels;
mod layout;
#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};

use crate::account::{Account, Weight};
use crate::classes::Classes;
use crate::collect::{Collection, Source, Visitor};
use crate::context::ReadContext;
use crate::decode::{Bare, Encoded, Header};
use crate::disk::{self, file_name};
use crate::error::DataError;
use crate::guard::guarded;
use crate::idx::LARGEST_GZIP_RATIO;
use crate::listing::Use;
use crate::loaded::Loaded;
use crate::numbers::{Kind, NumberType};
use crate::options::{ClassFrom, LoadOptions, Split};
use crate::pixels::{allocate, allocate_free};
use crate::range::{Extremes, Range};
use crate::zipped;

use layout::Layout;

/// The usual names of an archive's arrays of images and of their labels, in any letter case, for training ...
const TRAINING: [[&str; 2]; 9] = [
    ["arr_0", "arr_1"],
    ["images", "labels"],
    ["image", "label"],
    ["x_train", "y_train"],
    ["train_images", "train_labels"],
    ["train_x", "train_y"],
    ["train_data", "train_labels"],
    ["x", "y"],
    ["data", "labels"],
];
/// ... and for testing.
const TESTING: [[&str; 2]; 4] =
    [["x_test", "y_test"], ["test_images", "test_labels"], ["test_x", "test_y"], ["test_data", "test_labels"]];

/// The usual names of labels beside images of another name.
const LABELS: [&str; 9] = ["labels", "label", "y", "targets", "target", "classes", "class", "y_train", "train_labels"];

/// Arrays of an archive whose headers are read to find out what they hold, at most.
const LOOKED_AT: usize = 64;

/// Bytes that are looked at together to find the range of numbers: a multiple of all sizes.
const PIECE: usize = 1 << 13;

/// Bytes of a header at most: the limit of NumPy itself.
const LARGEST_HEADER: usize = 10_000;

/// The place of an array.
struct Place {
    /// Its file; in an archive, `ARCHIVE/NAME.npy`.
    path: PathBuf,
    /// The archive, and the number of the array in it.
    part: Option<(PathBuf, usize)>,
}

impl Place {
    fn bad(&self, problem: String) -> DataError {
        DataError::bad_file(&self.path, problem)
    }

    fn cannot_be_read(&self, error: std::io::Error) -> DataError {
        self.bad(format!("cannot be read: {error}; get it again"))
    }

    /// Reads the header, and passes it and the stream of the values to `work`.
    fn read<R>(&self, work: impl FnOnce(Array, &mut dyn Read) -> Result<R, DataError>) -> Result<R, DataError> {
        let Some((archive, number)) = &self.part else {
            let (file, length) = disk::open(&self.path)?;
            let mut file = BufReader::with_capacity(1 << 18, file);
            return work(self.read_header(&mut file, length)?, &mut file);
        };
        let mut archive = zipped::open(archive)?;
        let mut part = archive.by_index(*number).map_err(|error| self.cannot_be_read(error.into()))?;
        let (packed, length) = (part.compressed_size(), part.size());
        if length > packed.saturating_mul(LARGEST_GZIP_RATIO).saturating_add(1024) {
            let problem = format!("claims to have {length} bytes, which {packed} cannot be unpacked to; get it again");
            return Err(self.bad(problem));
        }
        work(self.read_header(&mut part, length)?, &mut part)
    }

    /// Reads the bytes of a header: the start of the file, the length and the text of that length.
    fn header_bytes(&self, reader: &mut dyn Read) -> Result<Vec<u8>, DataError> {
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::UnexpectedEof => self.bad("ends within its header; it is truncated, get it again".into()),
            _ => self.cannot_be_read(error),
        };
        let mut start = vec![0; 8];
        reader.read_exact(&mut start).map_err(failed)?;
        if !start.starts_with(b"\x93NUMPY") {
            return Err(self.bad("is no NumPy array: it does not start with \\x93NUMPY".into()));
        }
        // version 1 has a shorter length than the later ones
        let width = if start[6] >= 2 { 4 } else { 2 };
        let mut length = [0; 4];
        reader.read_exact(&mut length[..width]).map_err(failed)?;
        start.extend(&length[..width]);
        let length = u32::from_le_bytes(length) as usize;
        if length > LARGEST_HEADER {
            return Err(self.bad(format!("its header claims to have {length} bytes, more than {LARGEST_HEADER}")));
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).map_err(failed)?;
        // the parser calls itself for each bracket
        if text.iter().filter(|byte| b"([{".contains(byte)).count() > 16 {
            return Err(self.bad("its header has too many brackets for an array of numbers".into()));
        }
        start.extend(text);
        Ok(start)
    }

    /// Reads a header; the array has `bytes` bytes in its file, and its header must claim as many.
    fn read_header(&self, reader: &mut dyn Read, bytes: u64) -> Result<Array, DataError> {
        let start = self.header_bytes(reader)?;
        let header = guarded(|| NpyHeader::from_reader(start.as_slice()))
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|error| self.bad(format!("its header cannot be read: {error}")))?;
        let DType::Plain(plain) = header.dtype() else {
            return Err(self.bad("holds records; an array of numbers is expected".into()));
        };
        if plain.uses_pickled_array() {
            let advice = "save numbers or strings, such as `x.astype(\"uint8\")` or `x.astype(str)`";
            return Err(self.bad(format!("holds pickled objects of Python, which are not read; {advice}")));
        }
        let (shape, item_bytes) = (header.shape().to_vec(), plain.num_bytes().unwrap_or(0));
        if item_bytes == 0 {
            return Err(self.bad(format!("holds values of type {plain}, of 0 bytes")));
        }
        let claimed = shape.iter().try_fold(item_bytes as u64, |product, &side| product.checked_mul(side));
        let length = bytes.saturating_sub(start.len() as u64);
        if claimed != Some(length) {
            return Err(self.bad(format!(
                "its header claims {shape:?} values of {item_bytes} bytes, but {length} bytes follow; get it again"
            )));
        }
        let big_endian = plain.endianness() == Endianness::Big;
        let (kind, item) = match plain.type_char() {
            TypeChar::Bool => (Some(Kind::Bool), Item::Other),
            TypeChar::Int => (Some(Kind::Int), Item::Int),
            TypeChar::Uint => (Some(Kind::Uint), Item::Other),
            TypeChar::Float => (Some(Kind::Float), Item::Other),
            TypeChar::ByteStr => (None, Item::Bytes),
            TypeChar::UnicodeStr => (None, Item::Text),
            _ => (None, Item::Other),
        };
        Ok(Array {
            shape,
            numbers: kind.and_then(|kind| NumberType::new(kind, item_bytes, big_endian)),
            item,
            item_bytes,
            big_endian,
            column_major: header.order() == Order::Fortran,
            type_string: plain.to_string(),
            length,
        })
    }

    /// The header.
    fn header(&self) -> Result<Array, DataError> {
        self.read(|array, _| Ok(array))
    }

    /// All values of an array, as they lie in the file.
    fn whole(&self, array: &Array, values: &mut dyn Read) -> Result<Vec<u8>, DataError> {
        let mut bytes = allocate_free(array.length.into(), &self.path).map_err(|_| {
            let order =
                if array.column_major { " in Fortran order; save `numpy.ascontiguousarray(x)` instead" } else { "" };
            self.bad(format!("its {} bytes do not fit into memory{order}", array.length))
        })?;
        values.take(array.length).read_to_end(&mut bytes).map_err(|error| self.cannot_be_read(error))?;
        if bytes.len() as u64 != array.length {
            return Err(self.bad("is truncated; get it again".into()));
        }
        Ok(bytes)
    }

    /// The classes of `count` images; where the array, which was not asked for by name, has none, the account says why.
    fn classes(&self, count: usize, is_named: bool, account: &mut Account) -> Result<Classes, DataError> {
        let values = self.read(|array, values| {
            array.check_labels(count).map_err(|problem| self.bad(problem))?;
            let bytes = self.whole(&array, values)?;
            match array.labels(&bytes, account, &file_name(&self.path)) {
                Ok(values) => Ok(Some(values)),
                Err(problem) if is_named => Err(self.bad(problem)),
                Err(problem) => {
                    labels::leave_out(account, &file_name(&self.path), &problem);
                    Ok(None)
                }
            }
        })?;
        values.map_or_else(|| Ok(Classes::default()), |values| Classes::by_value(&self.path, values, None))
    }

    /// The extremes of all numbers of an array that are finite.
    fn extremes(&self) -> Result<Option<Extremes>, DataError> {
        self.read(|array, values| {
            let (mut left, mut all) = (array.length, None::<Extremes>);
            let (mut piece, mut wide) = (Vec::new(), Vec::new());
            while let (true, Some(numbers)) = (left > 0, array.numbers) {
                piece.clear();
                let wanted = left.min(PIECE as u64);
                values.take(wanted).read_to_end(&mut piece).map_err(|error| self.cannot_be_read(error))?;
                if piece.len() as u64 != wanted {
                    return Err(self.cannot_be_read(ErrorKind::UnexpectedEof.into()));
                }
                left -= wanted;
                numbers.each(&piece, |number| wide.push(number));
                all = all.into_iter().chain(Extremes::of(wide.drain(..))).reduce(Extremes::and);
            }
            Ok(all)
        })
    }
}

/// The items of an array that are no numbers, or integers with a sign.
enum Item {
    Int,
    Bytes,
    /// Code points of 4 bytes.
    Text,
    Other,
}

/// The header of an array.
struct Array {
    shape: Vec<u64>,
    /// The type of numbers; `None` for others.
    numbers: Option<NumberType>,
    item: Item,
    item_bytes: usize,
    big_endian: bool,
    column_major: bool,
    /// The type in the header.
    type_string: String,
    /// Bytes of values.
    length: u64,
}

impl Array {
    /// The type in words.
    fn type_name(&self) -> String {
        match (self.numbers, &self.item) {
            (Some(numbers), _) => numbers.to_string(),
            (None, Item::Bytes | Item::Text) => "strings".to_string(),
            _ => format!("values of type {}", self.type_string),
        }
    }

    /// Whether it may hold images, by its shape.
    fn may_be_images(&self) -> bool {
        self.numbers.is_some() && self.shape.len() >= 3
    }

    /// Whether it may hold the labels of `count` images.
    fn may_be_labels(&self, count: usize) -> bool {
        let is_of_classes = self.numbers.is_none_or(NumberType::is_integer);
        is_of_classes && self.check_labels(count).is_ok() && self.shape.iter().skip(1).all(|&side| side == 1)
    }
}

/// Pictures that are rows of an array.
struct Rows {
    place: Place,
    layout: Layout,
    /// Whether the options have a range.
    is_given: bool,
    /// The range that was found by looking at all values.
    found: OnceCell<Range>,
}

impl Rows {
    /// The range of the values; `None` where it is given or that of their type.
    fn range(&self) -> Result<Option<Range>, DataError> {
        let numbers = self.layout.numbers;
        if self.is_given || numbers.range().is_some() {
            return Ok(None);
        }
        if let Some(range) = self.found.get() {
            return Ok(Some(*range));
        }
        // where no number is finite, each picture is refused by itself
        let found = self.place.extremes()?.unwrap_or(Extremes { least: 0.0, greatest: 1.0, count: 0 });
        let title = self.place.path.display().to_string();
        let range = Range::usual_or_ask(found, numbers.is_integer(), &title)?;
        if !numbers.holds(range.high) {
            return Err(Range::ask(found, numbers.is_integer(), &title));
        }
        Ok(Some(*self.found.get_or_init(|| range)))
    }

    /// Passes the pictures of an array in Fortran order, whose values lie apart.
    fn visit_apart(
        &self,
        strides: [usize; 4],
        indices: &[usize],
        visit: &mut dyn FnMut(usize, Vec<u8>) -> Result<(), DataError>,
    ) -> Result<(), DataError> {
        let header = self.layout.header;
        let item = self.layout.numbers.bytes();
        let whole = self.place.read(|array, values| self.place.whole(&array, values))?;
        let [of_image, of_row, of_column, of_channel] = strides;
        for &index in indices {
            let mut bytes = allocate(self.layout.image_bytes() as u128, &self.place.path)?;
            for row in 0..header.height {
                for column in 0..header.width {
                    for channel in 0..header.channels {
                        let at = index * of_image + row * of_row + column * of_column + channel * of_channel;
                        bytes.extend_from_slice(&whole[at * item..][..item]);
                    }
                }
            }
            visit(index, bytes)?;
        }
        Ok(())
    }
}

impl Source for Rows {
    fn len(&self) -> usize {
        self.layout.count
    }

    fn title(&self, index: usize) -> PathBuf {
        PathBuf::from(format!("{}: image {index}", self.place.path.display()))
    }

    fn uniform(&self) -> Option<Header> {
        Some(self.layout.header)
    }

    fn decisions(&self) -> Vec<String> {
        let sentence = |range: &Range| {
            format!(
                "values from {} to {} were taken as black to white ({})",
                range.low, range.high, self.layout.numbers
            )
        };
        self.found.get().map(sentence).into_iter().collect()
    }

    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError> {
        let range = self.range()?;
        let Layout { header, planar, numbers, strides, .. } = self.layout;
        let mut bare =
            |index, planar, bytes| visit(index, Encoded::Bare(Bare { header, planar, numbers, range, bytes }));
        if let Some(strides) = strides {
            return self.visit_apart(strides, indices, &mut |index, bytes| bare(index, false, bytes));
        }
        let image_bytes = self.layout.image_bytes();
        let failed = |error| self.place.cannot_be_read(error);
        self.place.read(|_, values| {
            let mut at = 0;
            for &index in indices {
                let skipped = (index - at) as u64 * image_bytes as u64;
                std::io::copy(&mut values.take(skipped), &mut std::io::sink()).map_err(failed)?;
                let mut bytes = allocate(image_bytes as u128, &self.place.path)?;
                values.take(image_bytes as u64).read_to_end(&mut bytes).map_err(failed)?;
                if bytes.len() != image_bytes {
                    return Err(failed(ErrorKind::UnexpectedEof.into()));
                }
                at = index + 1;
                bare(index, planar, bytes)?;
            }
            Ok(())
        })
    }
}

/// The arrays of a dataset.
struct Arrays<'a> {
    name: &'a str,
    /// The file that they lie in.
    root: &'a Path,
    images: Place,
    labels: Option<Place>,
    account: Account,
}

impl Arrays<'_> {
    /// Reads them.
    fn load(self, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
        let Self { name, root, images, labels, mut account } = self;
        let label_shape = labels.as_ref().map(|place| Ok::<_, DataError>(place.header()?.shape)).transpose()?;
        let label_count = label_shape.and_then(|shape| shape.first().copied());
        let layout = images.header()?.layout(label_count).map_err(|problem| images.bad(problem))?;
        layout.decision.iter().for_each(|decision| account.decided(decision));
        let classes = match labels.filter(|_| options.class_from != ClassFrom::None) {
            Some(place) => place.classes(layout.count, options.label_column.is_some(), &mut account)?,
            None => Classes::default(),
        };
        // one file may hold several arrays of images
        let files = vec![(file_name(&images.path), root.to_path_buf())];
        let is_given = options.range.is_some();
        let source = Rows { place: images, layout, is_given, found: OnceCell::new() };
        Collection { name, root, files, source: &source, classes, unreadable: Vec::new(), account }
            .load(options, context)
    }
}

/// Reads the array of images at `path`, and the array of labels beside it, if there is one.
pub(crate) fn load_npy(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    if options.split == Split::Test {
        let problem = format!("an array has no splits; name the array of test images ({})", path.display());
        return Err(DataError::bad_option("split", problem));
    }
    let place = |path: PathBuf| Place { path, part: None };
    let (images, labels) = (place(path.to_path_buf()), labels_beside(path).map(place));
    let mut account = Account::default();
    if let Some(labels) = &labels {
        account.decided(format!("labels are the array {}", labels.path.display()));
    }
    Arrays { name, root: path, images, labels, account }.load(options, context)
}

/// The name of the labels of the array of images `images`, if that has a usual name.
fn usual_labels(images: &str) -> Option<&'static str> {
    TRAINING.iter().chain(&TESTING).find(|[usual, _]| usual.eq_ignore_ascii_case(images)).map(|[_, labels]| *labels)
}

/// The array of labels beside one of images: `x_train.npy` and `y_train.npy`, `images.npy` and `labels.npy`, `cats.npy` and
/// `cats_labels.npy`, in any letter case.
fn labels_beside(images: &Path) -> Option<PathBuf> {
    let stem = images.file_stem()?.to_str()?.to_ascii_lowercase();
    let folder = images.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = disk::list(folder).ok()?;
    beside.sort();
    [stem.replace("images", "labels"), format!("{stem}_labels")]
        .into_iter()
        .chain(usual_labels(&stem).map(String::from))
        .filter(|name| *name != stem)
        .map(|name| format!("{name}.npy"))
        .find_map(|name| beside.iter().find(|path| file_name(path).eq_ignore_ascii_case(&name) && path.is_file()))
        .map(|path| images.with_file_name(path.file_name().unwrap_or_default()))
}

/// The arrays of an archive.
struct Archive<'a> {
    path: &'a Path,
    /// Their names, and their numbers in the archive.
    arrays: Vec<(String, usize)>,
}

impl Archive<'_> {
    fn names(&self) -> String {
        self.arrays.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn find(&self, name: &str) -> Option<Place> {
        let (_, number) = self.arrays.iter().find(|(array, _)| array == name)?;
        let path = self.path.join(format!("{name}.npy"));
        Some(Place { path, part: Some((self.path.to_path_buf(), *number)) })
    }

    /// The array of a usual name, in any letter case.
    fn usual(&self, usual: &str) -> Option<&str> {
        let names = || self.arrays.iter().map(|(name, _)| name.as_str());
        names().find(|name| *name == usual).or_else(|| names().find(|name| name.eq_ignore_ascii_case(usual)))
    }

    fn named(&self, key: &'static str, name: &str) -> Result<Place, DataError> {
        let problem = || format!("{} has no array `{name}`; it has: {}", self.path.display(), self.names());
        self.find(name).ok_or_else(|| DataError::bad_option(key, problem()))
    }

    /// The arrays whose header is as `is_wanted` says.
    fn like(&self, is_wanted: impl Fn(&Array) -> bool) -> Vec<&str> {
        let is_like =
            |name: &&str| self.find(name).and_then(|place| place.header().ok()).is_some_and(|array| is_wanted(&array));
        self.arrays.iter().take(LOOKED_AT).map(|(name, _)| name.as_str()).filter(is_like).collect()
    }

    /// The name of the array of images.
    fn images(&self, options: &LoadOptions, account: &mut Account) -> Result<String, DataError> {
        if let Some(given) = &options.image_column {
            return Ok(given.clone());
        }
        let usual = if options.split == Split::Train { &TRAINING[..] } else { &TESTING[..] };
        if let Some(images) = usual.iter().find_map(|[images, _]| self.usual(images)) {
            return Ok(images.to_string());
        }
        if options.split == Split::Test {
            let problem = format!("{} has no array of test images; it has: {}", self.path.display(), self.names());
            return Err(DataError::bad_option("split", problem));
        }
        if let [(only, _)] = &self.arrays[..] {
            return Ok(only.clone());
        }
        if let [images] = self.like(Array::may_be_images)[..] {
            account.decided(format!("images are the array `{images}`, the only one with three or more axes"));
            return Ok(images.to_string());
        }
        let problem = format!("{}: which array holds the images? it has: {}", self.path.display(), self.names());
        Err(DataError::bad_option("image_column", problem))
    }

    /// The name of the array of labels of `images`.
    fn labels(&self, images: &str, options: &LoadOptions) -> Option<String> {
        if let Some(given) = &options.label_column {
            return Some(given.clone());
        }
        let count = self.first_side(images);
        let is_as_many = |name: &&str| count.is_some() && self.first_side(name) == count;
        let other = LABELS.iter().filter(|_| options.split == Split::Train).filter_map(|name| self.usual(name));
        let usual = usual_labels(images).and_then(|name| self.usual(name));
        usual.or_else(|| other.filter(|name| *name != images).find(is_as_many)).map(String::from)
    }

    /// The first number of the shape of an array.
    fn first_side(&self, name: &str) -> Option<u64> {
        self.find(name)?.header().ok()?.shape.first().copied()
    }

    /// Notes the arrays that are not used: neither `images` nor `labels`, nor those of the other split.
    fn leave_out(&self, images: &str, labels: Option<&str>, account: &mut Account) {
        let is_one_of =
            |pairs: &[[&str; 2]], name: &str| pairs.iter().flatten().any(|pair| pair.eq_ignore_ascii_case(name));
        let (read, other) =
            if is_one_of(&TESTING, images) { (Split::Test, &TRAINING[..]) } else { (Split::Train, &TESTING[..]) };
        let is_of_other_split = |name: &str| is_one_of(other, name) || is_of_validation(name);
        let is_used = |name: &str| name == images || Some(name) == labels;
        // labels under another name are no small loss
        let count = self.first_side(images).filter(|_| labels.is_none()).and_then(|count| usize::try_from(count).ok());
        let like_labels = count.map_or_else(Vec::new, |count| self.like(|array| array.may_be_labels(count)));
        for (name, _) in self.arrays.iter().filter(|(name, _)| !is_used(name)) {
            let (weight, reason) = if let (true, Use::Not(reason)) = (is_of_other_split(name), Use::other_split(read)) {
                (Weight::Note, reason.to_string())
            } else if like_labels.contains(&name.as_str()) {
                (
                    Weight::Doubt,
                    format!(
                        "may be labels; take them with `data.label_column = \"{name}\"`, or set `data.class_from = \"none\"`"
                    ),
                )
            } else {
                (
                    Weight::Note,
                    "hold neither the images nor their labels; `data.image_column` names other images".to_string(),
                )
            };
            account.leave_out(weight, format!("arrays of {}", file_name(self.path)), reason, name);
        }
    }
}

/// Whether an array is one of a validation split, by its name: `x_val`, `valid_images`.
fn is_of_validation(name: &str) -> bool {
    name.to_ascii_lowercase().split('_').any(|word| matches!(word, "val" | "valid" | "validation"))
}

/// Reads the array of images of the archive at `path`, and the array of labels, if there is one: those that the options name,
/// else those with a usual name.
pub(crate) fn load_npz(
    name: &str,
    path: &Path,
    options: &LoadOptions,
    context: &ReadContext,
) -> Result<Loaded, DataError> {
    let zip = zipped::open(path)?;
    let mut account = Account::default();
    let mut arrays = Vec::new();
    for number in 0..zip.len() {
        let Some(Ok(name)) = zip.name_for_index(number) else { continue };
        match name.strip_suffix(".npy") {
            Some(array) => arrays.push((array.to_string(), number)),
            None => account.leave_out(Weight::Note, format!("files in {}", file_name(path)), "are no `.npy`", name),
        }
    }
    let archive = Archive { path, arrays };
    let images = archive.images(options, &mut account)?;
    let labels = archive.labels(&images, options);
    let place = archive.named("image_column", &images)?;
    let of_labels = labels.as_ref().map(|labels| archive.named("label_column", labels)).transpose()?;
    if options.class_from == ClassFrom::None {
        // no labels are missed
        archive.leave_out(&images, labels.as_deref().or(Some("")), &mut account);
    } else {
        archive.leave_out(&images, labels.as_deref(), &mut account);
        let usual = usual_labels(&images).and_then(|name| archive.usual(name));
        let is_usual = labels.as_deref() == usual || options.label_column.is_some();
        labels
            .iter()
            .filter(|_| !is_usual)
            .for_each(|labels| account.decided(format!("labels are the array `{labels}`")));
    }
    Arrays { name, root: path, images: place, labels: of_labels, account }.load(options, context)
}
