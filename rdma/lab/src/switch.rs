//! The network between guests: an Ethernet switch in this process. Every guest's QEMU connects by TCP and sends each frame
//! after its length (u32, big-endian), as `-netdev socket` does.
//!
//! A frame goes to the port where its destination was last heard of, or to all others. A guest that does not take its
//! frames loses them once [`QUEUE_FRAMES_MAX`] wait: one that hangs never holds up the others.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{OnPath, Result};

/// Frames that wait for one guest at most: at an MTU of 9000 some 9 MB.
const QUEUE_FRAMES_MAX: usize = 1024;
/// The longest frame that is passed on: an MTU of 9000 and heads, with room.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// Bytes of the two addresses at a frame's begin.
const ADDRESSES_BYTES: usize = 12;

type Address = [u8; 6];

#[derive(Default)]
struct Table {
    ports: HashMap<u64, SyncSender<Arc<[u8]>>>,
    places: HashMap<Address, u64>,
    dropped: u64,
}

/// A running switch; it ends with the process.
pub(crate) struct Switch {
    port: u16,
    table: Arc<Mutex<Table>>,
}

impl Switch {
    /// Starts a switch on a free TCP port of the loopback.
    pub(crate) fn start() -> Result<Switch> {
        let place = std::path::Path::new("the switch between guests");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).on(place)?;
        let port = listener.local_addr().on(place)?.port();
        let table: Arc<Mutex<Table>> = Arc::default();
        let of_thread = Arc::clone(&table);
        std::thread::spawn(move || {
            static NEXT: AtomicU64 = AtomicU64::new(0);
            for stream in listener.incoming().filter_map(std::result::Result::ok) {
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                let _ = connect(number, stream, &of_thread);
            }
        });
        Ok(Switch { port, table })
    }

    /// The TCP port that guests connect to.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Frames that were dropped because a guest did not take them.
    pub(crate) fn dropped_frames(&self) -> u64 {
        lock(&self.table).dropped
    }
}

fn lock(table: &Mutex<Table>) -> std::sync::MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(number: u64, stream: TcpStream, table: &Arc<Mutex<Table>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let (queue, frames) = sync_channel::<Arc<[u8]>>(QUEUE_FRAMES_MAX);
    lock(table).ports.insert(number, queue);
    std::thread::spawn(move || {
        while let Ok(frame) = frames.recv() {
            if out.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = out.shutdown(Shutdown::Both);
    });
    let table = Arc::clone(table);
    std::thread::spawn(move || {
        receive(number, std::io::BufReader::with_capacity(1 << 18, stream), &table);
        let mut table = lock(&table);
        table.ports.remove(&number);
        table.places.retain(|_, place| *place != number);
    });
    Ok(())
}

/// Passes on what comes from one guest, until it ends or sends nonsense.
fn receive(number: u64, mut from: impl Read, table: &Mutex<Table>) {
    let mut head = [0; 4];
    while from.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes(head) as usize;
        if !(ADDRESSES_BYTES..=FRAME_BYTES_MAX).contains(&length) {
            return;
        }
        let mut frame = vec![0; head.len() + length];
        frame[..head.len()].copy_from_slice(&head);
        if from.read_exact(&mut frame[head.len()..]).is_err() {
            return;
        }
        pass_on(number, frame.into(), &mut lock(table));
    }
}

fn pass_on(number: u64, frame: Arc<[u8]>, table: &mut Table) {
    let address = |at: usize| -> Address { frame[at..at + 6].try_into().expect("six bytes are six bytes") };
    let (to, from) = (address(4), address(10));
    table.places.insert(from, number);
    let single = table.places.get(&to).copied();
    let mut dropped = 0;
    for (place, queue) in &table.ports {
        let is_meant = *place != number && single.is_none_or(|single| single == *place);
        if is_meant && matches!(queue.try_send(Arc::clone(&frame)), Err(TrySendError::Full(_))) {
            dropped += 1;
        }
    }
    table.dropped += dropped;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BROADCAST: Address = [255; 6];

    fn frame(to: Address, from: u8, text: &[u8]) -> Vec<u8> {
        let body = [&to[..], &[2, 0, 0, 0, 0, from], text].concat();
        [&u32::try_from(body.len()).expect("short").to_be_bytes()[..], &body].concat()
    }

    fn guest(switch: &Switch) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, switch.port())).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream
    }

    fn expect(stream: &mut TcpStream, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        stream.read_exact(&mut got).expect("a frame");
        assert_eq!(got, wanted);
    }

    /// Three guests that have all been heard of.
    fn three(switch: &Switch) -> [TcpStream; 3] {
        let mut guests = [guest(switch), guest(switch), guest(switch)];
        while lock(&switch.table).ports.len() < 3 {
            std::thread::sleep(Duration::from_millis(1));
        }
        for number in 0..3 {
            let hello = frame(BROADCAST, u8::try_from(number).expect("small"), b"hello");
            guests[number].write_all(&hello).expect("sent");
            for other in (0..3).filter(|other| *other != number) {
                expect(&mut guests[other], &hello);
            }
        }
        guests
    }

    #[test]
    fn frames_go_to_whom_they_name() {
        let switch = Switch::start().expect("a free port");
        let [mut a, mut b, mut c] = three(&switch);
        let to_b = frame([2, 0, 0, 0, 0, 1], 0, b"for b alone");
        let to_c = frame([2, 0, 0, 0, 0, 2], 0, b"for c alone");
        a.write_all(&[to_b.clone(), to_c.clone()].concat()).expect("sent");
        expect(&mut b, &to_b);
        expect(&mut c, &to_c);
        assert_eq!(switch.dropped_frames(), 0);
    }

    #[test]
    fn nonsense_ends_one_guest_only() {
        let switch = Switch::start().expect("a free port");
        let [mut a, mut b, mut c] = three(&switch);
        a.write_all(&u32::MAX.to_be_bytes()).expect("sent");
        assert_eq!(a.read(&mut [0; 8]).unwrap_or(0), 0, "its connection ends");
        let to_c = frame([2, 0, 0, 0, 0, 2], 1, b"still here");
        b.write_all(&to_c).expect("sent");
        expect(&mut c, &to_c);
    }

    #[test]
    fn a_guest_that_hangs_holds_up_nobody() {
        let switch = Switch::start().expect("a free port");
        let [mut a, _hangs, mut c] = three(&switch);
        let big = frame([2, 0, 0, 0, 0, 1], 0, &[7; 9000]);
        while switch.dropped_frames() == 0 {
            a.write_all(&big).expect("the switch takes all");
        }
        let to_c = frame([2, 0, 0, 0, 0, 2], 0, b"in time");
        a.write_all(&to_c).expect("sent");
        expect(&mut c, &to_c);
    }
}
