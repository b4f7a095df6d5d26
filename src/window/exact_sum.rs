//! A sum of floats without any rounding, so that it does not depend on their order.
//!
//! Held as numbers whose bits do not overlap (Shewchuk, "Adaptive precision floating-point arithmetic", 1997), and
//! rounded once, to the nearest float and half to even, when asked, as Python's `math.fsum` does. A few numbers for
//! values of like size, 40 for any.

/// An exact sum.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExactSum {
    /// Of growing size, none 0, no two with overlapping bits.
    pub(super) parts: Vec<f64>,
}

impl ExactSum {
    /// Adds a value of at most [`Event::MAX_VALUE`](crate::model::Event::MAX_VALUE) in size.
    pub fn add(&mut self, value: f64) {
        let mut sum = value;
        let mut kept = 0;
        for index in 0..self.parts.len() {
            let part = self.parts[index];
            let (large, small) = if sum.abs() < part.abs() { (part, sum) } else { (sum, part) };
            let total = large + small;
            let lost = small - (total - large);
            if lost != 0.0 {
                self.parts[kept] = lost;
                kept += 1;
            }
            sum = total;
        }
        self.parts.truncate(kept);
        if sum != 0.0 {
            self.parts.push(sum);
        }
    }

    /// Adds all that another sum holds.
    pub fn add_all(&mut self, other: &Self) {
        other.parts.iter().for_each(|part| self.add(*part));
    }

    /// The float nearest to the sum.
    #[must_use]
    pub fn value(&self) -> f64 {
        let mut rest = self.parts.iter().rev().copied();
        let Some(mut sum) = rest.next() else { return 0.0 };
        let mut lost = 0.0;
        for part in rest.by_ref() {
            let large = sum;
            sum = large + part;
            lost = part - (sum - large);
            if lost != 0.0 {
                break;
            }
        }
        // halfway between two floats: what lies below decides, where rounding to even did not
        if let Some(below) = rest.next()
            && (lost < 0.0 && below < 0.0 || lost > 0.0 && below > 0.0)
        {
            let doubled = lost * 2.0;
            let moved = sum + doubled;
            if moved - sum == doubled {
                sum = moved;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> f64 {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        sum.value()
    }

    #[test]
    fn sums_are_those_of_fsum() {
        let half_ulp = f64::EPSILON / 2.0;
        for (values, expected) in [
            (vec![], 0.0),
            (vec![-0.0], 0.0),
            (vec![0.1; 10], 1.0),
            (vec![1e280, 1.0, -1e280], 1.0),
            (vec![1e16, 1.0, 1e-16], 1e16 + 2.0),
            (vec![1.0, half_ulp], 1.0),
            (vec![1.0, half_ulp, 1e-300], 1.0 + f64::EPSILON),
            (vec![f64::from_bits(1), f64::from_bits(1)], f64::from_bits(2)),
        ] {
            assert_eq!(sum(&values).to_bits(), f64::to_bits(expected), "{values:?}");
        }
    }

    proptest! {
        #[test]
        fn the_order_of_values_does_not_matter(
            values in prop::collection::vec((-1.0..1.0f64, -900..900i32), 0..60),
            keys in prop::collection::vec(any::<u32>(), 60),
        ) {
            let values: Vec<_> = values.iter().map(|(value, power)| value * 2f64.powi(*power)).collect();
            let mut order: Vec<_> = (0..values.len()).collect();
            order.sort_by_key(|index| keys[*index]);
            let shuffled: Vec<_> = order.into_iter().map(|index| values[index]).collect();
            prop_assert_eq!(sum(&values).to_bits(), sum(&shuffled).to_bits());
        }

        #[test]
        fn sums_of_whole_numbers_are_those_of_integers(
            values in prop::collection::vec(any::<i64>(), 0..200),
        ) {
            let floats: Vec<_> = values.iter().map(|value| *value as f64).collect();
            let expected: i128 = floats.iter().map(|value| *value as i128).sum();
            prop_assert_eq!(sum(&floats), expected as f64);
        }
    }
}
