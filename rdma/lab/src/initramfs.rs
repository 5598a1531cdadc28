//! The initramfs: busybox, the modules, and two scripts. Everything else comes from the host's own files, which the guest
//! sees read-only under a writable layer in its memory (docs/adr/0008-lab.md).

use std::path::Path;

use crate::cpio::Archive;
use crate::error::{LabError, Result};
use crate::kernel::Kernel;

/// Builds the initramfs.
pub(crate) fn build(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for folder in ["bin", "proc", "sys", "dev", "run", "host", "layer", "new", "modules"] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", &busybox()?);
    let mut order = String::new();
    for (name, bytes) in kernel.modules()? {
        archive.file(&format!("modules/{name}"), &bytes);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    archive.file("second.sh", include_bytes!("second.sh"));
    archive.file("init", include_bytes!("init.sh"));
    Ok(archive.finish())
}

fn busybox() -> Result<Vec<u8>> {
    let path = Path::new("/bin/busybox");
    let bytes = std::fs::read(path)
        .map_err(|error| LabError::Setup(format!("/bin/busybox: {error}; run: apt-get install busybox-static")))?;
    if has_interpreter(&bytes) {
        return Err(LabError::Setup("/bin/busybox is not static; run: apt-get install busybox-static".to_owned()));
    }
    Ok(bytes)
}

/// Whether an ELF program of 64 bits asks for a dynamic linker, which a guest does not have before the host's files.
fn has_interpreter(elf: &[u8]) -> bool {
    const SEGMENT_INTERPRETER: u32 = 3;
    let number = |at: usize, bytes: usize| {
        elf.get(at..at + bytes)
            .map_or(0, |part| part.iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)))
    };
    let (table, entry_bytes, entries) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..entries).any(|entry| number(table + entry * entry_bytes, 4) == SEGMENT_INTERPRETER as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dynamic_programs_are_told_apart() {
        let this = std::fs::read("/proc/self/exe").expect("a test is a program");
        assert!(has_interpreter(&this), "tests are linked dynamically");
        assert!(!has_interpreter(b"\x7fELF too short"));
    }
}
