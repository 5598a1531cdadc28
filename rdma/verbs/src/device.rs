//! Devices, their ports, and what they can do.

use std::ffi::CStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::abi::{self, capability};
use crate::error::{Verb, VerbsError};
use crate::gid::{GidEntry, read_gids};
use crate::library::{Api, api};

/// How large a packet's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names say it, in bytes")]
pub enum Mtu {
    M256,
    M512,
    M1024,
    M2048,
    M4096,
}

impl Mtu {
    const ALL: [Self; 5] = [Self::M256, Self::M512, Self::M1024, Self::M2048, Self::M4096];

    /// Bytes.
    pub fn bytes(self) -> u32 {
        128 << self.number()
    }

    /// From a number of bytes that is one.
    pub fn from_bytes(bytes: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| mtu.bytes() == bytes)
    }

    pub(crate) fn number(self) -> i32 {
        self as i32 + 1
    }

    fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|mtu| mtu.number() == number)
    }
}

/// What a device has. All at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAttributes {
    /// Queue pairs.
    pub qp_max: u32,
    /// Work requests of one queue.
    pub qp_wr_max: u32,
    /// Pieces of memory of one work request.
    pub sge_max: u32,
    /// Entries of one completion queue.
    pub cqe_max: u32,
    /// Registrations.
    pub mr_max: u32,
    /// Bytes of one registration.
    pub mr_bytes_max: u64,
    /// READs that a queue pair serves at a time.
    pub read_depth_peer_max: u32,
    /// READs that a queue pair sends at a time.
    pub read_depth_max: u32,
    /// Shared receive queues.
    pub srq_max: u32,
    /// Work requests of one shared receive queue.
    pub srq_wr_max: u32,
    /// Memory windows.
    pub mw_max: u32,
    /// Whether windows can be bound by posting, to one queue pair, and be invalidated the same way.
    pub has_window_2: bool,
    /// Whether a window's own range is enforced. Soft-RoCE (as of Linux 6.1) looks at the registration's range alone: there
    /// a window is bound to a registration of just its range.
    pub windows_keep_bounds: bool,
    /// Ports.
    pub ports: u8,
}

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAttributes {
    /// Its number, from 1.
    pub port: u8,
    /// Whether it carries anything.
    pub active: bool,
    /// Its state, in words.
    pub state: &'static str,
    /// The MTU in force.
    pub mtu: Mtu,
    /// The largest it could have.
    pub mtu_max: Mtu,
    /// Longest message.
    pub message_bytes_max: u32,
    /// Places of the GID table.
    pub gid_count: u32,
    /// Its local identifier; 0 on Ethernet.
    pub lid: u16,
    /// Whether it is Ethernet (RoCE).
    pub ethernet: bool,
}

/// A device that is open. Clones share it.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    api: &'static Api,
    context: NonNull<abi::Context>,
    name: String,
    attributes: DeviceAttributes,
}

// SAFETY: libibverbs' contexts may be used from any thread, at the same time.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed once; everything made of it keeps this Inner.
        unsafe { (self.api.ibv_close_device)(self.context.as_ptr()) };
    }
}

/// The library's list of devices, freed when dropped.
struct List {
    api: &'static Api,
    first: NonNull<*mut abi::Device>,
    count: usize,
}

impl List {
    fn get() -> Result<Self, VerbsError> {
        let api = api()?;
        let mut count = 0;
        // SAFETY: the count is written through a valid pointer.
        let first = unsafe { (api.ibv_get_device_list)(&raw mut count) };
        let Some(first) = NonNull::new(first) else { return Err(VerbsError::last(Verb::GetDeviceList)) };
        Ok(Self { api, first, count: usize::try_from(count).unwrap_or(0) })
    }

    fn devices(&self) -> impl Iterator<Item = (*mut abi::Device, String)> {
        (0..self.count).map(|index| {
            // SAFETY: the list has `count` entries, and each a name that lives as long as the list.
            unsafe {
                let device = *self.first.as_ptr().add(index);
                let name = CStr::from_ptr((self.api.ibv_get_device_name)(device)).to_string_lossy().into_owned();
                (device, name)
            }
        })
    }
}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the library's own list, freed once. Devices that were opened stay.
        unsafe { (self.api.ibv_free_device_list)(self.first.as_ptr()) };
    }
}

impl Device {
    /// The names of the devices.
    ///
    /// # Errors
    /// [`VerbsError::NoLibrary`], [`VerbsError::NoDevices`], or what the library says.
    pub fn list() -> Result<Vec<String>, VerbsError> {
        let names: Vec<String> = List::get()?.devices().map(|(_, name)| name).collect();
        if names.is_empty() { Err(VerbsError::NoDevices) } else { Ok(names) }
    }

    /// Opens the device `name`.
    ///
    /// # Errors
    /// [`VerbsError::NoSuchDevice`] with the names that there are; what the kernel says.
    pub fn open(name: &str) -> Result<Self, VerbsError> {
        let list = List::get()?;
        let Some((device, name)) = list.devices().find(|(_, have)| have == name) else {
            let have: Vec<String> = list.devices().map(|(_, name)| name).collect();
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            return Err(VerbsError::NoSuchDevice { name: name.to_owned(), have });
        };
        // SAFETY: a device of a list that is still there.
        let context = unsafe { (list.api.ibv_open_device)(device) };
        let Some(context) = NonNull::new(context) else { return Err(VerbsError::last(Verb::OpenDevice)) };
        let attributes = match query_device(list.api, context) {
            Ok(attributes) => attributes,
            Err(error) => {
                // SAFETY: opened above, not used again.
                unsafe { (list.api.ibv_close_device)(context.as_ptr()) };
                return Err(error);
            }
        };
        Ok(Self(Arc::new(Inner { api: list.api, context, name, attributes })))
    }

    /// Its name, as `rdma link` shows it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What it has.
    pub fn attributes(&self) -> &DeviceAttributes {
        &self.0.attributes
    }

    /// The state of a port, now.
    ///
    /// # Errors
    /// [`VerbsError::Bounds`] when there is no such port; what the kernel says.
    pub fn port(&self, port: u8) -> Result<PortAttributes, VerbsError> {
        if port == 0 || port > self.0.attributes.ports {
            return Err(VerbsError::bounds(format!(
                "port {port} of {}, which has {}",
                self.0.name, self.0.attributes.ports
            )));
        }
        // SAFETY: all-zero is a value of this structure of integers.
        let mut attributes: abi::PortAttr = unsafe { std::mem::zeroed() };
        // SAFETY: an open context; the library writes at most the structure, whose start is all that it knew in 2005.
        let errno = unsafe { (self.0.api.ibv_query_port)(self.context(), port, &raw mut attributes) };
        if errno != 0 {
            return Err(VerbsError::call(Verb::QueryPort, errno.abs()));
        }
        Ok(port_attributes(port, &attributes))
    }

    /// The addresses of a port.
    ///
    /// # Errors
    /// As of [`Device::port`]; when sysfs can't be read.
    pub fn gids(&self, port: u8) -> Result<Vec<GidEntry>, VerbsError> {
        let attributes = self.port(port)?;
        let count = i32::try_from(attributes.gid_count).unwrap_or(i32::MAX);
        read_gids(&self.sysfs().join("ports").join(port.to_string()), count, attributes.ethernet)
    }

    /// Its folder in sysfs.
    fn sysfs(&self) -> PathBuf {
        Path::new("/sys/class/infiniband").join(&self.0.name)
    }

    pub(crate) fn api(&self) -> &'static Api {
        self.0.api
    }

    pub(crate) fn context(&self) -> *mut abi::Context {
        self.0.context.as_ptr()
    }

    /// The functions of the device's own driver.
    pub(crate) fn ops(&self) -> &abi::ContextOps {
        // SAFETY: the context lives as long as self, and its table of functions is not changed once it is open.
        unsafe { &(*self.0.context.as_ptr()).ops }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.0.name)
    }
}

fn query_device(api: &Api, context: NonNull<abi::Context>) -> Result<DeviceAttributes, VerbsError> {
    // SAFETY: all-zero is a value of this structure of integers.
    let mut raw: abi::DeviceAttr = unsafe { std::mem::zeroed() };
    // SAFETY: an open context and a structure of the size that the library writes.
    let errno = unsafe { (api.ibv_query_device)(context.as_ptr(), &raw mut raw) };
    if errno != 0 {
        return Err(VerbsError::call(Verb::QueryDevice, errno.abs()));
    }
    Ok(device_attributes(&raw))
}

/// What soft-RoCE calls its vendor.
const RXE_VENDOR: u32 = 0xff_ffff;

fn device_attributes(raw: &abi::DeviceAttr) -> DeviceAttributes {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let has = |bits| raw.device_cap_flags & bits != 0;
    DeviceAttributes {
        qp_max: count(raw.max_qp),
        qp_wr_max: count(raw.max_qp_wr),
        sge_max: count(raw.max_sge),
        cqe_max: count(raw.max_cqe),
        mr_max: count(raw.max_mr),
        mr_bytes_max: raw.max_mr_size,
        read_depth_peer_max: count(raw.max_qp_rd_atom),
        read_depth_max: count(raw.max_qp_init_rd_atom),
        srq_max: count(raw.max_srq),
        srq_wr_max: count(raw.max_srq_wr),
        mw_max: count(raw.max_mw),
        has_window_2: raw.max_mw > 0
            && has(capability::MEM_WINDOW_2A | capability::MEM_WINDOW_2B)
            && has(capability::MEM_MGT_EXTENSIONS),
        windows_keep_bounds: raw.vendor_id != RXE_VENDOR,
        ports: raw.phys_port_cnt,
    }
}

fn port_attributes(port: u8, raw: &abi::PortAttr) -> PortAttributes {
    const ETHERNET: u8 = 2;
    PortAttributes {
        port,
        active: raw.state == 4,
        state: match raw.state {
            1 => "down",
            2 => "initialising",
            3 => "armed",
            4 => "active",
            5 => "active, deferred",
            _ => "in no known state",
        },
        mtu: Mtu::from_number(raw.active_mtu).unwrap_or(Mtu::M1024),
        mtu_max: Mtu::from_number(raw.max_mtu).unwrap_or(Mtu::M4096),
        message_bytes_max: raw.max_msg_sz,
        gid_count: u32::try_from(raw.gid_tbl_len).unwrap_or(0),
        lid: raw.lid,
        ethernet: raw.link_layer == ETHERNET,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mtus_have_the_librarys_numbers() {
        let table: Vec<(u32, i32)> = Mtu::ALL.iter().map(|mtu| (mtu.bytes(), mtu.number())).collect();
        assert_eq!(table, [(256, 1), (512, 2), (1024, 3), (2048, 4), (4096, 5)]);
        assert_eq!(Mtu::from_bytes(4096), Some(Mtu::M4096));
        assert_eq!(Mtu::from_bytes(1500), None);
        assert_eq!(Mtu::M4096.min(Mtu::M1024), Mtu::M1024);
    }

    #[test]
    fn what_rxe_says_is_understood() {
        // SAFETY: structures of integers.
        let (mut device, mut port): (abi::DeviceAttr, abi::PortAttr) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        (device.max_mw, device.phys_port_cnt, device.max_qp_rd_atom) = (524_287, 1, 128);
        assert!(!device_attributes(&device).has_window_2);
        device.device_cap_flags = capability::MEM_WINDOW_2B | capability::MEM_MGT_EXTENSIONS;
        let attributes = device_attributes(&device);
        assert!(attributes.has_window_2 && attributes.windows_keep_bounds);
        device.vendor_id = RXE_VENDOR;
        assert!(!device_attributes(&device).windows_keep_bounds);
        assert_eq!((attributes.ports, attributes.read_depth_peer_max), (1, 128));
        (port.state, port.active_mtu, port.max_mtu, port.max_msg_sz, port.link_layer) = (4, 5, 5, 8 << 20, 2);
        let attributes = port_attributes(1, &port);
        assert!(attributes.active && attributes.ethernet);
        assert_eq!((attributes.mtu, attributes.message_bytes_max), (Mtu::M4096, 8 << 20));
        port.state = 1;
        assert_eq!(port_attributes(1, &port).state, "down");
    }
}
