//! The pages of a column chunk: compressed, framed and counted.
//!
//! Deliberately absent: what is in a page; `column_chunk` knows.
use std::io::Write;

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
use zstd::zstd_safe::{self, CCtx, CParameter};

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
    /// What comes before the values.
    pub(super) head: Vec<u8>,
    pub(super) values: Vec<u8>,
    /// Repetitions among the values are chance.
    pub(super) is_noise: bool,
}

impl Body {
    fn len_bytes(&self) -> usize {
        self.head.len() + self.values.len()
    }
}

/// The pages of one column chunk as they are written, and what its metadata says of them.
pub(super) struct Pages {
    pub(super) column: ColumnDescPtr,
    compressors: Compressors,
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

impl Pages {
    pub(super) fn try_new(column: ColumnDescPtr) -> Result<Self> {
        Ok(Self {
            compressors: Compressors::try_new()?,
            column_index: None,
            column,
            sink: TrackedWrite::new(Vec::new()),
            encodings: vec![Encoding::RLE],
            data_page_offset: None,
            dictionary_page_offset: None,
            uncompressed: 0,
            num_rows: 0,
            offset_index: OffsetIndexBuilder::new(),
        })
    }

    pub(super) fn write_dictionary(&mut self, plain: Vec<u8>, num_entries: usize) -> Result<()> {
        let body = Body { head: Vec::new(), values: plain, is_noise: false };
        let page = Page::DictionaryPage {
            buf: self.compressors.compress(&body)?,
            num_values: num_entries as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        self.dictionary_page_offset = Some(self.sink.bytes_written() as i64);
        self.encodings.push(Encoding::PLAIN);
        self.write(page, body.len_bytes())?;
        Ok(())
    }

    /// Writes whichever of `bodies`, which mean the same rows, is smallest.
    pub(super) fn write_data<T>(
        &mut self,
        bodies: &[Body],
        rows: &[Option<T>],
        encoding: Encoding,
    ) -> Result<()> {
        let mut smallest: Option<(Bytes, usize)> = None;
        for body in bodies {
            let compressed = self.compressors.compress(body)?;
            if smallest.as_ref().is_none_or(|(known, _)| compressed.len() < known.len()) {
                smallest = Some((compressed, body.len_bytes()));
            }
        }
        let (buf, uncompressed) = smallest.unwrap_or_default();
        let page = Page::DataPage {
            buf,
            num_values: rows.len() as u32,
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
        self.offset_index.append_row_count(rows.len() as i64);
        self.num_rows += rows.len();
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

/// zstd in two tempers, with contexts that are kept from page to page.
struct Compressors {
    /// Looks for repetitions.
    plain: zstd::bulk::Compressor<'static>,
    /// Finds few: where repetitions are chance, naming them costs more than the bytes themselves.
    noise: CCtx<'static>,
}

impl Compressors {
    fn try_new() -> Result<Self> {
        let plain = zstd::bulk::Compressor::new(ZSTD_LEVEL).map_err(external)?;
        let mut noise = CCtx::create();
        let weak =
            [CParameter::CompressionLevel(ZSTD_LEVEL), CParameter::HashLog(6), CParameter::MinMatch(7)];
        for parameter in weak {
            let set = noise.set_parameter(parameter);
            set.map_err(|code| ParquetError::General(zstd_safe::get_error_name(code).to_owned()))?;
        }
        Ok(Self { plain, noise })
    }

    fn compress(&mut self, body: &Body) -> Result<Bytes> {
        if !body.is_noise {
            let whole = [body.head.as_slice(), &body.values].concat();
            return self.plain.compress(&whole).map(Bytes::from).map_err(external);
        }
        let out = Vec::with_capacity(body.len_bytes() / 2 + 64);
        let mut frame = zstd::stream::write::Encoder::with_context(out, &mut self.noise);
        // The head gets a block of its own: its odd bytes would lengthen the codes of the values.
        let written = frame.write_all(&body.head).and_then(|()| frame.flush());
        written.and_then(|()| frame.write_all(&body.values)).map_err(external)?;
        frame.finish().map(Bytes::from).map_err(external)
    }
}

fn external(cause: std::io::Error) -> ParquetError {
    ParquetError::External(cause.into())
}
