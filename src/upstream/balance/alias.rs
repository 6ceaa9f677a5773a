//! Drawing lots by weight, at the same cost for however many endpoints.
//!
//! Walker's alias method ("An Efficient Method for Generating Discrete Random Variables with General Distributions",
//! 1977), its table built as Vose has it (1991): as many columns as there are members, all of the same height, each shared
//! by at most two members. A column is drawn, then one of its two.

use super::{EndpointId, Member, anyone, key::to_index, weighted};

/// How many lots are drawn before everyone is looked at. The chance of that is the share of what is not admitted to
/// the power of this.
const DRAWS: usize = 8;

/// Members to draw from.
pub(super) struct Lots {
    members: Box<[Member]>,
    columns: Box<[Column]>,
}

struct Column {
    /// The part of the column that is its own member's, of 2^32; the rest is the other's.
    own: u32,
    other: u16,
}

impl Lots {
    pub(super) fn new(members: &[Member]) -> Self {
        let members = weighted(members);
        let columns = columns(&members);
        Self { members, columns }
    }

    /// One member, whether it is admitted or not.
    fn draw(&self) -> Option<&Member> {
        let number = fastrand::u64(..);
        let at = to_index(number, self.columns.len());
        // The column hangs on the upper bits, the part of it on the lower.
        let column = self.columns.get(at)?;
        let at = if number as u32 <= column.own { at } else { usize::from(column.other) };
        self.members.get(at)
    }

    /// One that is admitted.
    pub(super) fn one(&self, admits: &dyn Fn(EndpointId) -> bool) -> Option<EndpointId> {
        let drawn = (0..DRAWS).find_map(|_| self.draw().filter(|member| admits(member.id)));
        drawn.map(|member| member.id).or_else(|| anyone(&self.members, admits))
    }

    /// One that is admitted, and another; no other when none comes up in a few draws.
    pub(super) fn two(
        &self,
        admits: &dyn Fn(EndpointId) -> bool,
    ) -> Option<(EndpointId, Option<EndpointId>)> {
        let one = self.one(admits)?;
        if self.members.len() == 1 {
            return Some((one, None));
        }
        let other = |_| self.draw().filter(|member| member.id != one && admits(member.id));
        Some((one, (0..DRAWS).find_map(other).map(|member| member.id)))
    }
}

fn columns(members: &[Member]) -> Box<[Column]> {
    let height: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let count = members.len() as u64;
    // In units in which everyone's lots together fill the columns exactly.
    let mut left: Vec<u64> = members.iter().map(|member| u64::from(member.weight) * count).collect();
    let mut columns: Box<[Column]> =
        (0..members.len()).map(|at| Column { own: u32::MAX, other: at as u16 }).collect();
    let (mut short, mut long): (Vec<usize>, Vec<usize>) =
        (0..members.len()).partition(|at| left[*at] < height);
    while let (Some(at), Some(other)) = (short.pop(), long.pop()) {
        columns[at] = Column { own: ((left[at] << 32) / height) as u32, other: other as u16 };
        left[other] -= height - left[at];
        if left[other] < height { short.push(other) } else { long.push(other) }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{Fixture, assert_near};
    use super::*;

    proptest! {
        #[test]
        fn the_columns_hold_everyone_by_weight(weights in prop::collection::vec(1u16..=1000, 1..300)) {
            let lots = Lots::new(&Fixture::members(&weights));
            let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
            let mut shares = vec![0.0; weights.len()];
            for (at, column) in lots.columns.iter().enumerate() {
                let own = f64::from(column.own) / f64::from(u32::MAX);
                shares[at] += own / weights.len() as f64;
                shares[usize::from(column.other)] += (1.0 - own) / weights.len() as f64;
            }
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((share - f64::from(*weight) / sum).abs() < 1e-6, "{share} of {weight}");
            }
        }
    }

    #[test]
    fn two_are_two() {
        let lots = Lots::new(&Fixture::members(&[1, 1, 1]));
        for _ in 0..1000 {
            let (one, other) = lots.two(&|id| id.0 != 1).unwrap();
            assert!(one.0 != 1 && other.is_none_or(|other| other != one && other.0 != 1));
        }
        assert_eq!(lots.two(&|id| id.0 == 1), Some((EndpointId(1), None)));
        assert_eq!(lots.two(&|_| false), None);
        assert_eq!(Lots::new(&[]).two(&|_| true), None);
    }

    #[test]
    fn lots_fall_by_weight() {
        let fixture = Fixture::new(&[1, 2, 7]);
        let lots = Lots::new(&fixture.members);
        assert_near(&fixture.shares_of(200_000, || lots.one(&|_| true)), &[0.1, 0.2, 0.7], 0.03);
    }
}
