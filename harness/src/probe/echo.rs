//! Round trips by UDP: one end sends datagrams, the other returns them.
//!
//! ```text
//! token u64 | kind u8: 0 question, 1 answer | number u32 | zeros up to 64 bytes, so that no answer is larger
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::net::UdpSocket;
use tokio::time::Instant;

use crate::probe::protocol::RoundTrips;

const DATAGRAM_BYTES: usize = 64;
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A path that loses this many one after the other is not asked again.
const LOST_IN_A_ROW_MAX: u32 = 3;
const QUESTION: u8 = 0;
const ANSWER: u8 = 1;

/// Returns every datagram that carries the token. Never ends.
pub async fn answer(socket: UdpSocket, token: u64) {
    let mut buffer = [0u8; DATAGRAM_BYTES + 1];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            // An error of an earlier answer that could not be delivered.
            continue;
        };
        if length != DATAGRAM_BYTES || buffer[..8] != token.to_le_bytes() || buffer[8] != QUESTION {
            continue;
        }
        buffer[8] = ANSWER;
        // A lost answer is what is measured.
        let _ = socket.send_to(&buffer[..length], from).await;
    }
}

/// Asks `target` `count` times, one after the other.
pub async fn ping(target: SocketAddr, token: u64, count: u32) -> anyhow::Result<RoundTrips> {
    let any = match target {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    };
    let socket = UdpSocket::bind(any).await.context("no free UDP port")?;
    socket
        .connect(target)
        .await
        .with_context(|| format!("{target}: no route"))?;
    let mut times = Vec::new();
    let (mut sent, mut lost_in_a_row) = (0, 0);
    while sent < count && lost_in_a_row < LOST_IN_A_ROW_MAX {
        let started = Instant::now();
        let mut datagram = [0u8; DATAGRAM_BYTES];
        datagram[..8].copy_from_slice(&token.to_le_bytes());
        datagram[8] = QUESTION;
        datagram[9..13].copy_from_slice(&sent.to_le_bytes());
        let answered =
            socket.send(&datagram).await.is_ok() && answered(&socket, &datagram, started).await;
        sent += 1;
        if answered {
            times.push(started.elapsed().as_nanos() as f64 / 1e3);
            lost_in_a_row = 0;
        } else {
            lost_in_a_row += 1;
        }
    }
    times.sort_by(f64::total_cmp);
    let at = |index: usize| {
        times
            .get(index)
            .map_or(0.0, |time| (time * 10.0).round() / 10.0)
    };
    Ok(RoundTrips {
        target,
        sent,
        received: times.len() as u32,
        min_us: at(0),
        median_us: at(times.len() / 2),
    })
}

/// Waits for the answer to `question`; a late one to an earlier question is passed over.
async fn answered(socket: &UdpSocket, question: &[u8; DATAGRAM_BYTES], started: Instant) -> bool {
    let mut expected = *question;
    expected[8] = ANSWER;
    let mut buffer = [0u8; DATAGRAM_BYTES + 1];
    loop {
        match tokio::time::timeout_at(started + ANSWER_MAX, socket.recv(&mut buffer)).await {
            Ok(Ok(length)) if buffer[..length] == expected => return true,
            Ok(Ok(_)) => {}
            // Refused at once, by ICMP, or nothing came.
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_who_knows_the_token_is_answered() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = socket.local_addr().unwrap();
        let answers = tokio::spawn(answer(socket, 7));
        let known = ping(target, 7, 5).await.unwrap();
        assert_eq!((known.sent, known.received), (5, 5));
        assert!(known.min_us > 0.0 && known.min_us <= known.median_us);
        let stranger = ping(target, 8, 50).await.unwrap();
        assert_eq!((stranger.sent, stranger.received), (LOST_IN_A_ROW_MAX, 0));
        answers.abort();
    }
}
