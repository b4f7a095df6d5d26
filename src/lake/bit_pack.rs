//! Bit packing as Parquet's encodings have it: values of one width, lowest bit first.

/// Values per block and per miniblock of DELTA_BINARY_PACKED. A miniblock takes the width of its largest
/// difference, so small ones are cheap.
const BLOCK: usize = 128;
const MINIBLOCK: usize = 32;

/// Appends `value` in groups of 7 bits.
pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends `value` so that small numbers of either sign are short.
fn zigzag(value: i64, out: &mut Vec<u8>) {
    varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
}

/// Appends `values`, each in `width` bits, padded with zeros to a multiple of `multiple` values.
pub(super) fn pack(values: impl Iterator<Item = u64>, width: u32, multiple: usize, out: &mut Vec<u8>) {
    let (mut pending, mut pending_bits, mut count) = (0u128, 0u32, 0usize);
    let mut push = |value: u64, out: &mut Vec<u8>| {
        pending |= u128::from(value) << pending_bits;
        pending_bits += width;
        while pending_bits >= 8 {
            out.push(pending as u8);
            pending >>= 8;
            pending_bits -= 8;
        }
    };
    for value in values {
        push(value, out);
        count += 1;
    }
    for _ in count..count.next_multiple_of(multiple) {
        push(0, out);
    }
}

/// How wide a miniblock of differences is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Width {
    /// In as many bits as the largest needs.
    Least,
    /// Those of 1 to 7 bits in whole bytes, for the compressor behind to see them.
    WholeBytes,
}

/// `values` as DELTA_BINARY_PACKED. `None`: a difference does not fit the type that `is_narrow` (32 bits) says.
pub(super) fn pack_deltas(values: &[i64], is_narrow: bool, width: Width) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(values.len() * 2);
    varint(BLOCK as u64, &mut out);
    varint((BLOCK / MINIBLOCK) as u64, &mut out);
    varint(values.len() as u64, &mut out);
    zigzag(values.first().copied().unwrap_or_default(), &mut out);
    let deltas: Vec<i64> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    for block in deltas.chunks(BLOCK) {
        let min = block.iter().min().copied().unwrap_or_default();
        let above = |delta: &i64| delta.wrapping_sub(min).cast_unsigned();
        let widths = block.chunks(MINIBLOCK).map(|miniblock| {
            let largest = miniblock.iter().map(above).max().unwrap_or_default();
            match u64::BITS - largest.leading_zeros() {
                1..8 if width == Width::WholeBytes => 8,
                least => least,
            }
        });
        let widths: Vec<u32> = widths.collect();
        if is_narrow && (i32::try_from(min).is_err() || widths.iter().any(|width| *width > 32)) {
            return None;
        }
        zigzag(min, &mut out);
        out.extend(
            (0..BLOCK / MINIBLOCK).map(|position| widths.get(position).map_or(0, |width| *width as u8)),
        );
        for (miniblock, width) in block.chunks(MINIBLOCK).zip(&widths) {
            pack(miniblock.iter().map(above), *width, MINIBLOCK, &mut out);
        }
    }
    Some(out)
}
