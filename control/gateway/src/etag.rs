//! ETags: MD5 of the bytes, or MD5 of the parts' MD5s with their number behind it.

use penstock_digest::Md5Hasher;

use crate::api::ETag;

/// The ETag of an object or part that came in one piece.
pub(crate) fn of_md5(md5: [u8; 16]) -> ETag {
    hex::encode(md5)
}

/// The ETag of an object of these parts.
pub(crate) fn of_parts(part_md5s: &[[u8; 16]]) -> ETag {
    let mut md5 = Md5Hasher::new();
    for part in part_md5s {
        md5.update(part);
    }
    format!("{}-{}", hex::encode(md5.finish()), part_md5s.len())
}

/// MD5 of nothing, the ETag of empty objects.
#[cfg(test)]
pub(crate) const OF_NOTHING: &str = "d41d8cd98f00b204e9800998ecf8427e";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_etags() {
        assert_eq!(of_md5(Md5Hasher::of(b"")), OF_NOTHING);
        // md5(md5("a") + md5("b")), by another program.
        let parts = [Md5Hasher::of(b"a"), Md5Hasher::of(b"b")];
        assert_eq!(of_parts(&parts), "96e024ba2074fe77e8e965ba43a704be-2");
    }
}
