//! How many users: exactly while they are few, then by HyperLogLog, in at most 8 KiB.
//!
//! Depends on the set of users alone, not on their order. The estimate is the one of Ertl ("New cardinality
//! estimation algorithms for HyperLogLog sketches", 2017, algorithm 6), which needs no table of corrections.

/// As many users are counted exactly: their hashes take as much room as the registers.
pub const EXACT_USERS: usize = 1024;

/// 2^13 registers of one byte.
const PRECISION: u32 = 13;
pub(super) const REGISTERS: usize = 1 << PRECISION;
/// Bits of a hash behind those that choose the register.
const REST: u32 = 64 - PRECISION;
/// A register holds 0 ..= REST + 1.
const VALUES: usize = REST as usize + 2;

/// The number of users in a bounded space.
#[derive(Debug, Clone, PartialEq)]
pub enum UniqueUsers {
    /// Hashes in ascending order, at most [`EXACT_USERS`].
    Exact(Vec<u64>),
    /// Registers.
    Estimated(Box<Registers>),
}

/// Registers, and how many have each value, so that an estimate does not read all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Registers {
    pub(super) values: [u8; REGISTERS],
    histogram: [u16; VALUES],
}

impl Default for UniqueUsers {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl UniqueUsers {
    /// Counts the user with this hash, once.
    pub fn add(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) => {
                let Err(place) = hashes.binary_search(&hash) else { return };
                if hashes.len() < EXACT_USERS {
                    hashes.insert(place, hash);
                    return;
                }
                let mut registers = Box::<Registers>::default();
                hashes.iter().chain([&hash]).for_each(|hash| registers.add(*hash));
                *self = Self::Estimated(registers);
            }
            Self::Estimated(registers) => registers.add(hash),
        }
    }

    /// Their number, or the estimate.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::Exact(hashes) => hashes.len() as u64,
            Self::Estimated(registers) => registers.estimate().round() as u64,
        }
    }

    /// Relative standard error of [`Self::count`]: 1.04 / sqrt(registers), 0 where it is exact.
    #[must_use]
    pub fn error(&self) -> f64 {
        match self {
            Self::Exact(_) => 0.0,
            // 1.04 / sqrt(8192), to four digits
            Self::Estimated(_) => 0.0115,
        }
    }
}

impl Default for Registers {
    fn default() -> Self {
        Self::from_values([0; REGISTERS])
    }
}

impl Registers {
    pub(super) fn from_values(mut values: [u8; REGISTERS]) -> Self {
        let mut histogram = [0; VALUES];
        for value in &mut values {
            // a damaged register is no reason to leave the array
            *value = (*value).min(VALUES as u8 - 1);
            histogram[usize::from(*value)] += 1;
        }
        Self { values, histogram }
    }

    fn add(&mut self, hash: u64) {
        let register = &mut self.values[(hash >> REST) as usize];
        // position of the first one among the rest, from 1 on
        let value = ((hash << PRECISION).leading_zeros().min(REST) + 1) as u8;
        if value > *register {
            self.histogram[usize::from(*register)] -= 1;
            self.histogram[usize::from(value)] += 1;
            *register = value;
        }
    }

    fn estimate(&self) -> f64 {
        let size = REGISTERS as f64;
        let share = |value: usize| f64::from(self.histogram[value]) / size;
        let mut sum = size * tau(1.0 - share(VALUES - 1));
        for value in (1..VALUES - 1).rev() {
            sum = 0.5 * (sum + f64::from(self.histogram[value]));
        }
        sum += size * sigma(share(0));
        size * size / (2.0 * std::f64::consts::LN_2 * sum)
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x).powi(2) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn of(users: impl Iterator<Item = u64>) -> UniqueUsers {
        let mut unique = UniqueUsers::default();
        users.for_each(|user| unique.add(xxh3_64(&user.to_le_bytes())));
        unique
    }

    #[test]
    fn few_users_are_counted_exactly() {
        for number in [0, 1, 2, 1000, EXACT_USERS as u64] {
            let unique = of((0..number).chain(0..number));
            assert_eq!((unique.count(), unique.error()), (number, 0.0));
        }
    }

    #[test]
    fn many_users_are_estimated_within_four_standard_errors() {
        for number in [1025, 3000, 20_000, 100_000, 1_000_000] {
            let unique = of(0..number);
            let off = (unique.count() as f64 - number as f64).abs() / number as f64;
            assert!(unique.error() > 0.0 && off < 4.0 * unique.error(), "{number}: {}", unique.count());
        }
    }

    #[test]
    fn the_order_of_users_does_not_matter() {
        assert_eq!(of(0..5000), of((0..5000).rev()));
        assert_eq!(of(0..5000), of((0..5000).chain(0..5000)));
    }
}
