//! Ends a child process when the process that started it is gone, however that went.
//!
//! The parent holds the other end of the child's stdin; the kernel closes it even after a SIGKILL of the parent.

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Returns when stdin closes. Never, if stdin is not a pipe.
pub async fn gone() {
    let Ok(stdin) = rustix::io::dup(std::io::stdin()) else {
        return std::future::pending().await;
    };
    let Ok(mut stdin) = pipe::Receiver::from_owned_fd(stdin) else {
        return std::future::pending().await;
    };
    let mut buffer = [0u8; 64];
    loop {
        match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
