//! The client library's session as it is in production: its files without IO, taken from the transport's folder
//! so that the simulator needs none of what QUIC depends on.

#[path = "../../../../transport/src/client/event.rs"]
pub mod event;
#[path = "../../../../transport/src/client/routing.rs"]
pub mod routing;
#[path = "../../../../transport/src/client/runs.rs"]
pub mod runs;
#[path = "../../../../transport/src/client/session.rs"]
pub mod session;
