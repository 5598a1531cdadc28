//! cuObject's descriptor: 81 characters, seven fixed-width hex fields between colons. It names a DC target, which only mlx5
//! hardware can reach: we recognise it to decline it.

use crate::error::WireError;
use crate::gid::Gid;
use crate::hex;
use crate::names;

/// Widths of the fields.
const WIDTHS: [usize; 7] = [16, 8, 8, 4, 6, 1, 32];

/// A window of a client's memory behind a DC target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DcDescriptor {
    /// Its address.
    pub address: u64,
    /// Its bytes.
    pub size: u32,
    /// Its remote key.
    pub rkey: u32,
    /// The port's LID; 0 on RoCE.
    pub lid: u16,
    /// The DC target's number, 24 bits.
    pub dct: u32,
    /// The port's GID, when it has one.
    pub gid: Option<Gid>,
}

impl DcDescriptor {
    /// The descriptor. A trailing NUL or `;` is dropped; an older form that goes on with `:address:size` (16 hex digits
    /// each) is accepted and those two replace the descriptor's.
    ///
    /// # Errors
    /// [`WireError::Malformed`].
    pub fn parse(text: &str) -> Result<Self, WireError> {
        let bad = |why| WireError::malformed(names::TOKEN, why);
        let text = text.trim_end_matches(['\0', ';']);
        let fields: Vec<&str> = text.splitn(WIDTHS.len() + 3, ':').collect();
        if fields.len() != WIDTHS.len() && fields.len() != WIDTHS.len() + 2 {
            return Err(bad("a descriptor has 7 fields between colons"));
        }
        let number = |index: usize| {
            hex::exact(fields[index], WIDTHS[index]).ok_or(bad("a field of the descriptor is not hex of its width"))
        };
        let gid_bytes: [u8; 16] = hex::bytes(fields[6]).ok_or(bad("the descriptor's GID is 32 hex digits"))?;
        let gid = match number(5)? {
            0 => None,
            1 => Some(Gid(gid_bytes)),
            _ => return Err(bad("the descriptor's sixth field says 0 or 1")),
        };
        let mut descriptor = Self {
            address: number(0)?,
            size: number(1)? as u32,
            rkey: number(2)? as u32,
            lid: number(3)? as u16,
            dct: number(4)? as u32,
            gid,
        };
        if let [address, size] = fields[7..] {
            let wide = |text| hex::exact(text, 16).ok_or(bad("what follows the descriptor is 16 hex digits each"));
            descriptor.address = wide(address)?;
            descriptor.size =
                u32::try_from(wide(size)?).map_err(|_| bad("a descriptor is good for 4 GiB - 1 bytes"))?;
        }
        Ok(descriptor)
    }
}

impl std::fmt::Display for DcDescriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { address, size, rkey, lid, dct, gid } = self;
        let present = u8::from(gid.is_some());
        let gid = hex::text(&gid.unwrap_or_default().0);
        write!(f, "{address:016x}:{size:08x}:{rkey:08x}:{lid:04x}:{:06x}:{present}:{gid}", dct & 0xff_ffff)
    }
}
