//! WebSocket (RFC 6455) as the bench speaks it: one small binary message, and its echo.

/// Path of the origin's echo.
pub const ECHO_PATH: &str = "/echo";
/// The key of RFC 6455's example, and what it is answered with.
pub const UPGRADE: &str = "GET /echo HTTP/1.1\r\nHost: bench.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub const UPGRADED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

const BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const MESSAGE: [u8; 100] = [b'x'; 100];
/// Of a client's frame, before its payload: two bytes and the mask.
const CLIENT_HEAD: usize = 6;

/// The message as a client sends it, masked.
pub fn client_frame() -> Vec<u8> {
    let masked = MESSAGE.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [BINARY, MASKED | MESSAGE.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

/// The message as a server sends it.
pub fn server_frame() -> Vec<u8> {
    [&[BINARY, MESSAGE.len() as u8], &MESSAGE[..]].concat()
}

/// Takes whole frames of a client (of fewer than 126 bytes) off the buffer and gives them back as a server's.
pub fn echo(buffer: &mut Vec<u8>) -> Vec<u8> {
    let mut answer = Vec::new();
    let mut taken = 0;
    while let Some(&[kind, length]) = buffer.get(taken..taken + 2) {
        let length = length & !MASKED;
        let Some(frame) = buffer.get(taken..taken + CLIENT_HEAD + usize::from(length)) else { break };
        let (mask, payload) = frame[2..].split_at(MASK.len());
        answer.extend([kind, length]);
        answer.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        taken += frame.len();
    }
    buffer.drain(..taken);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_the_message_unmasked_wherever_the_bytes_are_cut() {
        let two = [client_frame(), client_frame()].concat();
        for cut in 0..two.len() {
            let mut buffer = two[..cut].to_vec();
            let mut answer = echo(&mut buffer);
            buffer.extend(&two[cut..]);
            answer.extend(echo(&mut buffer));
            assert_eq!(answer, [server_frame(), server_frame()].concat(), "cut at {cut}");
            assert!(buffer.is_empty());
        }
    }
}
