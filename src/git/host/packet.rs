//! The packet lines of the Git protocol: four hexadecimal digits of length, then the payload;
//! lengths 0, 1 and 2 are marks without payload. See gitprotocol-common(5), "pkt-line Format".

use bytes::{Bytes, BytesMut};
use tidings_actors::ports::GitError;

/// Longest packet, its four digits included.
const PACKET_BYTES_MAX: usize = 65_520;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The digits before a payload.
pub(crate) const HEAD_BYTES: usize = 4;

/// One packet line, without its length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The payload of a packet.
    Data(Bytes),
    /// `0000`: the end of a message.
    Flush,
    /// `0001`: the end of a section.
    Delimiter,
    /// `0002`: the end of an answer.
    End,
}

/// Cuts a stream of bytes into packets. Holds at most one packet and one chunk.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether the stream may end here.
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next packet, if all of it is here.
    ///
    /// # Errors
    /// [`GitError::Protocol`] for bytes that are no packet.
    pub(crate) fn packet(&mut self) -> Result<Option<Packet>, GitError> {
        let Some(digits) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| usize::from_str_radix(digits, 16).ok())
            .ok_or_else(|| GitError::Protocol("the answer is not made of packets".to_owned()))?;
        let packet = match length {
            0 => Packet::Flush,
            1 => Packet::Delimiter,
            2 => Packet::End,
            3 => return Err(GitError::Protocol("a packet of length 3".to_owned())),
            4..=PACKET_BYTES_MAX => {
                if self.buffer.len() < length {
                    return Ok(None);
                }
                let mut packet = self.buffer.split_to(length);
                return Ok(Some(Packet::Data(packet.split_off(4).freeze())));
            }
            _ => return Err(GitError::Protocol("a packet is longer than the protocol allows".to_owned())),
        };
        drop(self.buffer.split_to(4));
        Ok(Some(packet))
    }
}

/// Appends a packet with this payload.
pub(crate) fn write(out: &mut Vec<u8>, payload: &str) {
    debug_assert!(payload.len() + 4 <= PACKET_BYTES_MAX, "a line of ours is short");
    let length = u16::try_from(payload.len() + HEAD_BYTES).unwrap_or(u16::MAX);
    for shift in [12, 8, 4, 0] {
        out.push(HEX_DIGITS[usize::from((length >> shift) & 0xf)]);
    }
    out.extend_from_slice(payload.as_bytes());
}

/// Appends the end of a message.
pub(crate) fn write_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

/// Appends the end of a section.
pub(crate) fn write_delimiter(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0001");
}

/// A payload as a line: without the newline that may end it.
pub(crate) fn line(payload: &[u8]) -> &[u8] {
    payload.strip_suffix(b"\n").unwrap_or(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_whole_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        write(&mut stream, "hello\n");
        write_delimiter(&mut stream);
        write(&mut stream, "");
        write_flush(&mut stream);
        for step in 1..=stream.len() {
            let (mut decoder, mut packets) = (Decoder::default(), Vec::new());
            for chunk in stream.chunks(step) {
                decoder.push(chunk);
                while let Some(packet) = decoder.packet().expect("valid") {
                    packets.push(packet);
                }
            }
            let expected = [
                Packet::Data(Bytes::from_static(b"hello\n")),
                Packet::Delimiter,
                Packet::Data(Bytes::new()),
                Packet::Flush,
            ];
            assert_eq!(packets, expected, "step {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn a_packet_begins_with_its_length_in_four_digits() {
        for (length, head) in [(0, "0004"), (4, "0008"), (255, "0103"), (65_516, "fff0")] {
            let (mut out, payload) = (Vec::new(), "a".repeat(length));
            write(&mut out, &payload);
            assert_eq!(out, format!("{head}{payload}").as_bytes());
        }
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        for bad in ["<htm", "0003", "fff1", "+00a", "zzzz"] {
            let mut decoder = Decoder::default();
            decoder.push(bad.as_bytes());
            assert!(matches!(decoder.packet(), Err(GitError::Protocol(_))), "{bad}");
        }
    }
}
