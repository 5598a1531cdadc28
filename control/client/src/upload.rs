//! Writes of bytes that come bit by bit: a writer, and what reads a file or a stream into it.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use penstock_buf::Buf;
use penstock_proto::limits;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::task::JoinSet;

use crate::client::{Client, name_of};
use crate::error::ClientError;
use crate::landing::Landing;
use crate::multipart::{Part, UploadId};
use crate::object::{PutDone, PutOptions};

/// Bytes of a part to begin with: in memory there is one that is filled, and [`crate::ClientOptions::parallel_max`] on their way.
const PART_BYTES: u64 = 16 << 20;
/// After so many parts, parts become longer by another [`PART_BYTES`]: so that the 10,000 that there may be hold 880 GB.
const PARTS_EACH: u32 = 1000;

/// An object that is written bit by bit. It becomes visible when [`Upload::finish`] has returned, and not before; dropped or
/// aborted, it never does. A body that is not longer than a part goes in one request.
///
/// Needs a tokio runtime: parts are sent by tasks of their own.
pub struct Upload {
    client: Client,
    name: Arc<(String, String)>,
    options: PutOptions,
    id: Option<UploadId>,
    /// The part that is being filled: whole pieces, and the one at the end with how much of it is filled.
    pieces: Vec<Buf>,
    piece: Option<(Landing, usize)>,
    part_bytes: u64,
    filled_bytes: u64,
    total_bytes: u64,
    number: u32,
    sending: JoinSet<Result<Part, ClientError>>,
    parts: Vec<Part>,
}

impl Client {
    /// Begins to write an object bit by bit.
    pub fn upload(&self, bucket: &str, key: &str, options: PutOptions) -> Upload {
        let wanted = options.part_bytes.unwrap_or(PART_BYTES);
        Upload {
            client: self.clone(),
            name: Arc::new((bucket.to_owned(), key.to_owned())),
            part_bytes: wanted.clamp(limits::PART_BYTES_MIN, limits::PUT_BYTES_MAX),
            options,
            id: None,
            pieces: Vec::new(),
            piece: None,
            filled_bytes: 0,
            total_bytes: 0,
            number: 1,
            sending: JoinSet::new(),
            parts: Vec::new(),
        }
    }

    /// Stores what a reader has until its end: in parallel parts when it is long. Nothing is visible after an error.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Io`] when the reader fails.
    pub async fn put_reader(
        &self,
        bucket: &str,
        key: &str,
        mut reader: impl AsyncRead + Unpin,
        options: PutOptions,
    ) -> Result<PutDone, ClientError> {
        let mut upload = self.upload(bucket, key, options);
        match upload.read_from(&mut reader).await {
            Ok(_) => upload.finish().await,
            Err(error) => {
                upload.abort().await;
                Err(error)
            }
        }
    }

    /// Stores what a stream yields until its end, as [`Client::put_reader`].
    ///
    /// # Errors
    /// As [`Client::put_reader`].
    pub async fn put_stream<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
        &self,
        bucket: &str,
        key: &str,
        mut stream: impl Stream<Item = Result<Bytes, E>> + Unpin,
        options: PutOptions,
    ) -> Result<PutDone, ClientError> {
        let mut upload = self.upload(bucket, key, options);
        while let Some(next) = stream.next().await {
            let written = match next {
                Ok(bytes) => upload.write(&bytes).await,
                Err(error) => {
                    let what = format!("the stream for {}", name_of(bucket, key));
                    Err(ClientError::Io { what, error: io::Error::other(error) })
                }
            };
            if let Err(error) = written {
                upload.abort().await;
                return Err(error);
            }
        }
        upload.finish().await
    }
}

impl Upload {
    /// Takes these bytes: they are copied. Waits while as many parts are on their way as may be.
    ///
    /// # Errors
    /// What went wrong with parts that were sent before: [`Upload::abort`] is what is left to do.
    pub async fn write(&mut self, mut data: &[u8]) -> Result<(), ClientError> {
        while !data.is_empty() {
            let (landing, filled) = self.room().await?;
            let taken = data.len().min(landing.len() - *filled);
            landing[*filled..*filled + taken].copy_from_slice(&data[..taken]);
            *filled += taken;
            data = &data[taken..];
            self.client.inner.stats.count(|stats| stats.copied_bytes += taken as u64);
            self.took(taken);
        }
        Ok(())
    }

    /// Takes what a reader has until its end, straight into the memory that it is sent from; how many bytes that were.
    ///
    /// # Errors
    /// As [`Upload::write`]; [`ClientError::Io`] when the reader fails.
    pub async fn read_from(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> Result<u64, ClientError> {
        let before = self.total_bytes;
        loop {
            let name = Arc::clone(&self.name);
            let (landing, filled) = self.room().await?;
            let failed =
                |error| ClientError::Io { what: format!("what is read for {}", name_of(&name.0, &name.1)), error };
            let got = reader.read(&mut landing[*filled..]).await.map_err(failed)?;
            if got == 0 {
                return Ok(self.total_bytes - before);
            }
            *filled += got;
            self.took(got);
        }
    }

    /// How many bytes it has taken.
    pub fn bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Makes the object.
    ///
    /// # Errors
    /// [`ClientError`]; the upload is aborted then, and nothing is visible.
    pub async fn finish(mut self) -> Result<PutDone, ClientError> {
        let done = self.finish_now().await;
        match done {
            Ok(done) => {
                self.id = None;
                Ok(done)
            }
            Err(error) => {
                self.abort().await;
                Err(error)
            }
        }
    }

    async fn finish_now(&mut self) -> Result<PutDone, ClientError> {
        self.close_piece();
        let name = Arc::clone(&self.name);
        if self.id.is_none() {
            let pieces = std::mem::take(&mut self.pieces);
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            // In one request: that it is longer than parts are elsewhere does not matter.
            let options = PutOptions { part_bytes: Some(limits::PUT_BYTES_MAX), ..self.options.clone() };
            return self.client.put_pieces(&name.0, &name.1, &pieces, options).await;
        }
        if self.filled_bytes > 0 {
            self.send_part().await?;
        }
        while let Some(part) = self.sending.join_next().await {
            self.parts.push(joined(part)?);
        }
        self.parts.sort_by_key(|part| part.number);
        let Some(id) = &self.id else { return Err(self.client.inner.protocol("an upload without an id")) };
        self.client.complete_upload(&name.0, &name.1, id, &self.parts, &self.options).await
    }

    /// Gives it up. What the server has of it is deleted.
    pub async fn abort(mut self) {
        self.sending.shutdown().await;
        if let Some(id) = self.id.take() {
            self.client.abort_quietly(&self.name.0, &self.name.1, &id).await;
        }
    }

    /// Where the next bytes go: there is room.
    async fn room(&mut self) -> Result<&mut (Landing, usize), ClientError> {
        if self.piece.as_ref().is_some_and(|(landing, filled)| *filled == landing.len()) {
            self.close_piece();
        }
        if self.filled_bytes == self.part_bytes && self.piece.is_none() {
            self.send_part().await?;
        }
        if self.piece.is_none() {
            let left = self.part_bytes - self.filled_bytes;
            let bytes = left.min(self.client.inner.buffers.buffer_bytes_max() as u64) as usize;
            self.piece = Some((Landing::new(&self.client.inner, bytes).await, 0));
        }
        Ok(self.piece.as_mut().expect("invariant: there is a piece now"))
    }

    fn took(&mut self, bytes: usize) {
        self.filled_bytes += bytes as u64;
        self.total_bytes += bytes as u64;
    }

    fn close_piece(&mut self) {
        if let Some((mut landing, filled)) = self.piece.take() {
            landing.truncate(filled);
            if filled > 0 {
                self.pieces.push(landing.into());
            }
        }
    }

    async fn send_part(&mut self) -> Result<(), ClientError> {
        let name = Arc::clone(&self.name);
        let id = match &self.id {
            Some(id) => id.clone(),
            None => {
                let id = self.client.create_upload(&name.0, &name.1, &self.options).await?;
                self.id.insert(id).clone()
            }
        };
        while self.sending.len() >= self.client.inner.options.parallel_max.max(1) {
            if let Some(part) = self.sending.join_next().await {
                self.parts.push(joined(part)?);
            }
        }
        if self.number > limits::PART_NUMBER_MAX {
            let what = format!("{} is longer than 10,000 parts of this length hold", name_of(&name.0, &name.1));
            return Err(ClientError::Configuration(format!("{what}: ask for longer parts (part_bytes)")));
        }
        let (client, number, pieces) = (self.client.clone(), self.number, std::mem::take(&mut self.pieces));
        self.sending.spawn(async move {
            let pieces: Vec<&[u8]> = pieces.iter().map(|piece| &piece[..]).collect();
            client.upload_part(&name.0, &name.1, &id, number, &pieces).await
        });
        self.number += 1;
        self.filled_bytes = 0;
        if self.options.part_bytes.is_none() && self.number.is_multiple_of(PARTS_EACH) {
            self.part_bytes += PART_BYTES;
        }
        Ok(())
    }
}

fn joined(part: Result<Result<Part, ClientError>, tokio::task::JoinError>) -> Result<Part, ClientError> {
    part.unwrap_or_else(|error| {
        Err(ClientError::Io { what: "the task that sends a part".to_owned(), error: io::Error::other(error) })
    })
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current()) else { return };
        let (client, name) = (self.client.clone(), Arc::clone(&self.name));
        runtime.spawn(async move { client.abort_quietly(&name.0, &name.1, &id).await });
    }
}
