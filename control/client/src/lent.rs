//! Memory that nodes may be lent: reads into it and writes from it.
//!
//! Over RDMA a node writes a shard straight to its place in the caller's buffer, and reads one straight from it. Such memory
//! must stay while a node may reach it, however the call ends; so the caller hands the buffer over and gets it back with the
//! answer. Every stripe's place is claimed before it is lent: the claim has it back when nobody can write to it any more, be
//! that at once or when the transport has fenced a node that does not answer. Only then is a shard that had to be computed
//! copied in, and only then does the caller have the buffer again.

use std::time::Duration;

use parking_lot::Mutex;
use penstock_buf::{Buf, BufMut, BufPool, Claim};
use penstock_executor::ExecutorError;
use tokio::time::Instant;

use crate::client::Client;
use crate::error::ClientError;
use crate::object::{GetOptions, ObjectInfo, PutDone, PutOptions};
use crate::plain::{Sink, Target};
use crate::put::Data;

/// How long to wait for memory that a node was lent: longer than any transport lets a call that was given up keep it.
const TAKE_BACK_MAX: Duration = Duration::from_secs(20);
/// Between two looks whether it is back.
const TAKE_BACK_POLL: Duration = Duration::from_millis(2);

impl Client {
    /// Memory that nodes can be lent, as long as an object may be, for [`Client::get_into_buffer`] and, frozen, for
    /// [`Client::put_buffer`]. Making it and using it for the first time costs more than a read: use it again. It is pinned
    /// while RDMA knows it.
    ///
    /// # Errors
    /// [`ClientError::Configuration`] for no bytes, or more than there is address space for.
    pub fn region(&self, bytes: usize) -> Result<BufMut, ClientError> {
        BufPool::region(bytes).map_err(|error| ClientError::Configuration(error.to_string()))
    }

    /// The object, or a range or version of it, into a buffer that is exactly as long and comes back: one of
    /// [`Client::buffer`] or [`Client::region`], or a piece of one. It lands there, by plan too, without a copy; what had to
    /// be computed is copied to its place when no node can write there any more.
    ///
    /// # Errors
    /// As [`Client::get_into`]. An attempt that brought wrong bytes is not repeated. After an error the buffer is gone.
    pub async fn get_into_buffer(
        &self,
        bucket: &str,
        key: &str,
        options: &GetOptions,
        into: BufMut,
    ) -> Result<(ObjectInfo, BufMut), ClientError> {
        let target = Target::new(bucket, key, options);
        self.bounded("a GET", async {
            let mut lent = Lent::new(into);
            let opened = self.open(target, options).await?;
            let (info, _) = self.read_opened(target, opened, &mut Sink::Buffer(&mut lent)).await?;
            match lent.left_bytes() {
                0 => Ok((info, lent.filled)),
                left => Err(self.inner.protocol(format!("a body that ends {left} bytes before its buffer"))),
            }
        })
        .await
    }

    /// Stores `data` under the key, as [`Client::put`] does, without a copy: nodes read it where it is.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn put_buffer(
        &self,
        bucket: &str,
        key: &str,
        data: &Buf,
        options: PutOptions,
    ) -> Result<PutDone, ClientError> {
        self.put_data(bucket, key, &Data { pieces: &[data], lent: Some(data.clone()) }, options).await
    }
}

/// The caller's buffer: what is filled of it, and what is not.
pub(crate) struct Lent {
    filled: BufMut,
    left: BufMut,
}

impl Lent {
    pub(crate) fn new(mut whole: BufMut) -> Self {
        let left = whole.split_off(0);
        Self { filled: whole, left }
    }

    /// Bytes that are still to come.
    pub(crate) fn left_bytes(&self) -> usize {
        self.left.len()
    }

    /// The next `bytes`, to be put back.
    ///
    /// # Panics
    /// When there are fewer.
    pub(crate) fn split(&mut self, bytes: usize) -> BufMut {
        let rest = self.left.split_off(bytes);
        std::mem::replace(&mut self.left, rest)
    }

    /// Puts back what was split off, before what is left.
    pub(crate) fn put_back(&mut self, piece: BufMut) {
        let empty = self.left.split_off(self.left.len());
        let left = std::mem::replace(&mut self.left, empty);
        self.left = piece.rejoin(left).expect("invariant: pieces go back in the order in which they were split off");
    }

    /// Counts the next `bytes` as filled.
    pub(crate) fn advance(&mut self, bytes: usize) {
        let piece = self.split(bytes);
        self.fill(piece);
    }

    /// Takes back what was split off first, filled.
    pub(crate) fn fill(&mut self, piece: BufMut) {
        let end = self.filled.split_off(self.filled.len());
        let filled = std::mem::replace(&mut self.filled, end);
        self.filled = filled.rejoin(piece).expect("invariant: what is filled ends where what is left begins");
    }
}

/// The place of one stripe's bytes in the caller's buffer.
pub(crate) struct Place(Mutex<Option<Claim>>);

impl Place {
    /// The memory to lend, and the place that has it back.
    pub(crate) fn of(piece: BufMut) -> (BufMut, Self) {
        let (lent, claim) = piece.claimed();
        (lent, Self(Mutex::new(Some(claim))))
    }

    /// Puts what was read into its place: how much of it had to be copied. When the answer is there, nothing else
    /// reaches the place.
    ///
    /// # Errors
    /// When the memory does not come back.
    pub(crate) async fn settle(&self, pieces: Vec<Buf>) -> Result<usize, ClientError> {
        let (mut at, mut elsewhere) = (0, Vec::new());
        for piece in pieces {
            let bytes = piece.len();
            let in_place = self.0.lock().as_ref().is_some_and(|claim| claim.has_in_place(at, &piece));
            if !in_place {
                elsewhere.push((at, piece));
            }
            at += bytes;
        }
        let mut memory = self.take().await?;
        let copied: usize = elsewhere.iter().map(|(_, piece)| piece.len()).sum();
        for (at, piece) in elsewhere {
            memory[at..at + piece.len()].copy_from_slice(&piece);
        }
        // Claimed anew, so that it is not lost with the future that read it.
        *self.0.lock() = Some(memory.claimed().1);
        Ok(copied)
    }

    /// The memory, when nobody can write to it any more.
    ///
    /// # Errors
    /// When that takes too long.
    pub(crate) async fn take(&self) -> Result<BufMut, ClientError> {
        let until = Instant::now() + TAKE_BACK_MAX;
        loop {
            {
                let mut place = self.0.lock();
                let claim = place.take().ok_or_else(|| {
                    ClientError::Nodes(ExecutorError::Internal("a place in a buffer is taken back twice".to_owned()))
                })?;
                match claim.try_take() {
                    Ok(memory) => return Ok(memory),
                    Err(claim) => *place = Some(claim),
                }
            }
            if Instant::now() > until {
                let what = "memory that a node was lent did not come back".to_owned();
                return Err(ClientError::Timeout { what, after: TAKE_BACK_MAX });
            }
            tokio::time::sleep(TAKE_BACK_POLL).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_filled_in_order_and_is_one_buffer_again() {
        let mut room = Lent::new(BufPool::region(100).unwrap());
        let mut first = room.split(30);
        first.fill(1);
        let second = room.split(20);
        room.put_back(second);
        room.put_back(first);
        assert_eq!(room.left_bytes(), 100);
        room.advance(30);
        let mut rest = room.split(70);
        rest.fill(2);
        room.put_back(rest);
        room.advance(70);
        assert_eq!((room.left_bytes(), room.filled.len()), (0, 100));
        assert!(room.filled[..30].iter().all(|&byte| byte == 1) && room.filled[30..].iter().all(|&byte| byte == 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lent_is_waited_for_and_what_came_elsewhere_is_copied() {
        let (mut lent, place) = Place::of(BufPool::region(10).unwrap());
        let late = lent.split_off(4);
        lent.fill(1);
        let pieces = vec![lent.freeze(), Buf::from(vec![2; 6])];
        let back = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            drop(late);
        };
        let (copied, ()) = tokio::join!(place.settle(pieces), back);
        assert_eq!(copied.unwrap(), 6);
        assert_eq!(place.take().await.unwrap()[..], [1, 1, 1, 1, 2, 2, 2, 2, 2, 2]);
        let (lent, place) = Place::of(BufPool::region(10).unwrap());
        assert!(matches!(place.take().await, Err(ClientError::Timeout { .. })), "a node that keeps it for ever");
        drop(lent);
        place.take().await.unwrap();
    }
}
