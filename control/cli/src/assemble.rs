//! Puts rooms together: a node over its directory, a gateway over its metadata, a front over its gateway.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use penstock_buf::{BufPool, PoolOptions};
use penstock_digest::HashScheduler;
use penstock_executor::{Executor, ExecutorOptions};
use penstock_gateway::upkeep::UpkeepOptions;
use penstock_gateway::{Gateway, GatewayOptions, PackOptions};
use penstock_meta::kv::FjallKv;
use penstock_meta::tables::Tables;
use penstock_node::{NodeOptions, StorageNode};
use penstock_placement::ClusterMap;
use penstock_proto::plan::NodeAddress;
use penstock_proto::{ClusterKey, Code, NodeId, SystemClock};
use penstock_store::{EngineKind, ShardStore, StoreOptions};
use penstock_transport::Messenger;

use crate::Fatal;
use crate::config::Spread;
use crate::identity::{ENCRYPTION_KEY_FILE, read_or_make_encryption_key};
use crate::placement::Placement;

/// The device file within a node's directory.
pub(crate) const DEVICE_FILE: &str = "device.pst";
const LOCK_FILE: &str = "lock";

/// Makes `folder` and takes its lock: two processes over one directory would destroy each other's data. The lock lives
/// as long as the file that is returned.
pub(crate) fn take_folder(folder: &Path) -> Result<File, Fatal> {
    fs::create_dir_all(folder).map_err(|error| Fatal::doing(folder.display(), error))?;
    let path = folder.join(LOCK_FILE);
    let file = File::create(&path).map_err(|error| Fatal::doing(path.display(), error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            Err(Fatal(format!("{} is in use by another penstock: stop that one first", folder.display())))
        }
        Err(fs::TryLockError::Error(error)) => Err(Fatal::doing(path.display(), error)),
    }
}

/// A pool of payload buffers.
pub(crate) fn pool(bytes: u64, whose: &str) -> Result<BufPool, Fatal> {
    BufPool::new(PoolOptions { capacity_bytes: bytes as usize, huge_pages: true })
        .map_err(|error| Fatal::doing(format!("{bytes} bytes of memory for {whose}"), error))
}

/// Which engine reads and writes the device.
pub(crate) fn engine(text: &str) -> Result<EngineKind, Fatal> {
    match text {
        "auto" => Ok(EngineKind::Auto),
        "io_uring" => Ok(EngineKind::IoUring),
        "pread" => Ok(EngineKind::Pread),
        other => Err(Fatal(format!("{other:?} is no engine: write auto, io_uring or pread"))),
    }
}

/// One storage node over `folder`.
pub(crate) struct OpenNode {
    pub(crate) handler: Arc<StorageNode>,
    pub(crate) store: ShardStore,
    pub(crate) folder: PathBuf,
    _lock: File,
}

/// Opens the node in `folder`, and makes what is missing of it.
pub(crate) async fn open_node(
    id: NodeId,
    folder: PathBuf,
    capacity_bytes: u64,
    engine: EngineKind,
    key: ClusterKey,
    pool: BufPool,
) -> Result<OpenNode, Fatal> {
    let lock = take_folder(&folder)?;
    let options = StoreOptions { path: folder.join(DEVICE_FILE), capacity_bytes, engine, ..StoreOptions::default() };
    let store = ShardStore::open(options, pool.clone())
        .await
        .map_err(|error| Fatal::doing(format!("{id} in {}", folder.display()), error))?;
    let handler =
        Arc::new(StorageNode::new(id, store.clone(), key, Arc::new(SystemClock), pool, NodeOptions::default()));
    Ok(OpenNode { handler, store, folder, _lock: lock })
}

/// Bytes of the file system that holds `folder`, or would once it is made.
pub(crate) fn file_system_bytes(folder: &Path) -> Result<u64, Fatal> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    let stat = rustix::fs::statvfs(existing).map_err(|error| Fatal::doing(existing.display(), error))?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// What a gateway needs that differs between one process and many.
pub(crate) struct GatewayParts {
    pub(crate) folder: PathBuf,
    pub(crate) code: Code,
    pub(crate) placement: Placement,
    pub(crate) cluster_map: ClusterMap,
    pub(crate) cluster_key: ClusterKey,
    pub(crate) messenger: Arc<dyn Messenger>,
    pub(crate) buffers_bytes: u64,
    pub(crate) garbage_grace_seconds: u64,
    pub(crate) packing: Option<PackOptions>,
    /// Where clients reach the nodes.
    pub(crate) node_addresses: HashMap<NodeId, Vec<NodeAddress>>,
    pub(crate) lifecycle_day_seconds: u64,
    /// Where events can be sent.
    pub(crate) event_targets: Vec<String>,
    /// Reads and bodies up to this long travel with the request where a plan was asked for.
    pub(crate) plan_inline_bytes_max: u64,
    pub(crate) upkeep: UpkeepOptions,
    /// Where the encryption key is; `None`: beside the metadata.
    pub(crate) encryption_key_file: Option<PathBuf>,
}

/// The folder of the metadata within a gateway's directory.
pub(crate) const META_FOLDER: &str = "meta";

/// Opens the metadata and puts the gateway over it.
pub(crate) async fn open_gateway(parts: GatewayParts) -> Result<(Gateway, Tables), Fatal> {
    let folder = parts.folder.join(META_FOLDER);
    let kv = tokio::task::spawn_blocking({
        let folder = folder.clone();
        move || FjallKv::open(&folder)
    })
    .await
    .map_err(|error| Fatal::doing("opening the metadata", error))?
    .map_err(|error| Fatal::doing(format!("metadata in {}", folder.display()), error))?;
    let pool = pool(parts.buffers_bytes, "the gateway's buffers")?;
    let executor = Executor::new(parts.messenger, pool.clone(), ExecutorOptions::default());
    // One for the process: all of its requests share lanes.
    let hashes = HashScheduler::from_env().map_err(|error| Fatal::doing("choosing the hash kernels", error))?;
    tracing::info!(tier = hashes.tier().name(), "bodies are hashed in lanes");
    parts.placement.check_spread(&parts.cluster_map, parts.code)?;
    let key_file = parts.encryption_key_file.unwrap_or_else(|| parts.folder.join(ENCRYPTION_KEY_FILE));
    let mut options = GatewayOptions {
        placement_sets_per_node: parts.placement.sets_per_node,
        spread_required: parts.placement.spread == Spread::Require,
        storage_classes: parts.placement.storage_classes,
        master_key: Some(read_or_make_encryption_key(&key_file)?),
        hashes: Some(hashes),
        garbage_grace_ms: parts.garbage_grace_seconds * 1000,
        packing: parts.packing,
        buffers: Some(pool),
        node_addresses: parts.node_addresses,
        event_targets: parts.event_targets,
        plan_inline_bytes_max: parts.plan_inline_bytes_max,
        upkeep: parts.upkeep,
        ..GatewayOptions::new(parts.code, parts.cluster_map, parts.cluster_key)
    };
    options.set_lifecycle_day(std::time::Duration::from_secs(parts.lifecycle_day_seconds.max(1)));
    let kv = Arc::new(kv);
    let tables = Tables::new(kv.clone());
    let gateway = Gateway::new(kv, executor, Arc::new(SystemClock), options);
    gateway.check_master_key().await.map_err(|error| Fatal::doing(key_file.display(), error))?;
    Ok((gateway, tables))
}
