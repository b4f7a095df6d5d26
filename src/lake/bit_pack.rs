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
pub(super) fn pack(
    values: impl ExactSizeIterator<Item = u64>,
    width: u32,
    multiple: usize,
    out: &mut Vec<u8>,
) {
    let padding = values.len().next_multiple_of(multiple) - values.len();
    let len_bytes = out.len() + ((values.len() + padding) * width as usize).div_ceil(8);
    match width {
        0 => {}
        8 => out.extend(values.map(|value| value as u8)),
        1..=32 => pack_narrow(values, width, out),
        _ => pack_wide(values, width, out),
    }
    out.resize(len_bytes, 0);
}

fn pack_narrow(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut pending, mut pending_bits) = (0u64, 0u32);
    for value in values {
        pending |= value << pending_bits;
        pending_bits += width;
        if pending_bits >= 32 {
            out.extend_from_slice(&(pending as u32).to_le_bytes());
            pending >>= 32;
            pending_bits -= 32;
        }
    }
    out.extend_from_slice(&pending.to_le_bytes()[..pending_bits.div_ceil(8) as usize]);
}

fn pack_wide(values: impl Iterator<Item = u64>, width: u32, out: &mut Vec<u8>) {
    let (mut pending, mut pending_bits) = (0u128, 0u32);
    for value in values {
        pending |= u128::from(value) << pending_bits;
        pending_bits += width;
        if pending_bits >= 64 {
            out.extend_from_slice(&(pending as u64).to_le_bytes());
            pending >>= 64;
            pending_bits -= 64;
        }
    }
    out.extend_from_slice(&pending.to_le_bytes()[..pending_bits.div_ceil(8) as usize]);
}

/// How wide a miniblock of differences is packed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Width {
    /// In as many bits as the largest needs.
    Least,
    /// Those of 1 to 7 bits in whole bytes, for the compressor behind to see them.
    WholeBytes,
}

/// Appends `values` as DELTA_BINARY_PACKED. `false`: a difference does not fit the type that `is_narrow` (32 bits) says.
pub(super) fn pack_deltas(values: &[i64], is_narrow: bool, width: Width, out: &mut Vec<u8>) -> bool {
    out.reserve(values.len() * 2);
    varint(BLOCK as u64, out);
    varint((BLOCK / MINIBLOCK) as u64, out);
    varint(values.len() as u64, out);
    zigzag(values.first().copied().unwrap_or_default(), out);
    let deltas: Vec<i64> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    for block in deltas.chunks(BLOCK) {
        let min = block.iter().min().copied().unwrap_or_default();
        let above = |delta: &i64| delta.wrapping_sub(min).cast_unsigned();
        let mut widths = [0; BLOCK / MINIBLOCK];
        for (miniblock, of_miniblock) in block.chunks(MINIBLOCK).zip(&mut widths) {
            // as wide as the largest
            let all = miniblock.iter().map(above).fold(0, |all, delta| all | delta);
            *of_miniblock = match u64::BITS - all.leading_zeros() {
                1..8 if width == Width::WholeBytes => 8,
                least => least,
            };
        }
        if is_narrow && (i32::try_from(min).is_err() || widths.iter().any(|width| *width > 32)) {
            return false;
        }
        zigzag(min, out);
        out.extend(widths.map(|width| width as u8));
        for (miniblock, width) in block.chunks(MINIBLOCK).zip(widths) {
            pack(miniblock.iter().map(above), width, MINIBLOCK, out);
        }
    }
    true
}
