//! What the command line names: `s3://BUCKET/KEY`, a path, or `-` for standard input and output.

use std::path::{Component, Path, PathBuf};

use super::Failed;

/// A bucket, and a key or a prefix in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) bucket: String,
    pub(crate) key: String,
}

/// One end of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Remote(Remote),
    Local(PathBuf),
    Standard,
}

impl std::fmt::Display for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.key.is_empty() {
            true => write!(f, "s3://{}", self.bucket),
            false => write!(f, "s3://{}/{}", self.bucket, self.key),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Remote(remote) => remote.fmt(f),
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Standard => f.write_str("-"),
        }
    }
}

impl Remote {
    /// `s3://BUCKET` or `s3://BUCKET/KEY`.
    pub(crate) fn parse(text: &str) -> Result<Self, Failed> {
        let rest = text.strip_prefix("s3://");
        let rest = rest.ok_or_else(|| Failed::usage(format!("{text:?}: write s3://BUCKET or s3://BUCKET/KEY")))?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(Failed::usage(format!("{text:?} names no bucket: write s3://BUCKET/KEY")));
        }
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// As [`Remote::parse`], with a key.
    pub(crate) fn object(text: &str) -> Result<Self, Failed> {
        let remote = Self::parse(text)?;
        match remote.key.is_empty() {
            true => Err(Failed::usage(format!("{text:?} names no object: write s3://BUCKET/KEY"))),
            false => Ok(remote),
        }
    }

    /// As [`Remote::parse`], without a key.
    pub(crate) fn bucket(text: &str) -> Result<Self, Failed> {
        let remote = Self::parse(text)?;
        match remote.key.is_empty() {
            true => Ok(remote),
            false => Err(Failed::usage(format!("{text:?} names an object: write s3://BUCKET"))),
        }
    }

    pub(crate) fn with_key(&self, key: impl Into<String>) -> Self {
        Self { bucket: self.bucket.clone(), key: key.into() }
    }

    /// As a folder: what is in it begins with this, which is nothing or ends in a slash.
    pub(crate) fn folder(&self) -> Self {
        match self.key.is_empty() || self.key.ends_with('/') {
            true => self.clone(),
            false => self.with_key(format!("{}/", self.key)),
        }
    }
}

impl Place {
    pub(crate) fn parse(text: &str) -> Result<Self, Failed> {
        match text {
            "" => Err(Failed::usage("an empty path".to_owned())),
            "-" => Ok(Self::Standard),
            _ if text.starts_with("s3://") => Ok(Self::Remote(Remote::parse(text)?)),
            _ => Ok(Self::Local(PathBuf::from(text))),
        }
    }
}

/// Where under `folder` the object of this relative key goes. A key that would lead out of it is refused, whoever has put it there.
pub(crate) fn local_path(folder: &Path, relative: &str) -> Result<PathBuf, Failed> {
    let wrong = |why: &str| {
        let message = format!("the key {relative:?} can't be a file below {}: {why}", folder.display());
        Failed { message, code: super::CODE_OTHER }
    };
    let path = Path::new(relative);
    if relative.is_empty() || relative.ends_with('/') || relative.contains('\0') || relative.contains("//") {
        return Err(wrong("it has an empty part"));
    }
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(wrong("it leads somewhere else"));
    }
    Ok(folder.join(path))
}

/// The last part of a key or a path.
pub(crate) fn last_part(text: &str) -> &str {
    text.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let remote = Remote::parse("s3://b/a/c d").unwrap();
        assert_eq!((remote.bucket.as_str(), remote.key.as_str()), ("b", "a/c d"));
        assert_eq!(Remote::parse("s3://b").unwrap().to_string(), "s3://b");
        assert_eq!(Remote::parse("s3://b/x").unwrap().folder().key, "x/");
        assert_eq!(Remote::parse("s3://b").unwrap().folder().key, "");
        for bad in ["s3:///k", "s3://", "b/k", ""] {
            assert!(Remote::parse(bad).is_err(), "{bad}");
        }
        assert!(Remote::object("s3://b/").is_err() && Remote::bucket("s3://b/k").is_err());
        assert_eq!(Place::parse("-").unwrap(), Place::Standard);
        assert_eq!(Place::parse("./x").unwrap(), Place::Local(PathBuf::from("./x")));
    }

    #[test]
    fn no_key_leads_out_of_the_folder() {
        let folder = Path::new("/to");
        assert_eq!(local_path(folder, "a/b").unwrap(), Path::new("/to/a/b"));
        for bad in ["../a", "a/../../b", "/etc/passwd", "a/./b/..", "", "a/", "a//b"] {
            assert!(local_path(folder, bad).is_err(), "{bad}");
        }
    }
}
