//! Compares many bytes at once, with what the processor has.
//!
//! [`Baseline`] works on every processor: sixteen bytes at a time where SSE2 is (all of x86-64), byte by byte elsewhere.
//! [`Avx2`] compares 32 at a time; whoever holds one knows that the processor can, so nothing is asked again.

/// How many bytes are compared at once at most.
pub(super) const WIDTH: usize = 32;

/// Sixteen times one.
pub(super) const SPLAT: u128 = u128::from_le_bytes([1; 16]);

/// A way to compare.
pub(super) trait Vectors: Copy {
    /// Which of 32 bytes are one that `sixteen` holds sixteen times: a bit each, the lowest for the first.
    fn which(self, bytes: &[u8; WIDTH], sixteen: u128) -> u32;
}

/// What every processor can.
#[derive(Debug, Clone, Copy)]
pub(super) struct Baseline;

impl Vectors for Baseline {
    #[inline(always)]
    fn which(self, bytes: &[u8; WIDTH], sixteen: u128) -> u32 {
        let (halves, _) = bytes.as_chunks::<16>();
        let [low, high] = [0, 1].map(|half| equal(u128::from_le_bytes(halves[half]), sixteen));
        low | high << 16
    }
}

/// Proof that the processor has AVX2 and BMI.
#[cfg(target_arch = "x86_64")]
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

#[cfg(target_arch = "x86_64")]
impl Avx2 {
    /// The proof, if there is one.
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2");
        has_all.then_some(Self(()))
    }
}

#[cfg(target_arch = "x86_64")]
impl Vectors for Avx2 {
    #[inline(always)]
    fn which(self, bytes: &[u8; WIDTH], sixteen: u128) -> u32 {
        use std::arch::x86_64::{
            _mm_set_epi64x, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8, _mm256_loadu_si256,
            _mm256_movemask_epi8,
        };
        #[expect(unsafe_code, reason = "the compiler does not find these instructions by itself")]
        // SAFETY: the processor has AVX2, or there were no `self`; the load is of 32 bytes and needs no alignment.
        let which = unsafe {
            let sixteen = _mm_set_epi64x((sixteen >> 64) as i64, sixteen as i64);
            let bytes = _mm256_loadu_si256(bytes.as_ptr().cast());
            _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_broadcastsi128_si256(sixteen)))
        };
        which as u32
    }
}

/// Which of sixteen bytes, little endian, equal those of `other`: a bit each, the lowest for the first.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn equal(sixteen: u128, other: u128) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x};
    #[expect(unsafe_code, reason = "the compiler does not find these instructions by itself; half the time")]
    // SAFETY: they are SSE2, which every processor of this kind has.
    let equal = unsafe {
        let [sixteen, other] =
            [sixteen, other].map(|bytes| _mm_set_epi64x((bytes >> 64) as i64, bytes as i64));
        _mm_movemask_epi8(_mm_cmpeq_epi8(sixteen, other))
    };
    equal as u32
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) use equal_by_bytes as equal;

/// The same for any processor.
#[cfg(any(not(target_arch = "x86_64"), test))]
#[inline(always)]
pub(super) fn equal_by_bytes(sixteen: u128, other: u128) -> u32 {
    let (sixteen, other) = (sixteen.to_le_bytes(), other.to_le_bytes());
    (0..16).fold(0, |equal, position| equal | u32::from(sixteen[position] == other[position]) << position)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn vectors_find_what_a_look_at_each_byte_finds(bytes: [u8; WIDTH], byte in prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])) {
            // bytes that differ in few bits, so that some are equal
            let bytes = bytes.map(|random| [0, 1, byte, 0x80, 0xff][usize::from(random) % 5]);
            let sixteen = u128::from_le_bytes(*bytes.first_chunk().unwrap());
            for other in [u128::from(byte) * SPLAT, sixteen ^ 0xff00] {
                prop_assert_eq!(equal(sixteen, other), equal_by_bytes(sixteen, other));
            }
            let splat = u128::from(byte) * SPLAT;
            let expected = (0..WIDTH).fold(0, |which, at| which | u32::from(bytes[at] == byte) << at);
            prop_assert_eq!(Baseline.which(&bytes, splat), expected);
            #[cfg(target_arch = "x86_64")]
            if let Some(avx2) = Avx2::detect() {
                prop_assert_eq!(avx2.which(&bytes, splat), expected);
            }
        }
    }
}
