//! The bodies of what replicas answer.

use bytes::{BufMut, Bytes, BytesMut};

use super::{REFUSED, Reason, Refused, Replies, check_run, take_u8, take_u32, take_u64};
use crate::codec::DecodeError;
use crate::ids::{CommandNumber, SessionId};

pub(super) fn take_replies(frame: &mut Bytes) -> Result<Replies, DecodeError> {
    let session = SessionId(take_u64(frame)?);
    let first = CommandNumber(take_u64(frame)?);
    let count = take_u32(frame)?;
    let bytes = take_u32(frame)? as usize;
    if frame.len() < bytes {
        return Err(DecodeError::Short);
    }
    let replies = frame.split_to(bytes);
    check_run(&replies, count)?;
    Ok(Replies {
        session,
        first,
        count,
        replies,
    })
}

pub(super) fn put_refused(out: &mut BytesMut, refused: &Refused) {
    let (code, argument) = match refused.reason {
        Reason::Busy { retry_after_us } => (0, retry_after_us),
        Reason::Gap => (1, 0),
        Reason::NotLeader => (2, 0),
        Reason::UnknownSession => (3, 0),
        Reason::OverLimit { limit } => (4, limit),
        Reason::NotAttached => (5, 0),
    };
    out.put_u8(REFUSED);
    out.put_u64_le(refused.session.0);
    out.put_u64_le(refused.expected.0);
    out.put_u8(code);
    out.put_u32_le(argument);
}

pub(super) fn take_refused(frame: &mut Bytes) -> Result<Refused, DecodeError> {
    let session = SessionId(take_u64(frame)?);
    let expected = CommandNumber(take_u64(frame)?);
    let code = take_u8(frame)?;
    let argument = take_u32(frame)?;
    let reason = match code {
        0 => Reason::Busy {
            retry_after_us: argument,
        },
        1 => Reason::Gap,
        2 => Reason::NotLeader,
        3 => Reason::UnknownSession,
        4 => Reason::OverLimit { limit: argument },
        5 => Reason::NotAttached,
        _ => return Err(DecodeError::Kind(code)),
    };
    Ok(Refused {
        session,
        expected,
        reason,
    })
}

pub(super) fn take_status(frame: &mut Bytes) -> Result<Vec<(String, u64)>, DecodeError> {
    let count = take_u32(frame)?;
    let mut values = Vec::new();
    for _ in 0..count {
        let length = usize::from(take_u8(frame)?);
        if frame.len() < length {
            return Err(DecodeError::Short);
        }
        let name = String::from_utf8_lossy(&frame.split_to(length)).into_owned();
        values.push((name, take_u64(frame)?));
    }
    Ok(values)
}
