//! Cuts a stream of bytes into chunks of whole lines; pure.
//!
//! Invariants: the cuts, in order, are exactly the bytes that are not committed yet; a cut is whole lines (no
//! more than `chunk_size_bytes` of them, unless it is a single longer line) or one piece of one over-long
//! line and nothing else; no more than one chunk or one piece, plus one read, is held. Deliberately absent:
//! files, clocks and hashes.
use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use memchr::{memchr, memrchr};

use crate::model::Piece;

/// Sizes at which to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CutOptions {
    /// Whole lines are cut near this many bytes.
    pub chunk_size_bytes: usize,
    /// A line of more bytes than this (newline not counted) is cut into pieces of this size.
    pub max_line_bytes: usize,
}

impl Default for CutOptions {
    fn default() -> Self {
        Self { chunk_size_bytes: 1 << 20, max_line_bytes: 1 << 20 }
    }
}

/// What follows the bytes pushed so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// More bytes: cut only full chunks.
    More,
    /// A pause: cut the whole lines there are; a line without its newline waits.
    Pause,
    /// The end of something that may still grow: the last line without a newline is a chunk of its own.
    Open,
    /// The end for good.
    Final,
}

/// A chunk without its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Offset of its first byte in the source.
    pub first_byte: u64,
    /// The source's own bytes.
    pub bytes: Bytes,
    /// Set when the cut is a piece of an over-long line.
    pub piece: Option<Piece>,
    /// A last line without a newline that may still grow.
    pub open: bool,
}

/// Takes bytes, gives chunks. Bytes of committed ranges are taken and dropped.
#[derive(Debug)]
pub struct Chunker {
    options: CutOptions,
    /// Committed ranges ahead, ascending.
    committed: VecDeque<(u64, u64)>,
    /// Bytes taken and not cut; the first is at `first_byte`.
    buffer: BytesMut,
    first_byte: u64,
    /// This many bytes of the buffer are known to hold no newline.
    scanned: usize,
    /// Where the line that holds `first_byte` begins.
    line_start: u64,
    /// Index of the next piece when `first_byte` is within an over-long line.
    piece: Option<u32>,
}

impl Chunker {
    /// Starts at byte 0 of a source of which the `committed` ranges (ascending) are not to be cut.
    pub fn new(options: CutOptions, committed: Vec<(u64, u64)>) -> Self {
        let options = CutOptions {
            chunk_size_bytes: options.chunk_size_bytes.max(1),
            max_line_bytes: options.max_line_bytes.max(1),
        };
        Self {
            options,
            committed: committed.into(),
            buffer: BytesMut::new(),
            first_byte: 0,
            scanned: 0,
            line_start: 0,
            piece: None,
        }
    }

    /// Says late what is committed; for a stream, whose identity is known only after its first bytes.
    pub fn set_committed(&mut self, committed: Vec<(u64, u64)>) {
        self.committed = committed.into();
    }

    /// Bytes taken and not cut.
    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Offset behind the last byte taken.
    pub fn end_byte(&self) -> u64 {
        self.first_byte + self.buffer.len() as u64
    }

    /// How many bytes to offer next, so that a full chunk needs no further copy.
    pub fn wanted_bytes(&self) -> usize {
        match self.options.chunk_size_bytes.saturating_sub(self.buffer.len()) {
            0 => self.options.chunk_size_bytes.min(64 << 10),
            missing => missing,
        }
    }

    /// Takes up to `len_bytes` straight from a reader; returns how many came.
    pub fn fill<E>(
        &mut self,
        len_bytes: usize,
        read: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let held = self.buffer.len();
        self.buffer.resize(held + len_bytes, 0);
        let came = read(&mut self.buffer[held..]);
        self.buffer.truncate(held + *came.as_ref().unwrap_or(&0));
        came
    }

    /// Takes a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where to go on when everything up to there is committed and none of it is taken yet.
    pub fn skippable_to(&self) -> Option<u64> {
        let &(first, end) = self.committed.iter().find(|range| range.1 > self.first_byte)?;
        (self.buffer.is_empty() && first <= self.first_byte).then_some(end)
    }

    /// Goes on at `offset`, which lies in a line that begins at `line_start`.
    pub fn skip_to(&mut self, offset: u64, line_start: u64) {
        self.first_byte = offset;
        self.line_start = line_start;
        self.place_in_line();
    }

    /// The next chunk that can be cut, or `None` until more bytes come. Call it until `None`.
    pub fn next_cut(&mut self, end: End) -> Option<Cut> {
        self.drop_committed();
        let to_committed =
            self.committed.front().map_or(u64::MAX, |range| range.0.saturating_sub(self.first_byte));
        let (len, end) = match self.buffer.len() {
            // the bytes behind are committed: nothing will be added to the line that is cut here
            len if len as u64 >= to_committed => (to_committed as usize, End::Final),
            len => (len, end),
        };
        match self.piece {
            _ if len == 0 => None,
            None => self.cut_lines(len, end),
            Some(index) => self.cut_line(len, end, Some(index)),
        }
    }

    /// Whole lines from the first `len` bytes, which begin with the first byte of a line.
    fn cut_lines(&mut self, len: usize, end: End) -> Option<Cut> {
        let CutOptions { chunk_size_bytes, max_line_bytes } = self.options;
        let target = len.min(chunk_size_bytes);
        if end == End::More && len < chunk_size_bytes && len <= max_line_bytes {
            return None;
        }
        // hop from newline to newline, each time to the last one that no over-long line can hide before
        let mut whole = 0;
        while self.scanned < target && whole < target {
            let window = &self.buffer[whole..target.min(whole + max_line_bytes + 1)];
            match memrchr(b'\n', window) {
                Some(newline) => whole += newline + 1,
                None => break,
            }
        }
        let full = len >= chunk_size_bytes || len - whole > max_line_bytes;
        match whole {
            0 => self.cut_line(len, end, None),
            _ if full || end != End::More => Some(self.cut(whole, None, false)),
            _ => None,
        }
    }

    /// One line, or one piece of it, from the first `len` bytes.
    fn cut_line(&mut self, len: usize, end: End, index: Option<u32>) -> Option<Cut> {
        let max = self.options.max_line_bytes;
        let piece = |last| Some(Piece { index: index.unwrap_or(0), last });
        let whole = index.and_then(|_| piece(true));
        let window = &self.buffer[self.scanned.min(len)..len.min(max + 1)];
        if let Some(newline) = memchr(b'\n', window) {
            return Some(self.cut(self.scanned + newline + 1, whole, false));
        }
        match end {
            _ if len > max => Some(self.cut(max, piece(false), false)),
            End::More | End::Pause => {
                self.scanned = len;
                None
            }
            // Not open: what supersedes an open chunk must be longer, and no chunk of this line will be.
            // More of the line, if only its newline, is the next piece.
            End::Open if len == max => Some(self.cut(max, piece(false), false)),
            End::Open => Some(self.cut(len, whole, true)),
            End::Final => Some(self.cut(len, whole, false)),
        }
    }

    fn cut(&mut self, len: usize, piece: Option<Piece>, open: bool) -> Cut {
        let first_byte = self.first_byte;
        // a small cut gets its own memory: it may be held for long, and must not hold a large buffer with it
        let bytes = if len * 2 < self.buffer.capacity() {
            let copy = Bytes::copy_from_slice(&self.buffer[..len]);
            self.buffer.advance(len);
            copy
        } else {
            self.buffer.split_to(len).freeze()
        };
        self.first_byte += len as u64;
        self.scanned = 0;
        if bytes.last() == Some(&b'\n') {
            self.line_start = self.first_byte;
        }
        self.piece = piece.and_then(|piece| (!piece.last).then_some(piece.index + 1));
        Cut { first_byte, bytes, piece, open }
    }

    fn drop_committed(&mut self) {
        while let Some(&(first, end)) = self.committed.front() {
            if end <= self.first_byte {
                self.committed.pop_front();
                continue;
            }
            let len = self.buffer.len().min((end - self.first_byte) as usize);
            if first > self.first_byte || len == 0 {
                return;
            }
            if let Some(newline) = memrchr(b'\n', &self.buffer[..len]) {
                self.line_start = self.first_byte + newline as u64 + 1;
            }
            self.buffer.advance(len);
            self.first_byte += len as u64;
            self.place_in_line();
        }
    }

    /// Finds the piece index behind committed bytes. Less of a line than a piece before this place means that
    /// a line without newline was closed here, and that what follows counts as a line.
    fn place_in_line(&mut self) {
        let (behind, max) = (self.first_byte - self.line_start, self.options.max_line_bytes as u64);
        self.piece = (behind >= max).then(|| u32::try_from(behind.div_ceil(max)).unwrap_or(u32::MAX));
        self.scanned = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut_all(content: &[u8], options: CutOptions, reads: &[usize], end: End) -> Vec<Cut> {
        let mut chunker = Chunker::new(options, Vec::new());
        cut_rest(&mut chunker, content, reads, end)
    }

    fn cut_rest(chunker: &mut Chunker, mut content: &[u8], reads: &[usize], end: End) -> Vec<Cut> {
        let (mut cuts, mut reads) = (Vec::new(), reads.iter().cycle());
        while !content.is_empty() {
            let (block, rest) = content.split_at((*reads.next().unwrap()).clamp(1, content.len()));
            chunker.push(block);
            cuts.extend(std::iter::from_fn(|| chunker.next_cut(End::More)));
            content = rest;
        }
        cuts.extend(std::iter::from_fn(|| chunker.next_cut(end)));
        cuts
    }

    fn texts(cuts: &[Cut]) -> Vec<&str> {
        cuts.iter().map(|cut| std::str::from_utf8(&cut.bytes).unwrap()).collect()
    }

    const fn sizes(chunk_size_bytes: usize, max_line_bytes: usize) -> CutOptions {
        CutOptions { chunk_size_bytes, max_line_bytes }
    }

    #[test]
    fn lines_are_cut_whole_and_near_the_chunk_size() {
        let cuts = cut_all(b"aa\nbb\ncc\ndd\n", sizes(7, 100), &[100], End::Final);
        assert_eq!(texts(&cuts), ["aa\nbb\n", "cc\ndd\n"]);
    }

    #[test]
    fn a_line_longer_than_a_chunk_is_one_line_in_a_chunk() {
        let cuts = cut_all(b"a\nbbbbbbbb\nc\n", sizes(3, 100), &[1], End::Final);
        assert_eq!(texts(&cuts), ["a\n", "bbbbbbbb\n", "c\n"]);
        assert!(cuts.iter().all(|cut| cut.piece.is_none()));
    }

    #[test]
    fn an_over_long_line_is_pieces_of_exactly_the_limit_and_alone_in_each() {
        for read in [1, 2, 3, 7, 100] {
            let cuts = cut_all(b"a\nbbbbbbbbb\nc\n", sizes(100, 4), &[read], End::Final);
            assert_eq!(texts(&cuts), ["a\n", "bbbb", "bbbb", "b\n", "c\n"]);
            let pieces: Vec<_> =
                cuts.iter().map(|cut| cut.piece.map(|piece| (piece.index, piece.last))).collect();
            assert_eq!(pieces, [None, Some((0, false)), Some((1, false)), Some((2, true)), None]);
        }
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_a_line_and_a_full_last_piece_keeps_its_newline() {
        assert_eq!(texts(&cut_all(b"bbbb\n", sizes(100, 4), &[1], End::Final)), ["bbbb\n"]);
        assert_eq!(texts(&cut_all(b"bbbbbbbb\n", sizes(100, 4), &[1], End::Final)), ["bbbb", "bbbb\n"]);
    }

    #[test]
    fn only_an_end_that_may_grow_leaves_its_last_line_open() {
        let cuts = |end| cut_all(b"aa\nbb", sizes(100, 100), &[2], end);
        assert_eq!(texts(&cuts(End::Pause)), ["aa\n"]);
        assert_eq!(texts(&cuts(End::Open)), ["aa\n", "bb"]);
        assert_eq!(cuts(End::Open).iter().map(|cut| cut.open).collect::<Vec<_>>(), [false, true]);
        assert_eq!(texts(&cuts(End::Final)), ["aa\n", "bb"]);
        assert!(cuts(End::Final).iter().all(|cut| !cut.open));
    }

    #[test]
    fn what_supersedes_an_open_chunk_is_longer_and_the_same_piece() {
        for (len, grown) in (1..20).flat_map(|len| (len + 1..25).map(move |grown| (len, grown))) {
            let line = vec![b'x'; grown];
            let before = cut_all(&line[..len], sizes(100, 4), &[100], End::Open);
            let last = before.last().unwrap();
            assert_eq!(last.open, len % 4 != 0);
            let from = if last.open { last.first_byte as usize } else { len };
            let mut chunker = Chunker::new(sizes(100, 4), Vec::new());
            chunker.skip_to(from as u64, 0);
            let after = cut_rest(&mut chunker, &line[from..], &[3], End::Open);
            assert!(!last.open || after[0].bytes.len() > last.bytes.len(), "{len} -> {grown}");
            let index = (grown > 3 || len > 3).then_some(from as u32 / 4);
            assert_eq!(after[0].piece.map(|piece| piece.index), index, "{len} -> {grown}");
        }
    }

    #[test]
    fn a_small_cut_does_not_hold_the_memory_of_a_large_buffer() {
        let mut chunker = Chunker::new(sizes(1 << 20, 1 << 20), Vec::new());
        let came = chunker.fill(1 << 20, |buffer| {
            buffer[..2].copy_from_slice(b"a\n");
            Ok::<_, ()>(2)
        });
        assert_eq!(came, Ok(2));
        let before = chunker.buffer.capacity();
        let cut = chunker.next_cut(End::Pause).unwrap();
        assert_eq!((&cut.bytes[..], cut.bytes.is_unique()), (&b"a\n"[..], true));
        assert!(chunker.buffer.capacity() >= before - 2, "the buffer is still there for the next read");
    }

    fn content() -> impl Strategy<Value = Vec<u8>> {
        // few distinct bytes, so that newlines come at every distance
        prop::collection::vec(prop_oneof![2 => Just(b'\n'), 7 => Just(b'x'), 1 => any::<u8>()], 0..200)
    }

    fn sizes_in_use() -> impl Strategy<Value = usize> {
        prop_oneof![Just(1), Just(3), Just(5), 1..60_usize, Just(1 << 20)]
    }

    fn ranges(len: usize) -> impl Strategy<Value = Vec<(u64, u64)>> {
        prop::collection::btree_set(0..=len as u64, 0..8).prop_map(|borders| {
            let borders: Vec<_> = borders.into_iter().collect();
            borders.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
        })
    }

    proptest! {
        #[test]
        fn chunks_are_contiguous_whole_lines_or_one_piece_and_add_up_to_the_source(
            content in content(),
            chunk_size in sizes_in_use(),
            max_line in sizes_in_use(),
            reads in prop::collection::vec(sizes_in_use(), 1..5),
            open in any::<bool>(),
        ) {
            let end = if open { End::Open } else { End::Final };
            let cuts = cut_all(&content, sizes(chunk_size, max_line), &reads, end);
            let mut at = 0;
            let mut expected_piece = None;
            for cut in &cuts {
                prop_assert_eq!(cut.first_byte, at as u64);
                prop_assert!(!cut.bytes.is_empty());
                prop_assert_eq!(&content[at..at + cut.bytes.len()], &cut.bytes[..]);
                at += cut.bytes.len();
                let (terminated, at_end) = (cut.bytes.ends_with(b"\n"), at == content.len());
                // the one chunk at an end that may grow that nothing longer can supersede
                let full = open && at_end && !terminated && cut.piece.is_some() && cut.bytes.len() == max_line;
                prop_assert_eq!(cut.open, open && at_end && !terminated && !full);
                let newlines = cut.bytes.iter().filter(|&&byte| byte == b'\n').count();
                if let Some(piece) = cut.piece {
                    prop_assert_eq!(piece.index, expected_piece.unwrap_or(0));
                    prop_assert!(cut.bytes.len() <= max_line + usize::from(terminated));
                    prop_assert_eq!(newlines, usize::from(terminated));
                    prop_assert_eq!(piece.last, terminated || (at_end && !full));
                    prop_assert!(piece.last || cut.bytes.len() == max_line);
                    expected_piece = (!piece.last && !full).then_some(piece.index + 1);
                } else {
                    prop_assert_eq!(expected_piece, None);
                    prop_assert!(terminated || at_end);
                    prop_assert!(cut.bytes.len() <= chunk_size || newlines == usize::from(terminated));
                    for line in cut.bytes.split(|&byte| byte == b'\n') {
                        prop_assert!(line.len() <= max_line);
                    }
                }
            }
            prop_assert_eq!(at, content.len());
            prop_assert_eq!(expected_piece, None);
        }

        #[test]
        fn committed_ranges_are_left_out_and_nothing_else(
            (content, committed) in content().prop_flat_map(|content| {
                let ranges = ranges(content.len());
                (Just(content), ranges)
            }),
            chunk_size in sizes_in_use(),
            max_line in sizes_in_use(),
            reads in prop::collection::vec(sizes_in_use(), 1..5),
        ) {
            let mut chunker = Chunker::new(sizes(chunk_size, max_line), committed.clone());
            let cuts = cut_rest(&mut chunker, &content, &reads, End::Final);
            let mut covered = vec![0; content.len()];
            for (first, end) in committed {
                covered[first as usize..end as usize].iter_mut().for_each(|count| *count += 1);
            }
            for cut in &cuts {
                let range = cut.first_byte as usize..cut.first_byte as usize + cut.bytes.len();
                prop_assert_eq!(&content[range.clone()], &cut.bytes[..]);
                covered[range].iter_mut().for_each(|count| *count += 1);
            }
            prop_assert!(covered.iter().all(|&count| count == 1));
        }
    }
}
