//! How small objects are packed: as options of `penstock serve`, and as `[gateway.packing]` in the configuration file.

use std::time::Duration;

use penstock_gateway::PackOptions;
use serde::Deserialize;

use crate::Fatal;
use crate::config::Size;

/// Longest object that can be packed: a batch is one chunk.
const OBJECT_BYTES_MAX: u64 = 4 << 20;
/// An extent's batches and objects are rows: a longer one would have too many to look after in one pass.
const EXTENT_BYTES_MAX: u64 = 4 << 30;

/// On or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Switch {
    /// Small objects share extents.
    On,
    /// Each object is stored by itself.
    #[default]
    Off,
}

/// The settings.
#[derive(Clone, Debug, Deserialize, clap::Args)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Packing {
    /// Whether small objects share extents of three copies, which are encoded later, or each is encoded by itself.
    #[arg(long = "packing", value_enum, default_value_t)]
    pub(crate) packing: Switch,
    /// Objects up to this size are packed, 4MiB at most.
    #[arg(long = "pack-objects", value_name = "SIZE", default_value = "1MiB")]
    pub(crate) objects: Size,
    /// An extent is sealed once it is this long, and encoded.
    #[arg(long = "pack-extent", value_name = "SIZE", default_value = "256MiB")]
    pub(crate) extent: Size,
    /// An extent is sealed once it is this old, and encoded.
    #[arg(long = "pack-extent-age-seconds", value_name = "SECONDS", default_value_t = 300)]
    pub(crate) extent_age_seconds: u64,
}

impl Default for Packing {
    fn default() -> Self {
        Self { packing: Switch::default(), objects: Size(1 << 20), extent: Size(256 << 20), extent_age_seconds: 300 }
    }
}

impl Packing {
    /// What the gateway is told.
    pub(crate) fn options(&self) -> Result<Option<PackOptions>, Fatal> {
        if self.objects.0 > OBJECT_BYTES_MAX {
            return Err(Fatal(format!("objects of {} bytes can't be packed: 4MiB at most", self.objects.0)));
        }
        if self.extent.0 < self.objects.0 || self.extent.0 > EXTENT_BYTES_MAX {
            return Err(Fatal(format!(
                "an extent of {} bytes makes no sense: at least as long as the objects that are packed, 4GiB at most",
                self.extent.0
            )));
        }
        Ok((self.packing == Switch::On).then(|| PackOptions {
            object_bytes_max: self.objects.0 as usize,
            extent_bytes_max: self.extent.0,
            extent_age_max: Duration::from_secs(self.extent_age_seconds),
            ..PackOptions::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused() {
        let packing = |text: &str| toml::from_str::<Packing>(text).map_err(|error| error.to_string());
        assert_eq!(packing("packing = \"off\"").unwrap().options().unwrap(), None);
        let on = packing("packing = \"on\"\nextent_age_seconds = 7").unwrap().options().unwrap().unwrap();
        assert_eq!((on.extent_age_max.as_secs(), on.object_bytes_max), (7, 1 << 20));
        assert!(packing("objects = \"5MiB\"").unwrap().options().is_err());
        assert!(packing("extent = \"1KiB\"").unwrap().options().is_err());
        assert!(packing("sizes = 7").is_err());
    }
}
