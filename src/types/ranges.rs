//! Many address ranges as one set.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Cidr;

/// A set of addresses made of ranges: sorted, and joined where they touch or lie in each other. Whether an address is in
/// it takes one binary search. A range takes 8 bytes for IPv4 and 32 for IPv6.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges {
    v4: Sorted<u32>,
    v6: Sorted<u128>,
}

impl Ranges {
    /// Whether the address lies in one of the ranges. An IPv4-mapped one is the IPv4 address it carries.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.contains(v4.to_bits()),
            IpAddr::V6(v6) => self.v6.contains(v6.to_bits()),
        }
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many ranges are left after joining.
    pub fn len(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }
}

impl FromIterator<Cidr> for Ranges {
    fn from_iter<I: IntoIterator<Item = Cidr>>(ranges: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range.bounds() {
                (IpAddr::V4(first), IpAddr::V4(last)) => v4.push((first.to_bits(), last.to_bits())),
                (first, last) => v6.push((bits(first), bits(last))),
            }
        }
        Self { v4: Sorted::new(v4), v6: Sorted::new(v6) }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::to_ipv6_mapped(&v4).to_bits(),
        IpAddr::V6(v6) => Ipv6Addr::to_bits(v6),
    }
}

/// Ranges that neither touch nor overlap, in order. Only the starts are searched, so they lie together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sorted<T> {
    starts: Box<[T]>,
    ends: Box<[T]>,
}

impl<T: Copy + Ord + Next> Sorted<T> {
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let (mut starts, mut ends) =
            (Vec::with_capacity(ranges.len()), Vec::<T>::with_capacity(ranges.len()));
        for (start, end) in ranges {
            match ends.last_mut() {
                Some(last) if last.next().is_none_or(|next| start <= next) => *last = end.max(*last),
                _ => {
                    starts.push(start);
                    ends.push(end);
                }
            }
        }
        Self { starts: starts.into(), ends: ends.into() }
    }

    fn contains(&self, address: T) -> bool {
        let after = self.starts.partition_point(|start| *start <= address);
        after.checked_sub(1).is_some_and(|at| address <= self.ends[at])
    }
}

/// What comes after a number.
trait Next: Sized {
    fn next(&self) -> Option<Self>;
}

impl Next for u32 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Next for u128 {
    fn next(&self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ranges(texts: &[&str]) -> Ranges {
        texts.iter().map(|text| text.parse::<Cidr>().unwrap()).collect()
    }

    #[test]
    fn neighbours_and_nested_ranges_are_one() {
        let all =
            ranges(&["10.0.0.0/9", "10.128.0.0/9", "10.1.2.3", "192.0.2.7", "2001:db8::/32", "2001:db8::1"]);
        assert_eq!(all.len(), 3);
        for (address, is) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("::ffff:192.0.2.7", true),
            ("::ffff:192.0.2.6", false),
            ("2001:db8:ffff::", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(all.contains(address.parse().unwrap()), is, "{address}");
        }
        assert!(ranges(&[]).is_empty() && !ranges(&[]).contains("::1".parse().unwrap()));
        let everyone = ranges(&["0.0.0.0/0", "255.255.255.255", "::/0"]);
        assert!(
            everyone.contains("255.255.255.255".parse().unwrap())
                && everyone.contains("ffff::".parse().unwrap())
        );
    }

    fn any_range() -> impl Strategy<Value = Cidr> {
        // Few bits, so that ranges meet.
        let v4 = (0..16_u32, 28..=32_u32).prop_map(|(low, bits)| {
            let mask = u32::MAX << (32 - bits);
            format!("{}/{bits}", Ipv4Addr::from_bits((0xFFFF_FFF0 | low) & mask))
        });
        let v6 = (0..16_u128, 124..=128_u32).prop_map(|(low, bits)| {
            let mask = u128::MAX << (128 - bits);
            format!("{}/{bits}", Ipv6Addr::from_bits(low & mask))
        });
        prop_oneof![v4, v6].prop_map(|text| text.parse().unwrap())
    }

    proptest! {
        #[test]
        fn a_set_holds_what_one_of_its_ranges_holds(all in prop::collection::vec(any_range(), 0..12)) {
            let set: Ranges = all.iter().copied().collect();
            for low in 0..16_u32 {
                for address in
                    [IpAddr::from(Ipv4Addr::from_bits(0xFFFF_FFF0 | low)), Ipv6Addr::from_bits(low.into()).into()]
                {
                    let one = all.iter().any(|range| range.contains(address));
                    prop_assert_eq!(set.contains(address), one, "{} in {:?}", address, all);
                }
            }
        }
    }
}
