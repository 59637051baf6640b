//! Many encoded pictures of whatever origin to one [`ImageSet`]: headers first, so that sizes and channels are known, then
//! the pictures, decoded in parallel, some at a time, into memory or the [`Cache`](crate::Cache).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use files::Action;
use rayon::prelude::*;

use crate::cache::{Content, Slot};
use crate::context::{Progress, ReadContext, Stage};
use crate::decode::{Encoded, Header};
use crate::error::DataError;
use crate::image_set::{ImageSet, evenly_spread, prepare};
use crate::loaded::{Cached, Loaded};
use crate::options::LoadOptions;
use crate::pixels::{PixelWriter, Pixels};
use crate::transform::Value;

/// A file that cannot be read, and why.
pub(crate) type Unreadable = (PathBuf, String);

/// How many bytes, decoded or not, are worked on at a time ...
const CHUNK_BYTES: usize = 64 << 20;
/// ... and how many pictures at most.
const CHUNK_PICTURES: usize = 1024;

/// What takes one picture after the other.
pub(crate) type Visitor<'a> = dyn FnMut(usize, Encoded) -> Result<(), DataError> + 'a;

/// What takes some pictures at a time.
type ChunkVisitor<'a> = dyn FnMut(&[(usize, Encoded)]) -> Result<(), DataError> + 'a;

/// Pictures by number.
pub(crate) trait Source {
    /// How many there are.
    fn len(&self) -> usize;

    /// What a picture is called in messages.
    fn title(&self, index: usize) -> PathBuf;

    /// What all their headers say, where that is known without a look at each.
    fn uniform(&self) -> Option<Header> {
        None
    }

    /// Gives the pictures at `indices`, which rise, in this order to `visit`.
    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError>;
}

/// Pictures, and what else is known of them.
pub(crate) struct Collection<'a> {
    pub name: &'a str,
    /// The folder or file they come from, for messages.
    pub root: &'a Path,
    /// The files that they are made of, and what these are called wherever `root` lies: what the cache goes by.
    pub files: Vec<(String, PathBuf)>,
    pub source: &'a dyn Source,
    /// One for each picture of the source.
    pub labels: Option<Vec<u32>>,
    pub class_names: Option<Vec<String>>,
    /// What is missing from the source already.
    pub unreadable: Vec<Unreadable>,
}

/// How the images will be.
struct Plan {
    height: usize,
    width: usize,
    channels: usize,
    sixteen_bits: bool,
    /// The pictures with a good header.
    readable: Vec<usize>,
    /// Those without one, and why.
    broken: Broken,
}

impl Plan {
    /// Bytes of an image.
    fn image_bytes(&self) -> usize {
        self.height * self.width * self.channels * if self.sixteen_bits { 2 } else { 1 }
    }
}

/// Pictures by number that cannot be read, and why.
type Broken = Vec<(usize, String)>;

/// What came of decoding.
struct Decoded {
    writer: PixelWriter,
    /// The pictures that were decoded.
    kept: Vec<usize>,
    /// How many had each size.
    sizes: BTreeMap<(usize, usize), usize>,
    broken: Broken,
}

impl Collection<'_> {
    /// Reads the pictures as `options` say.
    ///
    /// # Errors
    /// [`DataError::Unreadable`], [`DataError::MixedSizes`], [`DataError::TooLarge`], [`DataError::BadOption`], and what
    /// the source says.
    pub(crate) fn load(self, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
        let cache = context.cache.as_ref();
        let looking = |done, total| context.tell(Progress { stage: Stage::Looking, done, total });
        let mut slot = cache
            .filter(|cache| cache.is_worth_a_look(&self.files))
            .and_then(|cache| cache.slot(&self.files, options, &looking));
        if let Some((content, pixels)) = slot.as_ref().and_then(Slot::read) {
            return self.loaded(content, pixels, Cached::Read, options);
        }
        let indices: Vec<usize> = match options.limit {
            Some(limit) => evenly_spread(self.source.len(), limit).collect(),
            None => (0..self.source.len()).collect(),
        };
        let plan = self.plan(&indices, options, context)?;
        let bytes = plan.image_bytes() as u128 * plan.readable.len() as u128;
        if let (None, Some(cache)) = (&slot, cache.filter(|cache| bytes >= u128::from(cache.decoded_at_least))) {
            slot = cache.slot(&self.files, options, &looking);
            if let Some((content, pixels)) = slot.as_ref().and_then(Slot::read) {
                return self.loaded(content, pixels, Cached::Read, options);
            }
        }
        let (mut decoded, mut cached) = (None, Cached::Unused);
        if let Some(slot) = &slot {
            let mut failed = None;
            match slot.writer() {
                Err(error) => failed = Some(error.to_string()),
                Ok(writer) => match self.decode(&plan, options, writer, context, &mut failed) {
                    Ok(good) => decoded = Some(good),
                    Err(error) if failed.is_none() => return Err(error),
                    Err(_) => {}
                },
            }
            if let Some(reason) = failed {
                cached = Cached::Failed(reason);
            }
        }
        let decoded = match decoded {
            Some(decoded) => decoded,
            None => {
                let writer = PixelWriter::memory(bytes, self.root)?;
                self.decode(&plan, options, writer, context, &mut None)?
            }
        };
        let mut broken = plan.broken;
        broken.extend(decoded.broken);
        broken.sort();
        if decoded.kept.is_empty() {
            return Err(self.unreadable_error(&broken, indices.len()));
        }
        let content_size = options.size.or_else(|| decoded.sizes.keys().next().copied());
        let content = Content {
            count: decoded.kept.len(),
            height: plan.height,
            width: plan.width,
            channels: plan.channels,
            sixteen_bits: plan.sixteen_bits,
            content_size: content_size.unwrap_or((plan.height, plan.width)),
            sizes: decoded.sizes.into_iter().collect(),
            kept: decoded.kept,
            broken,
        };
        let pixels = match (decoded.writer, slot) {
            (PixelWriter::Memory(pixels), _) => Pixels::Memory(pixels),
            (PixelWriter::File(file), Some(slot)) => match slot.finish(file, &content) {
                Ok(pixels) => {
                    cached = Cached::Written;
                    pixels
                }
                Err(error) => return self.again_in_memory(options, context, error.to_string()),
            },
            (PixelWriter::File(_), None) => unreachable!("a file is written for a slot alone"),
        };
        self.loaded(content, pixels, cached, options)
    }

    /// Everything once more, because the last bytes of the cache could not be written.
    fn again_in_memory(
        self,
        options: &LoadOptions,
        context: &ReadContext,
        reason: String,
    ) -> Result<Loaded, DataError> {
        let loaded = self.load(options, &ReadContext { cache: None, progress: context.progress })?;
        Ok(Loaded { cached: Cached::Failed(reason), ..loaded })
    }

    /// Reads the headers: how the images will be, which pictures have a good header, and which have not.
    fn plan(&self, indices: &[usize], options: &LoadOptions, context: &ReadContext) -> Result<Plan, DataError> {
        let (mut readable, mut broken) = (Vec::with_capacity(indices.len()), Vec::new());
        let mut first: Option<(usize, Header)> = None;
        let mut differs = None;
        let (mut channels, mut sixteen_bits) = (1, false);
        let mut note = |index: usize, header: Header| {
            let (_, of_first) = *first.get_or_insert((index, header));
            if (header.height, header.width) != (of_first.height, of_first.width) {
                differs.get_or_insert((index, header));
            }
            channels = channels.max(header.channels);
            sixteen_bits |= header.sixteen_bits;
        };
        if let Some(header) = self.source.uniform() {
            indices.iter().take(1).for_each(|&index| note(index, header));
            readable.extend_from_slice(indices);
        } else {
            let mut done = 0;
            self.in_chunks(indices, CHUNK_PICTURES, &mut |chunk| {
                let headers: Vec<_> = chunk.par_iter().map(|(_, encoded)| encoded.header()).collect();
                for ((index, _), header) in chunk.iter().zip(headers) {
                    match header {
                        Ok(header) => {
                            note(*index, header);
                            readable.push(*index);
                        }
                        Err(reason) => broken.push((*index, reason)),
                    }
                }
                done += chunk.len();
                context.tell(Progress { stage: Stage::Looking, done, total: indices.len() });
                Ok(())
            })?;
        }
        let Some((first_index, first)) = first else {
            return Err(self.unreadable_error(&broken, indices.len()));
        };
        let all_are_there = broken.is_empty() && self.unreadable.is_empty();
        if !(options.skip_unreadable || all_are_there) {
            // so that they are all counted and named at once, those with a good header too
            self.in_chunks(&readable, CHUNK_PICTURES, &mut |chunk| {
                broken.par_extend(
                    chunk.par_iter().filter_map(|(index, encoded)| Some((*index, encoded.decode::<u8>().err()?))),
                );
                Ok(())
            })?;
            return Err(self.unreadable_error(&broken, indices.len()));
        }
        if let (None, Some((second, header))) = (options.size, differs) {
            return Err(DataError::MixedSizes {
                first: self.source.title(first_index),
                first_size: (first.height, first.width),
                second: self.source.title(second),
                second_size: (header.height, header.width),
            });
        }
        let (height, width) = options.final_size((first.height, first.width))?;
        let channels = options.channels.unwrap_or(channels);
        let sixteen_bits = sixteen_bits && options.sixteen_bits;
        Ok(Plan { height, width, channels, sixteen_bits, readable, broken })
    }

    /// Decodes and prepares the pictures of the plan. Where `writer` cannot write, `failed` says why.
    fn decode(
        &self,
        plan: &Plan,
        options: &LoadOptions,
        writer: PixelWriter,
        context: &ReadContext,
        failed: &mut Option<String>,
    ) -> Result<Decoded, DataError> {
        let image_bytes = plan.image_bytes();
        let mut decoded = Decoded { writer, kept: Vec::new(), sizes: BTreeMap::new(), broken: Vec::new() };
        let (mut done, most) = (0, (CHUNK_BYTES / image_bytes).clamp(1, CHUNK_PICTURES));
        let mut slots = Vec::new();
        self.in_chunks(&plan.readable, most, &mut |chunk| {
            slots.resize(chunk.len() * image_bytes, 0);
            let outcomes: Vec<_> = slots
                .par_chunks_exact_mut(image_bytes)
                .zip(chunk)
                .map(|(slot, (_, encoded))| match plan.sixteen_bits {
                    true => decode_into::<u16>(encoded, plan.channels, options, slot),
                    false => decode_into::<u8>(encoded, plan.channels, options, slot),
                })
                .collect();
            for ((slot, (index, _)), outcome) in slots.chunks_exact(image_bytes).zip(chunk).zip(outcomes) {
                match outcome {
                    Ok(size) => {
                        decoded.writer.write(slot).map_err(|error| {
                            *failed = Some(error.to_string());
                            DataError::io(Action::Write, self.root, error)
                        })?;
                        decoded.kept.push(*index);
                        *decoded.sizes.entry(size).or_insert(0) += 1;
                    }
                    Err(reason) => decoded.broken.push((*index, reason)),
                }
            }
            done += chunk.len();
            context.tell(Progress { stage: Stage::Decoding, done, total: plan.readable.len() });
            Ok(())
        })?;
        Ok(decoded)
    }

    /// Works on at most `most` pictures at a time.
    fn in_chunks(&self, indices: &[usize], most: usize, work: &mut ChunkVisitor<'_>) -> Result<(), DataError> {
        let (mut chunk, mut held) = (Vec::new(), 0);
        self.source.visit(indices, &mut |index, encoded| {
            held += encoded.held();
            chunk.push((index, encoded));
            if chunk.len() >= most || held >= CHUNK_BYTES {
                work(&chunk)?;
                chunk.clear();
                held = 0;
            }
            Ok(())
        })?;
        if chunk.is_empty() { Ok(()) } else { work(&chunk) }
    }

    fn loaded(
        self,
        content: Content,
        pixels: Pixels,
        cached: Cached,
        options: &LoadOptions,
    ) -> Result<Loaded, DataError> {
        let all_are_there = content.broken.is_empty() && self.unreadable.is_empty();
        if !(options.skip_unreadable || all_are_there) {
            return Err(self.unreadable_error(&content.broken, content.kept.len() + content.broken.len()));
        }
        let shape = [content.count, content.height, content.width, content.channels];
        let classes = self.labels.as_ref().and_then(|labels| labels.iter().max()).map(|&largest| largest as usize + 1);
        let labels = self.labels.map(|labels| content.kept.iter().map(|&index| labels[index]).collect());
        let images =
            ImageSet::of_pixels(self.name.to_string(), pixels, content.sixteen_bits, shape, labels, self.class_names)?
                .with_classes_of(classes)
                .with_content_size(content.content_size)
                .with_source_sizes(content.sizes.into_iter().collect());
        let broken = content.broken.into_iter().map(|(index, reason)| (self.source.title(index), reason));
        let mut skipped: Vec<Unreadable> = self.unreadable.into_iter().chain(broken).collect();
        skipped.sort();
        Ok(Loaded { images, skipped, source: self.root.display().to_string(), cached })
    }

    fn unreadable_error(&self, broken: &[(usize, String)], tried: usize) -> DataError {
        let broken = broken.iter().map(|(index, reason)| (self.source.title(*index), reason.clone()));
        let mut unreadable: Vec<Unreadable> = self.unreadable.iter().cloned().chain(broken).collect();
        unreadable.sort();
        let mut lines: Vec<String> =
            unreadable.iter().take(5).map(|(path, reason)| format!("  {}: {reason}", path.display())).collect();
        if unreadable.len() > 5 {
            lines.push(format!("  and {} more", unreadable.len() - 5));
        }
        let total = tried + self.unreadable.len();
        let path = self.root.to_path_buf();
        DataError::Unreadable { path, count: unreadable.len(), total, first: lines.join("\n") }
    }
}

/// Decodes a picture and prepares it into `slot`; gives its height and width before that.
fn decode_into<V: Value>(
    encoded: &Encoded,
    channels: usize,
    options: &LoadOptions,
    slot: &mut [u8],
) -> Result<(usize, usize), String> {
    let picture = encoded.decode::<V>()?;
    let prepared = prepare(&picture, channels, options).map_err(|error| error.to_string())?;
    if size_of_val(prepared.pixels()) != slot.len() {
        return Err("changed while it was read".to_string());
    }
    V::write_bytes(prepared.pixels(), slot);
    Ok((picture.height(), picture.width()))
}
