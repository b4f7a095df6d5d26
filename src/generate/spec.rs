//! The `[generate]` table of a log-type file, as written.
//!
//! Invariant: plain data; whether it fits the type's template is for `line` to say.
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::Deserialize;

/// How `pipeline generate` makes lines of a type.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenerateSpec {
    /// Share of the run's lines, relative to the other types' weights.
    pub weight: u32,
    /// Template to fill where the type's first one is not the line wanted (it has optional parts, say).
    pub line: Option<String>,
    /// What each capture of the template holds. `timestamp` needs none: it gets the line's own time.
    #[serde(default)]
    pub columns: BTreeMap<String, Chooser>,
}

/// How a column's value is drawn. All choices are uniform unless weighted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chooser {
    /// `{ one_of = ["TCP", "UDP"] }`
    OneOf(Vec<String>),
    /// `{ weighted = [["Accepted", 3], ["Failed", 2]] }`
    Weighted(Vec<(String, u32)>),
    /// `{ int = [64, 65535] }`: a whole number, both ends included.
    Int([u64; 2]),
    /// `{ ip_range = ["192.168.1.1", "192.168.1.254"] }`: both ends included.
    IpRange([Ipv4Addr; 2]),
    /// `{ external_ip = 10 }`: one of the first 10 of the 500 external addresses, which are drawn once per
    /// run and shared by all types.
    ExternalIp(u32),
    /// `{ numbered = { prefix = "auth-srv", digits = 2, range = [1, 7] } }`: auth-srv01 .. auth-srv07.
    Numbered(Numbered),
}

/// A name with a zero-padded number behind it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Numbered {
    /// Text before the number.
    pub prefix: String,
    /// Digits that the number is padded to with zeros.
    pub digits: u8,
    /// Least and greatest number.
    pub range: [u64; 2],
}
