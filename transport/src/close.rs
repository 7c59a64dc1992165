//! Why a connection of ours is closed: the code and text that the other side gets to see.

use quinn::{Connection, ConnectionError, TransportErrorCode, VarInt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The process ends; trying again later makes sense.
    Shutdown = 0,
    /// Version, cluster or replica id in the Hello are not the right ones.
    Hello = 1,
    /// The certificate is of our CA but not for who the Hello says.
    Certificate = 2,
    /// Bytes that are not frames of ours.
    Violation = 3,
    /// The same replica came with a newer connection.
    Replaced = 4,
    /// A client did not take its replies.
    SlowClient = 5,
    /// `clients_max` clients are connected.
    ClientsMax = 6,
    /// The certificate was revoked while the connection was up.
    Revoked = 7,
}

impl CloseCode {
    pub fn close(self, connection: &Connection, reason: &str) {
        connection.close(VarInt::from_u32(self as u32), reason.as_bytes());
    }
}

/// Whether a failure lasts until somebody changes a configuration, so that trying again is only a courtesy.
pub fn is_lasting(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            let code = close.error_code.into_inner();
            let lasting = [CloseCode::Hello, CloseCode::Certificate, CloseCode::Revoked];
            lasting.into_iter().any(|each| each as u64 == code)
        }
        // TLS alerts are QUIC errors from 0x100 on.
        ConnectionError::ConnectionClosed(close) => is_crypto(u64::from(close.error_code)),
        ConnectionError::TransportError(error) => is_crypto(u64::from(error.code)),
        ConnectionError::VersionMismatch => true,
        ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => false,
    }
}

/// Whether the other side has no place at the moment, which hundreds of others may be waiting for as well.
pub fn is_crowded(error: &ConnectionError) -> bool {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            close.error_code.into_inner() == CloseCode::ClientsMax as u64
        }
        ConnectionError::ConnectionClosed(close) => {
            close.error_code == TransportErrorCode::CONNECTION_REFUSED
        }
        ConnectionError::TransportError(_)
        | ConnectionError::VersionMismatch
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => false,
    }
}

fn is_crypto(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}
