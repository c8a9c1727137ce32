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

/// Where a section ends: packets with data, and a flush behind them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// The section is here whole; its length in bytes, with that of the flush.
    Whole(usize),
    /// The packets up to this byte are here; the next packet is not here whole.
    Part(usize),
    /// An error of the host, a packet of another kind, or no packet comes before a flush.
    Other,
}

/// Cuts a stream of bytes into packets. Holds at most one packet and one chunk, unless its caller waits for a
/// whole section.
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
        let Some(digits) = self.buffer.first_chunk() else { return Ok(None) };
        let length = length_of(*digits)
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

    /// The bytes that are here and were not taken out.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Looks for the end of a section, from the packet that begins at this byte on. Takes nothing out.
    pub(crate) fn section(&self, mut at: usize) -> Section {
        loop {
            let rest = self.buffer.get(at..).unwrap_or_default();
            let Some(digits) = rest.first_chunk() else { return Section::Part(at) };
            match length_of(*digits) {
                Some(0) => return Section::Whole(at + HEAD_BYTES),
                Some(length @ HEAD_BYTES..=PACKET_BYTES_MAX) => match rest.get(HEAD_BYTES..length) {
                    Some(data) if data.starts_with(b"ERR ") => return Section::Other,
                    Some(_) => at += length,
                    None => return Section::Part(at),
                },
                _ => return Section::Other,
            }
        }
    }

    /// Takes these bytes out unread.
    pub(crate) fn skip(&mut self, bytes: usize) {
        drop(self.buffer.split_to(bytes.min(self.buffer.len())));
    }
}

/// The length that the digits before a payload name; `None`: these are no digits.
fn length_of(digits: [u8; HEAD_BYTES]) -> Option<usize> {
    let mut length = 0;
    for digit in digits {
        length = length * 16 + char::from(digit).to_digit(16)?;
    }
    usize::try_from(length).ok()
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
    fn the_end_of_a_section_is_found_however_the_stream_is_cut_and_nothing_is_taken_out() {
        let mut stream = Vec::new();
        write(&mut stream, "hello\n");
        write(&mut stream, "");
        write_flush(&mut stream);
        let length = stream.len();
        write(&mut stream, "more");
        for step in 1..=stream.len() {
            let (mut decoder, mut section) = (Decoder::default(), Section::Part(0));
            for chunk in stream.chunks(step) {
                decoder.push(chunk);
                if let Section::Part(at) = section {
                    section = decoder.section(at);
                }
            }
            assert_eq!((section, decoder.bytes()), (Section::Whole(length), &stream[..]), "step {step}");
            decoder.skip(length);
            assert_eq!(decoder.packet().expect("valid"), Some(Packet::Data(Bytes::from_static(b"more"))));
        }
        for other in ["0001", "0009hello0002", "000fERR denied\n0000", "0009hello<htm", "0003"] {
            let mut decoder = Decoder::default();
            decoder.push(other.as_bytes());
            assert_eq!(decoder.section(0), Section::Other, "{other}");
        }
        for (part, at) in [("", 0), ("000", 0), ("000ahello", 0), ("0009hello", 9), ("0009hello00", 9)] {
            let mut decoder = Decoder::default();
            decoder.push(part.as_bytes());
            assert_eq!(decoder.section(0), Section::Part(at), "{part}");
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
