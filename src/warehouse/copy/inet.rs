//! The `inet` value: address text <-> wire bytes.
//!
//! ```text
//! 0        1             2        3              4
//! | family | prefix bits | is cidr| address bytes| address ..
//! | 2 | 3  | 0 .. 32|128 | 0      | 4 | 16       |
//! ```
//!
//! Text is Rust's rendering of the address; `/n` follows only if the prefix is shorter than the address.
use std::fmt;
use std::net::IpAddr;

/// `PGSQL_AF_INET` and the one after it (`src/include/utils/inet.h`): not the operating system's numbers.
const V4: u8 = 2;
const V6: u8 = 3;

/// An address with a prefix length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inet {
    address: IpAddr,
    prefix_bits: u8,
}

impl Inet {
    /// Reads an address, with `/n` or without.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, prefix_bits) = match text.split_once('/') {
            None => (text.parse().ok()?, None),
            Some((address, prefix_bits)) => (address.parse().ok()?, Some(prefix_bits.parse::<u8>().ok()?)),
        };
        let prefix_bits = prefix_bits.unwrap_or_else(|| all_bits(address));
        (prefix_bits <= all_bits(address)).then_some(Self { address, prefix_bits })
    }

    /// Reads a value of the wire; `None` if it is none.
    pub(super) fn from_wire(value: &[u8]) -> Option<Self> {
        let (&[family, prefix_bits, is_cidr, _len], address) = value.split_first_chunk::<4>()?;
        let address = match family {
            V4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
            V6 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
            _ => return None,
        };
        let is_sound = is_cidr <= 1 && value[3] as usize + 4 == value.len();
        (is_sound && prefix_bits <= all_bits(address)).then_some(Self { address, prefix_bits })
    }

    /// Appends the value's wire bytes.
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self.address {
            IpAddr::V4(address) => {
                out.extend([V4, self.prefix_bits, 0, 4]);
                out.extend(address.octets());
            }
            IpAddr::V6(address) => {
                out.extend([V6, self.prefix_bits, 0, 16]);
                out.extend(address.octets());
            }
        }
    }
}

impl fmt::Display for Inet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)?;
        if self.prefix_bits < all_bits(self.address) { write!(f, "/{}", self.prefix_bits) } else { Ok(()) }
    }
}

fn all_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_from_the_wire() {
        for text in ["0.0.0.0", "10.1.2.3", "10.1.0.0/16", "1.2.3.4/0", "::", "2001:db8::1", "fe80::/10"] {
            let mut wire = Vec::new();
            Inet::parse(text).unwrap().write(&mut wire);
            assert_eq!(Inet::from_wire(&wire).unwrap().to_string(), text);
            for cut in 0..wire.len() {
                assert_eq!(Inet::from_wire(&wire[..cut]), None);
            }
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "fe80::1%eth0"] {
            assert_eq!(Inet::parse(text), None, "{text}");
        }
        for wire in [[4, 32, 0, 4, 1, 2, 3, 4], [2, 33, 0, 4, 1, 2, 3, 4], [2, 32, 0, 5, 1, 2, 3, 4]] {
            assert_eq!(Inet::from_wire(&wire), None, "{wire:?}");
        }
    }
}
