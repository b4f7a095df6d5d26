//! How many requests one sender may send in a second: a token bucket per address.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// As many addresses are told apart; what comes from more shares one bucket.
const MAX_ADDRESSES: usize = 4096;

/// A second's worth of requests may come at once, then they are let in as time passes.
#[derive(Debug)]
pub struct RateLimit {
    per_second: f64,
    buckets: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl RateLimit {
    /// `per_second` requests for each address.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second.max(1)), buckets: Mutex::default() }
    }

    /// Whether a request of this sender is let in at `now`.
    pub fn lets_in(&self, sender: IpAddr, now: Instant) -> bool {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(sender);
        if buckets.len() >= MAX_ADDRESSES && !buckets.contains_key(&key) {
            // a full bucket is as good as none
            buckets.retain(|_, bucket| bucket.filled(self.per_second, now) < self.per_second);
            if buckets.len() >= MAX_ADDRESSES {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: self.per_second, at: now });
        let left = bucket.filled(self.per_second, now);
        let is_let_in = left >= 1.0;
        *bucket = Bucket { left: if is_let_in { left - 1.0 } else { left }, at: now };
        is_let_in
    }
}

impl Bucket {
    fn filled(&self, per_second: f64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * per_second).min(per_second)
    }
}

/// One subscriber has a whole /64 of IPv6.
fn network(sender: IpAddr) -> IpAddr {
    match sender.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_s_worth_is_let_in_at_once_and_then_as_time_passes() {
        let (limit, start) = (RateLimit::new(3), Instant::now());
        let let_in = |sender: &str, at: Duration| limit.lets_in(sender.parse().unwrap(), start + at);
        let burst = [(); 4].map(|()| let_in("10.0.0.1", Duration::ZERO));
        assert_eq!(burst, [true, true, true, false]);
        assert!(let_in("10.0.0.2", Duration::ZERO), "another sender has its own");
        assert!(!let_in("10.0.0.1", Duration::from_millis(300)));
        assert!(let_in("10.0.0.1", Duration::from_millis(400)));
        let v6 = [(); 4].map(|()| let_in("2001:db8::1", Duration::ZERO));
        assert_eq!(v6, [true, true, true, false]);
        assert!(!let_in("2001:db8::2", Duration::ZERO), "a network is one sender");
    }

    #[test]
    fn the_number_of_addresses_in_memory_is_bounded() {
        let (limit, start) = (RateLimit::new(1), Instant::now());
        for address in 0..20_000_u32 {
            limit.lets_in(IpAddr::from(address.to_be_bytes()), start);
        }
        assert!(limit.buckets.lock().unwrap().len() <= MAX_ADDRESSES + 1);
    }
}
