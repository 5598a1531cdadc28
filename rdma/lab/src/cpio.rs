//! An initramfs is a cpio archive in the `newc` form (Documentation/driver-api/early-userspace/buffer-format.rst in the
//! kernel's tree): 110 bytes of ASCII head per entry, name and data each padded to four bytes, `TRAILER!!!` at the end.

/// An archive under construction. Folders must be added before what they contain.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// Adds a folder; `name` without a leading slash.
    pub(crate) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[]);
    }

    /// Adds an executable file.
    pub(crate) fn file(&mut self, name: &str, data: &[u8]) {
        self.entry(name, PROGRAM, data);
    }

    /// Ends the archive and gives its bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entries += 1;
        let data_bytes = u32::try_from(data.len()).expect("nothing of 4 GiB goes into an initramfs");
        let name_bytes = u32::try_from(name.len() + 1).expect("names are short");
        // inode, mode, uid, gid, links, mtime, size, device (2), node (2), name with its NUL, check (unused in newc)
        let head = [self.entries, mode, 0, 0, 1, 0, data_bytes, 0, 0, 0, 0, name_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in head {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut archive = Archive::default();
        archive.folder("a");
        archive.file("a/b", b"hello");
        let text = String::from_utf8(archive.finish()).expect("ASCII");
        let expected = concat!(
            "070701000000010000",
            "41ED000000000000000000000001",
            "0000000000000000",
            "00000000000000000000000000000000",
            "0000000200000000",
            "a\0",
        );
        assert_eq!(&text[..112], expected);
        assert!(text[112..].starts_with("07070100000002000081ED"));
        assert!(text.contains(concat!("a/b\0\0\0", "hello\0\0\0", "070701")));
        assert_eq!(text.len() % 4, 0);
        assert!(text.contains("TRAILER!!!\0"));
    }
}
