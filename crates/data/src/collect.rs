//! From many encoded pictures of one source to an [`ImageSet`]: headers first, so that sizes and channels are known, then
//! the pictures, decoded in parallel, a chunk at a time, into memory or the [`Cache`](crate::Cache).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::account::Account;
use crate::cache::{Content, Slot};
use crate::channels::{Channels, Seen, Traits, keep_first};
use crate::classes::Classes;
use crate::context::{ReadContext, Stage};
use crate::decode::{Encoded, Header, Look, Reason};
use crate::error::DataError;
use crate::image_set::{ImageSet, evenly_spread, prepare};
use crate::levels::Levels;
use crate::loaded::{Cached, Loaded};
use crate::options::LoadOptions;
use crate::pixels::{Pixels, allocate_free};
use crate::range::{Extremes, Range};
use crate::remark::{Pictures, Remark};
use crate::titles::Titles;
use crate::transform::Value;

/// A file that cannot be read, and the reason.
pub(crate) type Unreadable = (PathBuf, String);

/// Bytes of a chunk, decoded or not, ...
const CHUNK_BYTES: usize = 64 << 20;
/// ... and pictures of a chunk at most.
const CHUNK_PICTURES: usize = 1024;

/// Takes one picture after the other.
pub(crate) type Visitor<'a> = dyn FnMut(usize, Encoded) -> Result<(), DataError> + 'a;

/// Takes a chunk of pictures.
type ChunkVisitor<'a> = dyn FnMut(&[(usize, Encoded)]) -> Result<(), DataError> + 'a;

/// Takes the values of one image after the other.
type Writer<'a> = dyn FnMut(&[u8]) -> Result<(), DataError> + 'a;

/// Pictures by index.
pub(crate) trait Source {
    /// The number of pictures.
    fn len(&self) -> usize;

    /// The name of a picture in messages.
    fn title(&self, index: usize) -> PathBuf;

    /// The header of every picture, where all have the same.
    fn uniform(&self) -> Option<Header> {
        None
    }

    /// What it decided while the pictures were visited, a sentence each.
    fn decisions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Passes the pictures at `indices`, which ascend, to `visit` in this order.
    fn visit(&self, indices: &[usize], visit: &mut Visitor<'_>) -> Result<(), DataError>;
}

/// The pictures of a source with their classes.
pub(crate) struct Collection<'a> {
    pub name: &'a str,
    /// The folder or file of the source, for messages.
    pub root: &'a Path,
    /// The files of the source, and their names wherever `root` lies: the key of the cache.
    pub files: Vec<(String, PathBuf)>,
    pub source: &'a dyn Source,
    /// A label for each picture of the source.
    pub classes: Classes,
    /// Pictures that are missing from the source.
    pub unreadable: Vec<Unreadable>,
    /// What the reader chose and left out.
    pub account: Account,
}

/// The format of the images.
struct Plan {
    height: usize,
    width: usize,
    channels: Channels,
    sixteen_bits: bool,
    /// The range of numbers of TIFF files that have none of their own.
    found_range: Option<Range>,
    /// The number of pictures that are tried.
    tried: usize,
    /// The pictures with a good header.
    readable: Vec<usize>,
    /// The pictures without one, and the reasons.
    broken: Vec<(usize, String)>,
}

impl Plan {
    /// Bytes of one image.
    fn image_bytes(&self) -> usize {
        self.height * self.width * self.channels.count * self.value_bytes()
    }

    fn value_bytes(&self) -> usize {
        if self.sixteen_bits { 2 } else { 1 }
    }

    /// Bytes of all images.
    fn bytes(&self) -> u128 {
        self.image_bytes() as u128 * self.readable.len() as u128
    }
}

impl Collection<'_> {
    /// Reads the pictures as `options` say.
    ///
    /// # Errors
    /// [`DataError::Unreadable`], [`DataError::MixedSizes`], [`DataError::TooLarge`], [`DataError::BadOption`], and the
    /// errors of the source.
    pub(crate) fn load(self, options: &LoadOptions, context: &ReadContext) -> Result<Loaded, DataError> {
        let cache = context.cache.as_ref();
        let is_large = cache.is_some_and(|cache| cache.is_worth_a_look(&self.files));
        // images of small files are cached only if they are large, which the headers show; the headers of large files are read
        // only if the cache lacks their images
        let plan = if is_large { None } else { Some(self.plan(options, context)?) };
        let is_kept = |least: u64| plan.as_ref().is_none_or(|plan| plan.bytes() >= u128::from(least));
        let looking = |done, total| context.report(Stage::Looking, done, total);
        let slot = cache
            .filter(|cache| is_kept(cache.decoded_at_least))
            .and_then(|cache| cache.slot(&self.files, options, &looking));
        if let Some((content, pixels)) = slot.as_ref().and_then(Slot::read) {
            return self.loaded(content, pixels, Cached::Read, options);
        }
        let plan = plan.map_or_else(|| self.plan(options, context), Ok)?;
        let written = slot.map(|slot| slot.write(|write| self.decode(&plan, options, context, write)));
        let (content, pixels, cached) = match written {
            Some(Ok((content, pixels))) => (content, pixels, Cached::Written),
            Some(Err(error)) if !error.is_of_writing() => return Err(error),
            unwritten => {
                let mut pixels = allocate_free(plan.bytes(), self.root)?;
                let content = self.decode(&plan, options, context, &mut |image| {
                    pixels.extend_from_slice(image);
                    Ok(())
                })?;
                if content.channels < plan.channels.count {
                    let kept = keep_first(&mut pixels, plan.value_bytes(), plan.channels.count, content.channels);
                    pixels.truncate(kept);
                }
                let reason = unwritten.and_then(Result::err).map(|error| error.to_string());
                (content, Pixels::Memory(pixels), reason.map_or(Cached::Unused, Cached::Failed))
            }
        };
        self.loaded(content, pixels, cached, options)
    }

    /// Reads the headers.
    fn plan(&self, options: &LoadOptions, context: &ReadContext) -> Result<Plan, DataError> {
        let count = self.source.len();
        let indices: Vec<usize> = evenly_spread(count, options.limit.unwrap_or(count)).collect();
        let (mut headers, mut broken) = (Vec::with_capacity(indices.len()), Vec::new());
        if let Some(header) = self.source.uniform() {
            headers.extend(indices.iter().map(|&index| (index, header.into())));
        } else {
            let mut done = 0;
            self.in_chunks(&indices, CHUNK_PICTURES, &mut |chunk| {
                let of_chunk: Vec<_> = chunk.par_iter().map(|(_, encoded)| encoded.look()).collect();
                for ((index, _), look) in chunk.iter().zip(of_chunk) {
                    match look {
                        Ok(look) => headers.push((*index, look)),
                        Err(reason) => broken.push((*index, reason.to_string())),
                    }
                }
                done += chunk.len();
                context.report(Stage::Looking, done, indices.len());
                Ok(())
            })?;
        }
        let Some(&(first_index, Look { header: first, .. })) = headers.first() else {
            return Err(self.unreadable_error(&broken, indices.len()));
        };
        let readable: Vec<usize> = headers.iter().map(|(index, _)| *index).collect();
        let is_whole = broken.is_empty() && self.unreadable.is_empty();
        if !(options.skip_unreadable || is_whole) {
            let range = Range::given(options);
            // pictures with a good header are decoded too, so that all faults are counted and named at once
            self.in_chunks(&readable, CHUNK_PICTURES, &mut |chunk| {
                let fault = |(index, encoded): &(usize, Encoded)| {
                    Some((*index, encoded.decode_in::<u8>(range, None).err()?.to_string()))
                };
                broken.par_extend(chunk.par_iter().filter_map(fault));
                Ok(())
            })?;
            return Err(self.unreadable_error(&broken, indices.len()));
        }
        let size = |header: &Header| (header.height, header.width);
        let other = headers.iter().find(|(_, look)| size(&look.header) != size(&first));
        if let (None, Some((second, Look { header, .. }))) = (options.size, other) {
            return Err(DataError::MixedSizes {
                first: self.source.title(first_index),
                first_size: size(&first),
                second: self.source.title(*second),
                second_size: size(header),
            });
        }
        let (height, width) = options.final_size(size(&first))?;
        let mut channels = Channels::of(&headers, options, &|index| self.source.title(index))?;
        let sixteen_bits = options.sixteen_bits && headers.iter().any(|(_, look)| look.header.sixteen_bits);
        let found_range = self.find_range(&headers, options, &mut channels.remarks)?;
        Ok(Plan { height, width, channels, sixteen_bits, found_range, tried: indices.len(), readable, broken })
    }

    /// The range of the numbers of TIFF files that have none of their own, found by looking at all of them.
    fn find_range(
        &self,
        looks: &[(usize, Look)],
        options: &LoadOptions,
        remarks: &mut Vec<Remark>,
    ) -> Result<Option<Range>, DataError> {
        let layouts = looks.iter().filter_map(|(index, look)| Some((*index, look.tiff?)));
        let (indices, layouts): (Vec<usize>, Vec<_>) = layouts.filter(|(_, layout)| layout.needs_range()).unzip();
        let (Some(&first), None) = (layouts.first(), options.range) else { return Ok(None) };
        let mut found: Option<Extremes> = None;
        self.in_chunks(&indices, CHUNK_PICTURES, &mut |chunk| {
            let of_chunk: Vec<_> = chunk.par_iter().filter_map(|(_, encoded)| encoded.extremes()).collect();
            found = found.into_iter().chain(of_chunk).reduce(Extremes::and);
            Ok(())
        })?;
        let Some(found) = found else { return Ok(None) };
        let (count, type_name) = (indices.len(), first.type_name());
        let is_integer = layouts.iter().all(|layout| layout.is_integer());
        let title =
            format!("{count} TIFF files of {type_name} (the first: {})", self.source.title(indices[0]).display());
        let range = Range::usual_or_ask(found, is_integer, &title)?;
        let (Extremes { least, greatest, .. }, Range { low, high }) = (found, range);
        let choice =
            format!("values of {type_name} run from {least} to {greatest}: {low} was taken as black, {high} as white");
        remarks.push(Remark::decided(choice, Pictures::of(indices)));
        Ok(Some(range))
    }

    /// Decodes and prepares the pictures of the plan, and passes their values to `write`.
    fn decode(
        &self,
        plan: &Plan,
        options: &LoadOptions,
        context: &ReadContext,
        write: &mut Writer<'_>,
    ) -> Result<Content, DataError> {
        let image_bytes = plan.image_bytes();
        let (mut kept, mut sizes, mut broken) = (Vec::new(), BTreeMap::new(), plan.broken.clone());
        let (mut done, most) = (0, (CHUNK_BYTES / image_bytes).clamp(1, CHUNK_PICTURES));
        let (mut images, mut seen, mut levels) = (Vec::new(), Seen::default(), Levels::default());
        let decode_into = if plan.sixteen_bits { decode_into::<u16> } else { decode_into::<u8> };
        self.in_chunks(&plan.readable, most, &mut |chunk| {
            images.resize(chunk.len() * image_bytes, 0);
            let slots = images.par_chunks_exact_mut(image_bytes).zip(chunk);
            let outcomes: Vec<_> =
                slots.map(|(slot, (_, encoded))| decode_into(encoded, plan, options, slot)).collect();
            for ((image, (index, _)), outcome) in images.chunks_exact(image_bytes).zip(chunk).zip(outcomes) {
                match outcome {
                    Ok(decoded) => {
                        write(image)?;
                        seen.add(*index, decoded.traits);
                        levels.add(&decoded.levels);
                        kept.push(*index);
                        *sizes.entry(decoded.size).or_insert(0) += 1;
                    }
                    Err(reason) => broken.push((*index, reason.to_string())),
                }
            }
            done += chunk.len();
            context.report(Stage::Decoding, done, plan.readable.len());
            Ok(())
        })?;
        broken.sort();
        if kept.is_empty() {
            return Err(self.unreadable_error(&broken, plan.tried));
        }
        let (channels, of_channels) = plan.channels.that_carry_something(&seen);
        let content_size = options.size.or_else(|| sizes.keys().next().copied());
        Ok(Content {
            count: kept.len(),
            height: plan.height,
            width: plan.width,
            channels,
            has_alpha: channels == 4 && plan.channels.has_alpha,
            sixteen_bits: plan.sixteen_bits,
            content_size: content_size.unwrap_or((plan.height, plan.width)),
            sizes: sizes.into_iter().collect(),
            kept,
            broken,
            remarks: plan.channels.remarks.iter().cloned().chain(of_channels).collect(),
            levels,
            decisions: self.source.decisions(),
        })
    }

    /// Passes the pictures at `indices` to `work`, at most `most` at a time.
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
        mut self,
        content: Content,
        pixels: Pixels,
        cached: Cached,
        options: &LoadOptions,
    ) -> Result<Loaded, DataError> {
        let is_whole = content.broken.is_empty() && self.unreadable.is_empty();
        if !(options.skip_unreadable || is_whole) {
            return Err(self.unreadable_error(&content.broken, content.kept.len() + content.broken.len()));
        }
        let skipped = self.all_unreadable(&content.broken);
        let of_levels = content.levels.sentences(Range::given(options));
        content.decisions.iter().chain(&of_levels).for_each(|decision| self.account.decided(decision));
        let shape = [content.count, content.height, content.width, content.channels];
        let Classes { labels, names, decision } = self.classes;
        let mut account = self.account;
        decision.into_iter().for_each(|decision| account.decided(decision));
        // the classes of pictures that are left out count too
        let classes = labels.iter().flatten().max().map_or(0, |&largest| largest as usize + 1);
        let labels = labels.map(|labels| content.kept.iter().map(|&index| labels[index]).collect());
        let images = ImageSet::of_pixels(self.name.to_string(), pixels, content.sixteen_bits, shape, labels, names)?
            .with_source(classes, content.content_size, content.sizes.into_iter().collect())
            .with_alpha(content.has_alpha);
        let source = self.source;
        content.remarks.iter().for_each(|remark| remark.say(&mut account, &|index| source.title(index)));
        // of an array the index is the name
        let images = match self.source.uniform() {
            Some(_) => images,
            None => {
                images.with_titles(Titles::new(self.root, content.kept.iter().map(|&index| self.source.title(index))))
            }
        };
        Ok(Loaded { images, skipped, account, source: self.root.display().to_string(), cached })
    }

    /// The pictures that are missing from the source, and those of it that cannot be read.
    fn all_unreadable(&self, broken: &[(usize, String)]) -> Vec<Unreadable> {
        let broken = broken.iter().map(|(index, reason)| (self.source.title(*index), reason.clone()));
        let mut unreadable: Vec<Unreadable> = self.unreadable.iter().cloned().chain(broken).collect();
        unreadable.sort();
        unreadable
    }

    fn unreadable_error(&self, broken: &[(usize, String)], tried: usize) -> DataError {
        let unreadable = self.all_unreadable(broken);
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

/// What is known of a picture that was decoded.
struct Decoded {
    /// Height and width before it was prepared.
    size: (usize, usize),
    traits: Traits,
    /// The extremes of its values.
    levels: Levels,
}

/// Decodes a picture and prepares it into `slot`.
fn decode_into<V: Value>(
    encoded: &Encoded,
    plan: &Plan,
    options: &LoadOptions,
    slot: &mut [u8],
) -> Result<Decoded, Reason> {
    let (picture, levels) = encoded.decode_in::<V>(Range::given(options), plan.found_range)?;
    let prepared = prepare(&picture, plan.channels.count, options)?;
    if size_of_val(prepared.pixels()) != slot.len() {
        return Err("changed while it was read".into());
    }
    V::write_bytes(prepared.pixels(), slot);
    Ok(Decoded { size: (picture.height(), picture.width()), traits: Traits::of(&picture), levels })
}
