//! Which keys of a listing stand for themselves and which roll up to a common prefix: S3's rules as a pure machine.
//!
//! A key that has the delimiter after the listing's prefix rolls up to everything up to and with the first delimiter.
//! All keys that start with a common prefix roll up to it (an earlier delimiter would lie within the common prefix
//! itself), so they are one run of the order, and the reader skips from the first to past the last.
//!
//! `after` is exclusive. If it *is* a common prefix of this listing (what a page that ended in one hands on), the
//! whole run is skipped. If it lies *inside* a run (`a/b` under `a/`), later keys of the run still roll up to it.

/// The prefix and delimiter of a listing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rollup<'a> {
    pub(super) prefix: &'a str,
    /// Empty for none.
    pub(super) delimiter: &'a str,
}

/// Where to begin to read keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Start<'a> {
    /// At the first key that is at least this.
    At(&'a str),
    /// At the first key greater than this.
    After(&'a str),
    /// At the first key past all that start with this.
    Past(&'a str),
}

impl<'a> Rollup<'a> {
    /// The common prefix that `key`, which starts with the listing's prefix, rolls up to.
    pub(super) fn common_prefix<'k>(&self, key: &'k str) -> Option<&'k str> {
        if self.delimiter.is_empty() {
            return None;
        }
        let rest = key.strip_prefix(self.prefix)?;
        let end = self.prefix.len() + rest.find(self.delimiter)? + self.delimiter.len();
        Some(&key[..end])
    }

    /// Where a listing after `after` (empty for the beginning) begins; `None` if nothing can come.
    pub(super) fn start(&self, after: &'a str) -> Option<Start<'a>> {
        if after.is_empty() || after < self.prefix {
            return Some(Start::At(self.prefix));
        }
        if !after.starts_with(self.prefix) {
            return None;
        }
        if self.common_prefix(after) == Some(after) { Some(Start::Past(after)) } else { Some(Start::After(after)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_delimiter_after_the_prefix_decides() {
        let rollup = Rollup { prefix: "a/", delimiter: "/" };
        assert_eq!(rollup.common_prefix("a/b"), None);
        assert_eq!(rollup.common_prefix("a/b/c/d"), Some("a/b/"));
        assert_eq!(rollup.common_prefix("a//c"), Some("a//"));
        assert_eq!(rollup.common_prefix("b/x/"), None, "not under the prefix");
        let long = Rollup { prefix: "", delimiter: "aa" };
        assert_eq!(long.common_prefix("xaaa"), Some("xaa"));
        assert_eq!(long.common_prefix("xa"), None);
        assert_eq!(Rollup { prefix: "", delimiter: "" }.common_prefix("a/b"), None);
    }

    #[test]
    fn after_a_common_prefix_means_past_it_and_after_a_key_inside_it_does_not() {
        let rollup = Rollup { prefix: "", delimiter: "/" };
        assert_eq!(rollup.start(""), Some(Start::At("")));
        assert_eq!(rollup.start("a/"), Some(Start::Past("a/")));
        assert_eq!(rollup.start("a/b"), Some(Start::After("a/b")));
        assert_eq!(rollup.start("a"), Some(Start::After("a")));
        let under = Rollup { prefix: "b/", delimiter: "/" };
        assert_eq!(under.start("a"), Some(Start::At("b/")));
        assert_eq!(under.start("b/"), Some(Start::After("b/")));
        assert_eq!(under.start("b/c/"), Some(Start::Past("b/c/")));
        assert_eq!(under.start("c"), None);
        let plain = Rollup { prefix: "", delimiter: "" };
        assert_eq!(plain.start("a/"), Some(Start::After("a/")));
    }
}
