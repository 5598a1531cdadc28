//! The transport over TCP: one call in flight per connection, connections pooled by the caller.
//!
//! Payload is read from the socket straight into the buffer where it is wanted, and written from where it lies; nothing
//! is collected in between. A connection is used again only after an exchange that was whole; after a cancelled call, a
//! passed deadline or any error it is closed, so that half a message can never be taken for the start of another.
//!
//! The bytes: `docs/formats/tcp-transport.md` and [`frame`]. The channel is neither encrypted nor authenticated: every
//! request carries a signed capability, which the node checks, and every payload has a CRC64 in its header.

mod client;
mod frame;
mod server;

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};

use bytes::Bytes;
use penstock_buf::Buf;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub use client::{TcpMessenger, TcpOptions, TcpStats};
pub use server::{TcpServerCounts, TcpServerOptions, TcpServerStats, serve_tcp};

use frame::{FRAME_BYTES, Frame};

/// Writes a whole message, gathered from where its parts lie.
async fn write_message(stream: &mut TcpStream, frame: &Frame, header: &Bytes, payload: &[Buf]) -> io::Result<()> {
    let head: [u8; FRAME_BYTES] = frame.encode();
    let mut slices = Vec::with_capacity(2 + payload.len());
    slices.push(IoSlice::new(&head));
    slices.push(IoSlice::new(header));
    slices.extend(payload.iter().map(|piece| IoSlice::new(piece)));
    let mut rest = &mut slices[..];
    // Also drops empty slices at the front: a write of only those would look like a closed connection.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        let written = stream.write_vectored(rest).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        IoSlice::advance_slices(&mut rest, written);
    }
    Ok(())
}
