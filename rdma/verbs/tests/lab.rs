//! What needs a device. Both ends are queue pairs of the same port. Run in the lab: `./dev lab test`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::ptr::NonNull;
use std::time::Duration;

use penstock_buf::{BufMut, BufPool, PoolOptions};
use penstock_verbs::{
    Access, Connect, Device, Dmabuf, Domain, Finished, Foreign, GidKind, Local, Part, QpOptions, QpState, QueuePair,
    Refused, Remote, Status, Timing, VerbsError, preferred_gid, random_psn,
};

const PLENTY: Duration = Duration::from_secs(60);

fn pool() -> BufPool {
    BufPool::new(PoolOptions { capacity_bytes: 64 << 20, huge_pages: false }).unwrap()
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
}

fn buffer(pool: &BufPool, bytes: &[u8]) -> BufMut {
    let mut buffer = pool.try_acquire(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    buffer
}

const OPEN: Access = Access { read: true, write: true };

struct Pair {
    domain: Domain,
    a: QueuePair,
    b: QueuePair,
}

fn connect(domain: &Domain, a: &QueuePair, b: &QueuePair, timing: Timing) {
    let gid = preferred_gid(domain.gids()).unwrap();
    let (psn_a, psn_b) = (random_psn(), random_psn());
    let to = |peer: &QueuePair, theirs, ours| {
        let basic = Connect::new(peer.number(), gid.gid, gid.index, theirs, ours, domain.port().mtu);
        Connect { read_depth: 8, read_depth_peer: 8, timing, ..basic }
    };
    a.connect(&to(b, psn_b, psn_a)).unwrap();
    b.connect(&to(a, psn_a, psn_b)).unwrap();
}

fn pair_with(options: &QpOptions, timing: Timing) -> Pair {
    let domain = Domain::first().unwrap();
    let a = domain.queue_pair(options).unwrap();
    let b = domain.queue_pair(options).unwrap();
    connect(&domain, &a, &b, timing);
    Pair { domain, a, b }
}

fn pair() -> Pair {
    pair_with(&QpOptions { access: OPEN, inline_bytes: 64, ..QpOptions::default() }, Timing::default())
}

/// Short waits, for tests in which the peer does not answer.
fn impatient() -> Timing {
    Timing { timeout: 16, retry: 3, rnr_retry: 1, min_rnr_timer: 1 }
}

fn part(remote: Remote, local: std::ops::Range<usize>) -> Part {
    Part { local, addr: remote.addr, rkey: remote.rkey }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PLENTY, work).await.expect("it hangs")
}

fn status_of<M>(finished: &Finished<M>) -> Option<Status> {
    match &finished.result {
        Err(VerbsError::Completion { status, .. }) => Some(*status),
        _ => None,
    }
}

#[test]
#[ignore = "needs an RDMA device: ./dev lab test"]
fn a_device_tells_what_it_is() {
    let names = Device::list().unwrap();
    let device = Device::open(&names[0]).unwrap();
    let attributes = device.attributes();
    assert!(attributes.qp_max > 0 && attributes.cqe_max > 0 && attributes.ports > 0, "{attributes:?}");
    let port = device.port(1).unwrap();
    assert!(port.active && port.message_bytes_max >= 1 << 20, "{port:?}");
    let gids = device.gids(1).unwrap();
    assert!(gids.iter().any(|entry| entry.kind != GidKind::RoceV1), "{gids:?}");
    println!("{names:?} {attributes:?} {port:?} {gids:?}");
    assert!(matches!(device.port(0), Err(VerbsError::Bounds { .. })));
    assert!(matches!(device.port(200), Err(VerbsError::Bounds { .. })));
    let nobody = Device::open("no-such-device").unwrap_err();
    assert!(nobody.to_string().contains(&names[0]), "{nobody}");
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn bytes_are_written_read_and_sent() {
    let pair = pair();
    let pool = pool();
    for bytes in [1usize, 63, 4096, 4097, 100_000, (5 << 20) + 3] {
        let target = pair.domain.attach(buffer(&pool, &vec![0; bytes])).unwrap();
        let lease = within(pair.b.lease_write(target, 0..bytes)).await.unwrap();
        let source = pair.domain.attach_read_only(buffer(&pool, &pattern(bytes, 1)).freeze()).unwrap();
        let told = pair.b.receive_nothing().unwrap();
        let written = within(pair.a.write(source, &[part(lease.remote(), 0..bytes)], Some(0xfeed_beef))).await;
        assert_eq!(written.result.unwrap().bytes, bytes as u64);
        let told = within(told).await.result.unwrap();
        assert!(told.by_write);
        assert_eq!(told.immediate, Some(0xfeed_beef));
        let target = within(lease.revoke()).await;
        assert_eq!(target[..], pattern(bytes, 1));

        let lease = within(pair.b.lease_read(target, 0..bytes)).await.unwrap();
        let into = pair.domain.attach(buffer(&pool, &vec![0; bytes])).unwrap();
        let read = within(pair.a.read(into, &[part(lease.remote(), 0..bytes)])).await;
        assert_eq!(read.result.unwrap().bytes, bytes as u64);
        assert_eq!(read.memory[..], pattern(bytes, 1));
        drop(lease);
    }
    let receiving = pair.b.receive(pair.domain.attach(buffer(&pool, &[0; 5000])).unwrap()).unwrap();
    let message = pair.domain.attach(buffer(&pool, &pattern(4000, 3))).unwrap();
    let sent = within(pair.a.send(message, 100..4000, Some(7))).await;
    assert_eq!(sent.result.unwrap().bytes, 3900);
    let (memory, done) = within(receiving).await.ok().unwrap();
    assert_eq!((done.bytes, done.immediate, done.by_write), (3900, Some(7), false));
    assert_eq!(memory[..3900], pattern(4000, 3)[100..]);

    let receiving = pair.b.receive(memory).unwrap();
    assert!(pair.a.inline_bytes() >= 64);
    within(pair.a.send_inline(b"a few bytes", None)).await.unwrap();
    let (memory, done) = within(receiving).await.ok().unwrap();
    assert_eq!((&memory[..done.bytes as usize], done.immediate), (&b"a few bytes"[..], None));
    let told = pair.b.receive_nothing().unwrap();
    within(pair.a.write_immediate(9)).await.unwrap();
    assert_eq!(within(told).await.result.unwrap().immediate, Some(9));
    drop((memory, sent.memory));
    assert_eq!(pool.stats().buffers_out, 0);
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn memory_of_any_owner_is_registered() {
    let pair = pair();
    let lease = pair.domain.lease_write(vec![0u8; 10_000]).unwrap();
    assert!(!lease.is_window());
    let source = pair.domain.attach_read_only(bytes::Bytes::from_static(b"from read-only memory")).unwrap();
    within(pair.a.write(source, &[part(lease.remote(), 0..21)], None)).await.ok().unwrap();
    assert_eq!(&lease.revoke().await[..21], b"from read-only memory");

    let owner = Box::new(pattern(5000, 9));
    let start = NonNull::new(owner.as_ptr().cast_mut()).unwrap();
    // SAFETY: the vector is the owner, and nobody touches it.
    let foreign = unsafe { Foreign::new(start, 5000, owner) };
    let lease = pair.domain.lease_read(foreign).unwrap();
    let into = pair.domain.attach(vec![0u8; 5000]).unwrap();
    let read = within(pair.a.read(into, &[part(lease.remote(), 0..5000)])).await;
    assert_eq!(read.memory[..], pattern(5000, 9));
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_lease_that_was_revoked_is_worth_nothing() {
    let pool = pool();
    // By window and by registration, revoked in each way.
    for way in 0..4 {
        let pair = pair_with(&QpOptions { access: OPEN, ..QpOptions::default() }, impatient());
        let memory = buffer(&pool, &[0xee; 8192]);
        let (remote, memory) = if way < 2 {
            let lease = pair.b.lease_write(pair.domain.attach(memory).unwrap(), 0..8192).await.unwrap();
            assert_eq!(lease.is_window(), pair.domain.device().attributes().has_window_2);
            let remote = lease.remote();
            let local = if way == 0 { lease.revoke().await } else { lease.revoke_now() };
            (remote, local.into_inner())
        } else {
            let lease = pair.domain.lease_write(memory).unwrap();
            let remote = lease.remote();
            (remote, if way == 2 { lease.revoke().await } else { lease.revoke_now() })
        };
        let source = pair.domain.attach(buffer(&pool, &[1; 8192])).unwrap();
        let late = within(pair.a.write(source, &[part(remote, 0..8192)], None)).await;
        assert_eq!(status_of(&late), Some(Status::RemoteAccess), "way {way}: {late:?}");
        assert_eq!(pair.a.state(), QpState::Err, "fenced before it was told");
        assert!(memory.iter().all(|&byte| byte == 0xee), "way {way}: a late write");
    }
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn what_a_lease_does_not_cover_is_refused() {
    let pool = pool();
    // A wrong key; one byte past the end; one before the start; the other direction.
    for case in 0..4 {
        let pair = pair_with(&QpOptions { access: OPEN, ..QpOptions::default() }, impatient());
        let memory = pair.domain.attach(buffer(&pool, &[0xee; 8192])).unwrap();
        let lease = pair.b.lease_read(memory, 4096..6000).await.unwrap();
        let mut remote = lease.remote();
        match case {
            0 => remote.rkey ^= 0x5500,
            1 => remote.addr += 1,
            2 => remote.addr -= 1,
            _ => {}
        }
        let local = pair.domain.attach(buffer(&pool, &[1; 1904])).unwrap();
        let finished = if case == 3 {
            within(pair.a.write(local, &[part(remote, 0..1904)], None)).await
        } else {
            within(pair.a.read(local, &[part(remote, 0..1904)])).await
        };
        assert_eq!(status_of(&finished), Some(Status::RemoteAccess), "case {case}: {finished:?}");
        assert!(finished.memory.iter().all(|&byte| byte == 1));
        assert!(lease.revoke_now().iter().all(|&byte| byte == 0xee));
        // The queue pair is closed, and says why.
        let again = pair.a.send_inline(&[], None).await.unwrap_err();
        assert!(again.to_string().contains("remote access error"), "{again}");
    }
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_window_is_good_for_its_own_queue_pair_alone() {
    let (pool, one) = (pool(), pair());
    let a = one.domain.queue_pair(&QpOptions { access: OPEN, ..QpOptions::default() }).unwrap();
    let b = one.domain.queue_pair(&QpOptions { access: OPEN, ..QpOptions::default() }).unwrap();
    connect(&one.domain, &a, &b, impatient());
    let memory = one.domain.attach(buffer(&pool, &[0xee; 4096])).unwrap();
    let lease = one.b.lease_write(memory, 0..4096).await.unwrap();
    if !lease.is_window() {
        return;
    }
    let source = one.domain.attach(buffer(&pool, &[1; 4096])).unwrap();
    let stolen = within(a.write(source, &[part(lease.remote(), 0..4096)], None)).await;
    assert_eq!(status_of(&stolen), Some(Status::RemoteAccess), "{stolen:?}");
    assert!(lease.revoke_now().iter().all(|&byte| byte == 0xee));
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_peer_without_a_receive_is_not_waited_for_for_ever() {
    let pair = pair_with(&QpOptions { inline_bytes: 16, ..QpOptions::default() }, impatient());
    let error = within(pair.a.send_inline(b"anybody?", None)).await.unwrap_err();
    assert!(matches!(error, VerbsError::Completion { status: Status::RnrRetryExceeded, .. }), "{error}");
    assert!(error.is_retryable() && error.to_string().contains("receive"), "{error}");
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_peer_that_died_is_not_waited_for_for_ever() {
    let pair = pair_with(&QpOptions { access: OPEN, ..QpOptions::default() }, impatient());
    let pool = pool();
    let lease = pair.b.lease_write(pair.domain.attach(buffer(&pool, &[0; 8192])).unwrap(), 0..8192).await.unwrap();
    let remote = lease.remote();
    pair.b.destroy();
    drop(lease);
    let source = pair.domain.attach(buffer(&pool, &[1; 8192])).unwrap();
    let finished = within(pair.a.write(source, &[part(remote, 0..8192)], None)).await;
    assert_eq!(status_of(&finished), Some(Status::RetryExceeded), "{finished:?}");
    assert_eq!(finished.memory.len(), 8192);
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_dropped_future_frees_nothing_before_its_time() {
    let (pool, theirs) = (pool(), pool());
    let pair = pair();
    let bytes = 6 << 20;
    let lease =
        pair.b.lease_write(pair.domain.attach(buffer(&theirs, &vec![0; bytes])).unwrap(), 0..bytes).await.unwrap();
    let source = pair.domain.attach(buffer(&pool, &pattern(bytes, 5))).unwrap();
    let parts = [part(lease.remote(), 0..bytes)];
    {
        let write = pair.a.write(source, &parts, None);
        tokio::pin!(write);
        // Posted by the first poll, and then given up.
        tokio::select! {
            biased;
            _ = &mut write => panic!("6 MiB can't be there already"),
            () = std::future::ready(()) => {}
        }
    }
    assert_eq!(pool.stats().buffers_out, 1, "the device still has it");
    // Work requests complete in order: when this one is done, all before it are.
    within(pair.a.write_immediate_for_test()).await;
    for _ in 0..1000 {
        if pool.stats().buffers_out == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(pool.stats().buffers_out, 0);
    assert_eq!(lease.revoke_now()[..], pattern(bytes, 5));
}

/// A work request that completes behind all others.
trait Barrier {
    async fn write_immediate_for_test(&self);
}
impl Barrier for QueuePair {
    async fn write_immediate_for_test(&self) {
        // An empty READ is done at once; an empty message of no immediate needs no receive only as a WRITE.
        let nothing = self.domain().attach(vec![0u8; 1]).unwrap();
        let none = Part { local: 0..0, addr: 0, rkey: 0 };
        self.write(nothing, &[none], None).await.ok().unwrap();
    }
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn what_was_posted_ends_with_its_queue_pair() {
    let (pool, pair) = (pool(), pair());
    let receives: Vec<_> =
        (0..5).map(|_| pair.b.receive(pair.domain.attach(buffer(&pool, &[0; 100])).unwrap()).unwrap()).collect();
    pair.b.fence();
    assert_eq!(pair.b.state(), QpState::Err);
    for receive in receives {
        let finished = within(receive).await;
        assert!(matches!(finished.result, Err(VerbsError::Flushed { .. })), "{finished:?}");
        assert_eq!(finished.memory.len(), 100);
    }
    let refused: Refused<Local<BufMut>> =
        pair.b.receive(pair.domain.attach(buffer(&pool, &[0; 1])).unwrap()).unwrap_err();
    assert!(matches!(refused.error, VerbsError::Fenced { .. }), "{refused}");
    let receiving = pair.a.receive(pair.domain.attach(buffer(&pool, &[0; 100])).unwrap()).unwrap();
    pair.a.destroy();
    assert!(within(receiving).await.result.is_err());
    drop(refused);
    assert_eq!(pool.stats().buffers_out, 0);
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn one_stock_of_receives_serves_many() {
    let (pool, domain) = (pool(), Domain::first().unwrap());
    let mut shared = domain.shared_receive(8).unwrap();
    for _ in 0..8 {
        shared.post(domain.attach(buffer(&pool, &[0; 256])).unwrap()).unwrap();
    }
    let full = shared.post(domain.attach(buffer(&pool, &[0; 256])).unwrap()).unwrap_err();
    assert!(matches!(full.error, VerbsError::Full { .. }), "{full}");
    let server = QpOptions { shared_receive: Some(shared.handle()), ..QpOptions::default() };
    let client = QpOptions { inline_bytes: 16, ..QpOptions::default() };
    let pairs: Vec<_> = (0..3)
        .map(|_| {
            let (a, b) = (domain.queue_pair(&client).unwrap(), domain.queue_pair(&server).unwrap());
            connect(&domain, &a, &b, Timing::default());
            (a, b)
        })
        .collect();
    for round in 0..4u8 {
        for (index, (a, b)) in pairs.iter().enumerate() {
            let message = [round, index as u8];
            within(a.send_inline(&message, Some(5))).await.unwrap();
            let arrival = within(shared.next()).await;
            assert_eq!(arrival.queue_pair, b.number());
            let done = arrival.result.unwrap();
            assert_eq!((&arrival.memory[..done.bytes as usize], done.immediate), (&message[..], Some(5)));
            shared.post(arrival.memory).unwrap();
        }
    }
    drop((pairs, server, full));
    drop(shared);
    assert_eq!(pool.stats().buffers_out, 0);
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn wrong_steps_are_refused_by_name() {
    let domain = Domain::first().unwrap();
    let a = domain.queue_pair(&QpOptions::default()).unwrap();
    assert_eq!(a.state(), QpState::Init);
    let gid = preferred_gid(domain.gids()).unwrap();
    let right = Connect::new(a.number(), gid.gid, gid.index, 1, 1, domain.port().mtu);
    let early = a.ready_to_send(&right).unwrap_err();
    assert!(matches!(early, VerbsError::State { from: QpState::Init, to: QpState::Rts }), "{early}");
    let unsent = a.send_inline(&[], None).await.unwrap_err();
    assert!(matches!(unsent, VerbsError::State { .. }), "{unsent}");
    let nowhere = Connect { gid_index: 200, ..right };
    let error = a.ready_to_receive(&nowhere).unwrap_err();
    assert!(error.to_string().contains("GID index"), "{error}");
    a.connect(&right).unwrap();
}

#[tokio::test]
#[ignore = "needs an RDMA device: ./dev lab test"]
async fn a_device_without_dma_buf_says_so() {
    let domain = Domain::first().unwrap();
    let file = std::fs::File::open("/dev/zero").unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
    // SAFETY: no dma-buf at all: it can only be refused.
    let foreign = unsafe { Foreign::dmabuf(Dmabuf { fd, offset: 0 }, NonNull::dangling(), 4096, Box::new(file)) };
    let refused = domain.lease_write(foreign).unwrap_err();
    assert!(refused.to_string().contains("dma-buf"), "{refused}");
}
