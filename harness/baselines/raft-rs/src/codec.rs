//! Raft's messages as frames.
//!
//! ```text
//!   length of the rest u32 | bytes of the message u32 | message (protobuf) | value of its only entry, if it has one
//! ```
//! The value of a lone entry travels beside its message, so that it is neither copied nor encoded per receiver.

use bytes::{Buf, Bytes, BytesMut};
use protobuf::{CodedInputStream, CodedOutputStream, Message as _};
use raft::eraftpb::Message;
use synod_baseline_shell::Malformed;

const PREFIX_BYTES: usize = 4;
const HEAD_BYTES: usize = PREFIX_BYTES + 4;

/// The head and the body of the message's frame.
pub fn encode(mut message: Message) -> (Bytes, Bytes) {
    let body = match message.mut_entries().as_mut_slice() {
        [entry] => std::mem::take(&mut entry.data),
        _ => Bytes::new(),
    };
    let size = message.compute_size() as usize;
    let mut head = BytesMut::zeroed(HEAD_BYTES + size);
    let length = (HEAD_BYTES - PREFIX_BYTES + size + body.len()) as u32;
    head[..PREFIX_BYTES].copy_from_slice(&length.to_le_bytes());
    head[PREFIX_BYTES..HEAD_BYTES].copy_from_slice(&(size as u32).to_le_bytes());
    let mut stream = CodedOutputStream::bytes(&mut head[HEAD_BYTES..]);
    message
        .write_to_with_cached_sizes(&mut stream)
        .and_then(|()| stream.flush())
        .expect("memory of the computed size takes the message");
    (head.freeze(), body)
}

/// The message of a frame without its length prefix.
pub fn decode(mut frame: Bytes) -> Result<Message, Malformed> {
    let size = frame.try_get_u32_le().map_err(|_| Malformed)? as usize;
    if frame.len() < size {
        return Err(Malformed);
    }
    let encoded = frame.split_to(size);
    let mut message = Message::default();
    // From `Bytes`, so that the values are slices of the frame.
    let mut stream = CodedInputStream::from_carllerche_bytes(&encoded);
    message.merge_from(&mut stream).map_err(|_| Malformed)?;
    match message.mut_entries().as_mut_slice() {
        [entry] => entry.data = frame,
        _ if frame.is_empty() => {}
        _ => return Err(Malformed),
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use raft::eraftpb::{Entry, MessageType};

    use super::*;

    fn message(values: &[&'static [u8]]) -> Message {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgAppend);
        message.set_index(7);
        let entry = |value: &&'static [u8]| Entry {
            data: Bytes::from_static(value),
            term: 3,
            ..Entry::default()
        };
        message.set_entries(values.iter().map(entry).collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn messages_come_back_as_they_were_and_damage_is_an_error() {
        let cases: [&[&'static [u8]]; 4] = [&[], &[b"one"], &[b""], &[b"one", b"two"]];
        for values in cases {
            let (head, body) = encode(message(values));
            let frame = [head, body].concat();
            let length = u32::from_le_bytes(frame[..4].try_into().expect("four bytes"));
            assert_eq!(length as usize, frame.len() - PREFIX_BYTES);
            let frame = Bytes::from(frame).slice(PREFIX_BYTES..);
            assert_eq!(decode(frame.clone()), Ok(message(values)));
            assert_eq!(decode(frame.slice(..6)), Err(Malformed));
        }
    }
}
