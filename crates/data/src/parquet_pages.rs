//! Columns of Parquet files that are compressed by gzip or brotli. Crate parquet would unpack their pages without a limit, so it
//! reads the packed pages, which are unpacked here, each to at most the length that the column claims to have.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use brotli_decompressor::Decompressor;
use flate2::read::MultiGzDecoder;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

/// Bytes that brotli reads at a time.
const BUFFER: usize = 4096;

/// Opens a column of a row group of `file`; `None` where its compression is none of the two.
pub(crate) fn column(file: File, group: &RowGroupMetaData, leaf: usize) -> Result<Option<ColumnReader>, ParquetError> {
    let chunk = group.column(leaf);
    let is_brotli = match chunk.compression() {
        Compression::GZIP(_) => false,
        Compression::BROTLI(_) => true,
        _ => return Ok(None),
    };
    let packed = chunk.clone().into_builder().set_compression(Compression::UNCOMPRESSED).build()?;
    let rows = usize::try_from(group.num_rows())?;
    let pages = SerializedPageReader::new(Arc::new(file), &packed, rows, None)?;
    let most = u64::try_from(chunk.uncompressed_size())?;
    let pages = Unpacked { pages, is_brotli, most };
    Ok(Some(get_column_reader(chunk.column_descr_ptr(), Box::new(pages))))
}

/// Pages that are unpacked.
struct Unpacked {
    pages: SerializedPageReader<File>,
    is_brotli: bool,
    /// Bytes of a page at most.
    most: u64,
}

impl Unpacked {
    fn unpack(&self, mut page: Page) -> Result<Page, ParquetError> {
        // levels stand unpacked before the values of a page of the second version
        let levels = match &page {
            Page::DataPageV2 { is_compressed: false, .. } => return Ok(page),
            Page::DataPageV2 { def_levels_byte_len, rep_levels_byte_len, .. } => {
                *def_levels_byte_len as usize + *rep_levels_byte_len as usize
            }
            _ => 0,
        };
        let wrong = |problem: &str| ParquetError::General(problem.to_string());
        let (levels, packed) = page.buffer().split_at_checked(levels).ok_or_else(|| wrong("a page is too short"))?;
        let mut bytes = levels.to_vec();
        let decoder: Box<dyn Read> = if packed.is_empty() {
            Box::new(packed)
        } else if self.is_brotli {
            Box::new(Decompressor::new(packed, BUFFER))
        } else {
            Box::new(MultiGzDecoder::new(packed))
        };
        decoder.take(self.most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > self.most {
            return Err(wrong("a page unpacks to more bytes than its column claims to have"));
        }
        let (Page::DataPage { buf, .. } | Page::DataPageV2 { buf, .. } | Page::DictionaryPage { buf, .. }) = &mut page;
        *buf = bytes.into();
        Ok(page)
    }
}

impl Iterator for Unpacked {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Unpacked {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.pages.get_next_page()?;
        page.map(|page| self.unpack(page)).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.pages.at_record_boundary()
    }
}
