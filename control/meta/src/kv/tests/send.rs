//! `transact` in the places where its callers are: spawned tasks, async trait methods, generic helpers. That these
//! compile is most of the test: the futures must be `Send`.

use std::sync::Arc;

use async_trait::async_trait;

use crate::kv::{Kv, KvError, MemKv, RangeRead, TransactError, Transaction, transact};

#[derive(Debug, PartialEq)]
enum TableError {
    Kv(KvError),
    Taken,
}

impl From<KvError> for TableError {
    fn from(error: KvError) -> Self {
        Self::Kv(error)
    }
}

impl TransactError for TableError {
    fn as_kv_error(&self) -> Option<&KvError> {
        match self {
            Self::Kv(error) => Some(error),
            Self::Taken => None,
        }
    }
}

/// A helper that works inside somebody's transaction.
async fn take(txn: &mut dyn Transaction, name: &str, owner: &str) -> Result<usize, TableError> {
    if txn.get(name.as_bytes()).await?.is_some() {
        return Err(TableError::Taken);
    }
    txn.set(name.as_bytes(), owner.as_bytes())?;
    Ok(txn.get_range(RangeRead::between(b"", b"\xff")).await?.rows.len())
}

#[async_trait]
trait Names {
    async fn take(&self, name: &str, owner: &str) -> Result<usize, TableError>;
}

struct Tables {
    kv: Arc<dyn Kv>,
}

#[async_trait]
impl Names for Tables {
    async fn take(&self, name: &str, owner: &str) -> Result<usize, TableError> {
        transact(&*self.kv, |txn| Box::pin(take(txn, name, owner))).await
    }
}

/// A generic caller with a counter that the closure changes.
async fn tries<K: Kv>(kv: &K, name: &str) -> Result<u32, KvError> {
    let mut tries = 0;
    transact::<_, KvError, _>(kv, |txn| {
        tries += 1;
        Box::pin(async move {
            let before = txn.get(name.as_bytes()).await?;
            txn.set(name.as_bytes(), before.as_deref().unwrap_or(b"new"))
        })
    })
    .await?;
    Ok(tries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transact_is_send_wherever_it_is_called() {
    let kv = Arc::new(MemKv::new());
    let tables: Arc<dyn Names + Send + Sync> = Arc::new(Tables { kv: kv.clone() });
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (kv, tables) = (kv.clone(), tables.clone());
        tasks.push(tokio::spawn(async move {
            let name = format!("name-{n}");
            let rows = tables.take(&name, "first").await.unwrap();
            assert!(rows >= 1);
            assert_eq!(tables.take(&name, "second").await, Err(TableError::Taken));
            let key = name.as_bytes();
            let owner = transact(&*kv, |txn| Box::pin(txn.get(key))).await.unwrap();
            assert_eq!(owner.as_deref(), Some(b"first".as_slice()));
            assert!(tries(&*kv, &name).await.unwrap() >= 1);
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}
