//! The pages of a column chunk: compressed, framed and counted.
//!
//! Deliberately absent: what is in a page; `column_chunk` knows.
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, EncodingMask, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;
use zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use zstd::zstd_safe::{self, CCtx, CParameter, InBuffer, OutBuffer};

use super::parquet_settings::ZSTD_LEVEL;

/// An encoded column chunk, to be appended to a row group.
#[derive(Debug)]
pub(super) struct ColumnChunk {
    pub(super) bytes: Bytes,
    pub(super) close: ColumnCloseResult,
}

/// One form that a page's content can take.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Where its values begin.
    pub(super) head_bytes: usize,
    /// Repetitions among the values are chance.
    pub(super) is_noise: bool,
}

/// The pages of one column chunk as they are written, and what its metadata says of them.
pub(super) struct Pages<'a> {
    pub(super) column: ColumnDescPtr,
    compressors: &'a mut Compressors,
    sink: TrackedWrite<Vec<u8>>,
    encodings: Vec<Encoding>,
    data_page_offset: Option<i64>,
    dictionary_page_offset: Option<i64>,
    uncompressed: usize,
    num_rows: usize,
    /// Ranges of pages, for a column whose values have an order that makes them worth the space.
    pub(super) column_index: Option<ColumnIndexBuilder>,
    offset_index: OffsetIndexBuilder,
}

impl<'a> Pages<'a> {
    pub(super) fn new(column: ColumnDescPtr, compressors: &'a mut Compressors) -> Self {
        Self {
            compressors,
            column_index: None,
            column,
            sink: TrackedWrite::new(Vec::new()),
            encodings: vec![Encoding::RLE],
            data_page_offset: None,
            dictionary_page_offset: None,
            uncompressed: 0,
            num_rows: 0,
            offset_index: OffsetIndexBuilder::new(),
        }
    }

    pub(super) fn write_dictionary(&mut self, plain: Vec<u8>, num_entries: usize) -> Result<()> {
        let body = Body { bytes: plain, head_bytes: 0, is_noise: false };
        let page = Page::DictionaryPage {
            buf: Bytes::copy_from_slice(self.compressors.compress(&body)?),
            num_values: num_entries as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.dictionary_page_offset = Some(self.sink.bytes_written() as i64);
        self.encodings.push(Encoding::PLAIN);
        self.write(page, body.bytes.len())?;
        Ok(())
    }

    /// Writes whichever of `bodies`, which mean the same rows, is smallest.
    pub(super) fn write_data(&mut self, bodies: &[Body], num_rows: usize, encoding: Encoding) -> Result<()> {
        let mut smallest: Option<(Bytes, usize)> = None;
        for body in bodies {
            let compressed = self.compressors.compress(body)?;
            if smallest.as_ref().is_none_or(|(known, _)| compressed.len() < known.len()) {
                smallest = Some((Bytes::copy_from_slice(compressed), body.bytes.len()));
            }
        }
        let (buf, uncompressed) = smallest.unwrap_or_default();
        let page = Page::DataPage {
            buf,
            num_values: num_rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let offset = self.sink.bytes_written() as i64;
        self.data_page_offset.get_or_insert(offset);
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
        let len_bytes = self.write(page, uncompressed)?;
        self.offset_index.append_offset_and_size(offset, len_bytes as i32);
        self.offset_index.append_row_count(num_rows as i64);
        self.num_rows += num_rows;
        Ok(())
    }

    fn write(&mut self, page: Page, uncompressed: usize) -> Result<usize> {
        let spec =
            SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, uncompressed))?;
        self.uncompressed += spec.uncompressed_size;
        Ok(spec.compressed_size)
    }

    pub(super) fn close(self, statistics: Statistics, bloom_filter: Option<Sbbf>) -> Result<ColumnChunk> {
        let bytes = Bytes::from(self.sink.into_inner()?);
        let metadata = ColumnChunkMetaData::builder(self.column)
            .set_compression_codec(compression().into())
            .set_encodings_mask(EncodingMask::new_from_encodings(self.encodings.iter()))
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.num_rows as i64)
            .set_data_page_offset(self.data_page_offset.unwrap_or_default())
            .set_dictionary_page_offset(self.dictionary_page_offset)
            .set_statistics(statistics)
            .build()?;
        let column_index = self.column_index.map(ColumnIndexBuilder::build).transpose()?;
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: self.num_rows as u64,
            metadata,
            bloom_filter,
            column_index,
            offset_index: Some(self.offset_index.build()),
        };
        Ok(ColumnChunk { bytes, close })
    }
}

/// The codec of every column.
pub(super) fn compression() -> Compression {
    Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default())
}

/// zstd in two tempers, with contexts and a buffer that are kept from page to page.
pub(super) struct Compressors {
    /// Looks for repetitions.
    plain: CCtx<'static>,
    /// Finds few: where repetitions are chance, naming them costs more than the bytes themselves.
    noise: CCtx<'static>,
    out: Vec<u8>,
}

impl Compressors {
    pub(super) fn try_new() -> Result<Self> {
        let (mut plain, mut noise) = (CCtx::create(), CCtx::create());
        plain.set_parameter(CParameter::CompressionLevel(ZSTD_LEVEL)).map_err(external)?;
        let weak =
            [CParameter::CompressionLevel(ZSTD_LEVEL), CParameter::HashLog(6), CParameter::MinMatch(7)];
        for parameter in weak {
            noise.set_parameter(parameter).map_err(external)?;
        }
        Ok(Self { plain, noise, out: Vec::new() })
    }

    fn compress(&mut self, body: &Body) -> Result<&[u8]> {
        let (head, values) = body.bytes.split_at(body.head_bytes);
        self.out.clear();
        // a block more than usual, with its header
        self.out.reserve(zstd_safe::compress_bound(body.bytes.len()) + 16);
        if !body.is_noise {
            self.plain.compress2(&mut self.out, &body.bytes).map_err(external)?;
            return Ok(&self.out);
        }
        let mut out = OutBuffer::around(&mut self.out);
        // The head gets a block of its own: its odd bytes would lengthen the codes of the values.
        for (part, end) in [(head, ZSTD_EndDirective::ZSTD_e_flush), (values, ZSTD_EndDirective::ZSTD_e_end)]
        {
            let mut part = InBuffer::around(part);
            if self.noise.compress_stream2(&mut out, &mut part, end).map_err(external)? > 0 {
                return Err(ParquetError::General("zstd needs more room than its bound".to_owned()));
            }
        }
        Ok(&self.out)
    }
}

fn external(code: zstd_safe::ErrorCode) -> ParquetError {
    ParquetError::General(zstd_safe::get_error_name(code).to_owned())
}
