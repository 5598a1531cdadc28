//! Keys on disk: the root key pair of the S3 front and the key that gateway and nodes share. Files are made whole or not
//! at all, readable by their owner alone, and never replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use penstock_gateway::encryption::MasterKey as EncryptionKey;
use penstock_identity::MasterKey;
use penstock_proto::ClusterKey;
use serde::Deserialize;

use crate::Fatal;

/// The root key pair.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootCredentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
}

impl std::fmt::Debug for RootCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCredentials").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// The file of the root key pair within the gateway's directory.
pub(crate) const ROOT_CREDENTIALS_FILE: &str = "root-credentials.toml";

const ACCESS_KEY_RANDOM_CHARS: usize = 16;
const SECRET_KEY_BYTES: usize = 30;

fn random_bytes<const N: usize>() -> Result<[u8; N], Fatal> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|error| Fatal::doing("the operating system's random source", error))?;
    Ok(bytes)
}

impl RootCredentials {
    fn random() -> Result<Self, Fatal> {
        // The alphabet of AWS access keys (RFC 4648 base 32): 32 letters, so that five bits choose one without bias.
        const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let letters: String = random_bytes::<ACCESS_KEY_RANDOM_CHARS>()?
            .iter()
            .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
            .collect();
        let secret = base64::engine::general_purpose::STANDARD.encode(random_bytes::<SECRET_KEY_BYTES>()?);
        Ok(Self { access_key_id: format!("PNST{letters}"), secret_access_key: secret })
    }

    /// Reads the pair of `folder`, where a store has put one.
    pub(crate) fn read(folder: &Path) -> Result<Self, Fatal> {
        let path = folder.join(ROOT_CREDENTIALS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| Fatal::doing(path.display(), error)),
            Err(error) => Err(Fatal(format!(
                "{}: {error}; it is made when a store first starts with this folder as its --data",
                path.display()
            ))),
        }
    }

    /// Reads the pair of `folder`, or makes it. The flag says whether it is new, and so must be shown.
    pub(crate) fn read_or_make(folder: &Path) -> Result<(Self, bool), Fatal> {
        let path = folder.join(ROOT_CREDENTIALS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => {
                warn_if_others_can_read(&path)?;
                let pair = toml::from_str(&text).map_err(|error| Fatal::doing(path.display(), error))?;
                Ok((pair, false))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let pair = Self::random()?;
                let text = format!(
                    "# Penstock's root key pair. Whoever reads this file owns every object.\naccess_key_id = \"{}\"\n\
                     secret_access_key = \"{}\"\n",
                    pair.access_key_id, pair.secret_access_key
                );
                write_secret_file(&path, text.as_bytes())?;
                Ok((pair, true))
            }
            Err(error) => Err(Fatal::doing(path.display(), error)),
        }
    }
}

fn warn_if_others_can_read(path: &Path) -> Result<(), Fatal> {
    let mode = fs::metadata(path).map_err(|error| Fatal::doing(path.display(), error))?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", mode & 0o777), "this secret can be read by others: chmod 600 it");
    }
    Ok(())
}

/// Makes `path` with `contents`, mode 0600, durable before it has its name.
fn write_secret_file(path: &Path, contents: &[u8]) -> Result<(), Fatal> {
    let failed = |error: io::Error| Fatal::doing(format!("writing {}", path.display()), error);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let _ = fs::remove_file(&temporary); // left by a start that was killed half-way
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(failed)?;
    // A hard link refuses to replace what is there, which a rename would not.
    let linked = fs::hard_link(&temporary, path);
    let _ = fs::remove_file(&temporary);
    linked.map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn write_new_cluster_key(path: &Path) -> Result<(), Fatal> {
    let key = hex::encode(random_bytes::<32>()?);
    write_secret_file(path, format!("{key}\n").as_bytes())
}

/// `penstock cluster-key`.
pub(crate) fn make_cluster_key_file(path: &Path) -> Result<(), Fatal> {
    write_new_cluster_key(path)?;
    eprintln!(
        "{} holds the cluster's key: copy it to every machine of the cluster, readable by penstock alone",
        path.display()
    );
    Ok(())
}

/// Reads a cluster key file.
pub(crate) fn read_cluster_key(path: &Path) -> Result<ClusterKey, Fatal> {
    let text = fs::read_to_string(path).map_err(|error| {
        Fatal(format!(
            "{}: {error}; `penstock cluster-key --out {}` makes a new cluster's key",
            path.display(),
            path.display()
        ))
    })?;
    warn_if_others_can_read(path)?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes =
        bytes.ok_or_else(|| Fatal(format!("{} is no cluster key: it must be 64 hex digits", path.display())))?;
    Ok(ClusterKey::new(bytes))
}

/// Reads the cluster key at `path`, or makes it.
pub(crate) fn read_or_make_cluster_key(path: &Path) -> Result<ClusterKey, Fatal> {
    if !path.exists() {
        write_new_cluster_key(path)?;
    }
    read_cluster_key(path)
}

/// The file of the key under which users' secrets are sealed, within the gateway's directory.
pub(crate) const IDENTITY_KEY_FILE: &str = "identity.key";

/// Reads the identity key at `path`, or makes it. Its loss is the loss of every user's access keys (not of any data).
pub(crate) fn read_or_make_identity_key(path: &Path) -> Result<MasterKey, Fatal> {
    if !path.exists() {
        write_new_cluster_key(path)?;
    }
    let text = fs::read_to_string(path).map_err(|error| Fatal::doing(path.display(), error))?;
    warn_if_others_can_read(path)?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes =
        bytes.ok_or_else(|| Fatal(format!("{} is no identity key: it must be 64 hex digits", path.display())))?;
    Ok(MasterKey::new(bytes))
}

/// The file of the key under which encrypted objects' keys are sealed, within the gateway's directory.
pub(crate) const ENCRYPTION_KEY_FILE: &str = "encryption.key";

/// Reads the encryption key at `path`, or makes it. Its loss is the loss of every object that SSE-S3 and SSE-KMS encrypted: it
/// must be backed up, and not beside the data that it is to protect.
pub(crate) fn read_or_make_encryption_key(path: &Path) -> Result<EncryptionKey, Fatal> {
    if !path.exists() {
        write_new_cluster_key(path)?;
        tracing::info!(path = %path.display(), "made the encryption key: without this file, encrypted objects can't be read; back it up");
    }
    let text = fs::read_to_string(path).map_err(|error| Fatal::doing(path.display(), error))?;
    warn_if_others_can_read(path)?;
    let bytes = hex::decode(text.trim()).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let bytes =
        bytes.ok_or_else(|| Fatal(format!("{} is no encryption key: it must be 64 hex digits", path.display())))?;
    Ok(EncryptionKey::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_pair_is_made_once_kept_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let (first, new) = RootCredentials::read_or_make(folder.path()).unwrap();
        assert!(new);
        let (second, new) = RootCredentials::read_or_make(folder.path()).unwrap();
        assert!(!new && first == second);
        assert_eq!((first.access_key_id.len(), first.secret_access_key.len()), (20, 40));
        let mode = fs::metadata(folder.path().join(ROOT_CREDENTIALS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{first:?}").contains(&first.secret_access_key));
    }

    #[test]
    fn a_cluster_key_is_never_replaced_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster.key");
        assert!(read_cluster_key(&path).unwrap_err().to_string().contains("penstock cluster-key"));
        make_cluster_key_file(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(make_cluster_key_file(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
        read_cluster_key(&path).unwrap();
        fs::write(&path, "not hex").unwrap();
        assert!(read_cluster_key(&path).unwrap_err().to_string().contains("64 hex digits"));
    }
}
