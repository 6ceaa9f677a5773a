//! WebSocket frames (RFC 6455, section 5.2), followed as they pass and never touched.

/// A Close frame with 1001, going away (section 7.4.1), as servers send it.
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xe9];

/// The opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// The longest frame header: two bytes, eight of length, four of mask.
const MOST_HEADER: usize = 14;

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; MOST_HEADER],
    /// How much of the header is here.
    have: usize,
    /// How much of the payload is still to come.
    left: u64,
    closed: bool,
}

impl Frames {
    /// Whether the next byte begins a frame.
    pub(super) fn at_boundary(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Whether a whole Close frame has passed.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// Takes all of `bytes`.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = self.pass_frame(bytes);
            bytes = &bytes[taken..];
        }
    }

    /// Takes bytes up to the end of the frame under way; how many they were.
    pub(super) fn pass_frame(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(byte) = bytes.get(taken) {
            if self.left > 0 {
                let rest = bytes.len() - taken;
                let payload = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= payload as u64;
                taken += payload;
            } else {
                self.header[self.have] = *byte;
                self.have += 1;
                taken += 1;
                self.left = match self.payload() {
                    Some(length) => length,
                    None => continue,
                };
                self.have = 0;
            }
            if self.left == 0 {
                self.closed |= self.header[0] & 0xf == CLOSE;
                break;
            }
        }
        taken
    }

    /// The length of the payload, once the header is whole.
    fn payload(&self) -> Option<u64> {
        let header = self.header.get(..self.have)?;
        let [_, second, rest @ ..] = header else { return None };
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        if rest.len() < wide + mask {
            return None;
        }
        let long = rest[..wide].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
        Some(if wide == 0 { u64::from(second & 0x7f) } else { long })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(mask | length as u8),
            length @ 126..0x1_0000 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(&[1, 2, 3, 4]);
        }
        frame.extend_from_slice(payload);
        frame
    }

    proptest! {
        #[test]
        fn frames_end_where_they_end_however_they_are_cut(
            kinds in prop::collection::vec((0..3_u8, any::<bool>(), prop::sample::select(vec![0, 1, 125, 126, 300, 70_000])), 1..5),
            pieces in prop::collection::vec(1..200_usize, 1..50),
        ) {
            let frames: Vec<_> = kinds.iter().map(|(opcode, masked, size)| frame(*opcode, *masked, &vec![7; *size])).collect();
            let all = frames.concat();
            let mut follow = Frames::default();
            let mut rest = all.as_slice();
            for size in pieces.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                follow.pass(piece);
                rest = after;
            }
            prop_assert!(follow.at_boundary() && !follow.closed());
            let mut follow = Frames::default();
            let mut at = 0;
            for frame in &frames {
                let taken = follow.pass_frame(&all[at..]);
                prop_assert_eq!(taken, frame.len());
                at += taken;
            }
        }
    }

    #[test]
    fn a_close_is_seen_when_it_is_whole() {
        let close = frame(CLOSE, true, b"\x03\xe8bye");
        let mut follow = Frames::default();
        for byte in &close[..close.len() - 1] {
            follow.pass(&[*byte]);
            assert!(!follow.closed() && !follow.at_boundary());
        }
        follow.pass(&close[close.len() - 1..]);
        assert!(follow.closed() && follow.at_boundary());
        let mut ours = Frames::default();
        ours.pass(&GOING_AWAY);
        assert!(ours.closed() && ours.at_boundary());
    }
}
