//! The shim's connections: made by anybody, owned by the first access key that uses one, one request at a time.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::error::WireError;
use crate::rc_token::SessionId;

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionsOptions {
    /// Of all.
    pub connections_max: usize,
    /// Of one source address: connecting needs no signature.
    pub source_connections_max: usize,
    /// One that nobody uses for so long is dropped.
    pub idle_ms_max: u64,
}

struct Connection<T> {
    source: IpAddr,
    owner: Option<String>,
    /// None while a request uses it.
    link: Option<T>,
    used_ms: u64,
    /// To be dropped when the request that uses it gives it back.
    doomed: bool,
}

/// The table. `T` is the queue pair; who takes one out of the table gives it back or destroys it.
pub struct Connections<T> {
    options: ConnectionsOptions,
    connections: HashMap<SessionId, Connection<T>>,
    by_source: HashMap<IpAddr, usize>,
}

impl<T> Connections<T> {
    /// An empty table.
    #[must_use]
    pub fn new(options: ConnectionsOptions) -> Self {
        Self { options, connections: HashMap::new(), by_source: HashMap::new() }
    }

    /// How many there are, those in use included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether `source` may make another.
    ///
    /// # Errors
    /// [`WireError::Full`].
    pub fn check(&self, source: IpAddr) -> Result<(), WireError> {
        if self.connections.len() >= self.options.connections_max {
            return Err(WireError::Full { what: "connections" });
        }
        if self.by_source.get(&source).copied().unwrap_or_default() >= self.options.source_connections_max {
            return Err(WireError::Full { what: "connections of one source" });
        }
        Ok(())
    }

    /// Keeps a new connection.
    ///
    /// # Errors
    /// [`WireError::Full`], and the link back.
    pub fn insert(&mut self, now_ms: u64, id: SessionId, source: IpAddr, link: T) -> Result<(), (WireError, T)> {
        if let Err(full) = self.check(source) {
            return Err((full, link));
        }
        let connection = Connection { source, owner: None, link: Some(link), used_ms: now_ms, doomed: false };
        self.connections.insert(id, connection);
        *self.by_source.entry(source).or_default() += 1;
        Ok(())
    }

    /// Takes a connection for a request of `access_key`. Answers the link, and whether it has just become the key's.
    ///
    /// # Errors
    /// [`WireError::UnknownSession`], [`WireError::OtherCredential`], [`WireError::Busy`].
    pub fn take(&mut self, id: SessionId, access_key: &str) -> Result<(T, bool), WireError> {
        let connection =
            self.connections.get_mut(&id).filter(|known| !known.doomed).ok_or(WireError::UnknownSession)?;
        if connection.owner.as_deref().is_some_and(|owner| owner != access_key) {
            return Err(WireError::OtherCredential);
        }
        let link = connection.link.take().ok_or(WireError::Busy)?;
        let new = connection.owner.is_none();
        if new {
            connection.owner = Some(access_key.to_owned());
        }
        Ok((link, new))
    }

    /// Undoes a [`Connections::take`] that made the connection a key's which can't have it after all.
    pub fn put_back_unowned(&mut self, id: SessionId, link: T) -> Option<T> {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.owner = None;
        }
        let used_ms = self.connections.get(&id).map_or(0, |connection| connection.used_ms);
        self.put_back(used_ms, id, link)
    }

    /// A request is through with its connection. The link comes back when it must be destroyed instead: the client
    /// disconnected meanwhile.
    pub fn put_back(&mut self, now_ms: u64, id: SessionId, link: T) -> Option<T> {
        match self.connections.get_mut(&id) {
            Some(connection) if !connection.doomed => {
                connection.used_ms = now_ms;
                connection.link = Some(link);
                None
            }
            _ => {
                self.forget(id);
                Some(link)
            }
        }
    }

    /// A request broke its connection; it has destroyed the link.
    pub fn broken(&mut self, id: SessionId) {
        self.forget(id);
    }

    fn forget(&mut self, id: SessionId) -> Option<T> {
        let connection = self.connections.remove(&id)?;
        if let Some(count) = self.by_source.get_mut(&connection.source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&connection.source);
            }
        }
        connection.link
    }

    /// The client is through. Answers the link, unless a request uses it: that one will destroy it.
    pub fn disconnect(&mut self, id: SessionId) -> Option<T> {
        let connection = self.connections.get_mut(&id)?;
        if connection.link.is_none() {
            connection.doomed = true;
            return None;
        }
        self.forget(id)
    }

    /// Drops what nobody has used for too long, and answers the links.
    pub fn sweep(&mut self, now_ms: u64) -> Vec<T> {
        let idle = |connection: &Connection<T>| {
            connection.link.is_some() && now_ms.saturating_sub(connection.used_ms) >= self.options.idle_ms_max
        };
        let old: Vec<SessionId> =
            self.connections.iter().filter(|(_, connection)| idle(connection)).map(|(id, _)| *id).collect();
        old.into_iter().filter_map(|id| self.forget(id)).collect()
    }
}
