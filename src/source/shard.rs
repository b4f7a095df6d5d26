//! One reader's share of a backlog that several readers divide without talking to each other.
//!
//! Who takes a part is decided by a hash of what it is, not by its place in a list: readers that list at different
//! times, while objects come and go, still agree on every part that they all see. Deliberately absent: a coordinator,
//! and taking over what another reader left (any reader without a share ships what is lacking).
use std::fmt;
use std::str::FromStr;

use crate::model::Source;

/// Reader `I` of `N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: u64,
    count: u64,
}

impl Shard {
    /// Whether the part of `path` that begins near `first_byte` is this reader's. Of all shards exactly one says yes.
    pub fn takes(&self, path: &str, first_byte: u64) -> bool {
        Source::identity(path, first_byte, 0, 0) % self.count == self.index
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, count)| {
            Some((number.trim().parse::<u32>().ok()?, count.trim().parse::<u32>().ok()?))
        });
        match numbers {
            Some((number, count)) if (1..=count).contains(&number) => {
                Ok(Self { index: u64::from(number) - 1, count: u64::from(count) })
            }
            _ => Err("I/N is expected, such as 1/4 for the first of four readers".to_owned()),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_exactly_one_shards_and_each_gets_its_share() {
        for count in [1, 2, 3, 7] {
            let shards: Vec<Shard> =
                (1..=count).map(|number| format!("{number}/{count}").parse().unwrap()).collect();
            let mut taken = vec![0; count];
            for part in 0..1000_u64 {
                let path = format!("s3://logs/fw/{}.log", part / 4);
                let takers: Vec<_> =
                    (0..count).filter(|index| shards[*index].takes(&path, (part % 4) << 28)).collect();
                assert_eq!(takers.len(), 1, "{path}");
                taken[takers[0]] += 1;
            }
            assert!(taken.iter().all(|parts| parts * count * 2 > 1000), "{taken:?}");
        }
    }

    #[test]
    fn only_a_number_of_a_count_is_a_shard() {
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
        for text in ["", "1", "0/2", "3/2", "1/0", "-1/2", "a/b", "1/2/3"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
