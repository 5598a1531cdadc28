//! The bounds of S3 over RDMA at the front, as options, environment and `[gateway.rdma]` of the configuration file.

use std::num::NonZeroUsize;
use std::time::Duration;

use penstock_rdma_front::RdmaOptions;

use crate::Fatal;
use crate::config::Size;

/// What clients of the dialects may hold, and how long anything may take. Absent is the default of docs/CONFIGURATION.md.
#[derive(Clone, Debug, Default, clap::Args, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[command(next_help_heading = "Limits of S3 over RDMA")]
pub(crate) struct RdmaLimits {
    /// Sessions of hipobj-rc-v2, of all access keys.
    #[arg(long = "rdma-sessions-max", value_name = "N", env = "PENSTOCK_RDMA_SESSIONS_MAX")]
    pub(crate) sessions_max: Option<NonZeroUsize>,
    /// Of one access key.
    #[arg(long = "rdma-key-sessions-max", value_name = "N", env = "PENSTOCK_RDMA_KEY_SESSIONS_MAX")]
    pub(crate) key_sessions_max: Option<NonZeroUsize>,
    /// Queue pairs of clients, of all access keys.
    #[arg(long = "rdma-queue-pairs-max", value_name = "N", env = "PENSTOCK_RDMA_QUEUE_PAIRS_MAX")]
    pub(crate) queue_pairs_max: Option<NonZeroUsize>,
    /// Of one access key.
    #[arg(long = "rdma-key-queue-pairs-max", value_name = "N", env = "PENSTOCK_RDMA_KEY_QUEUE_PAIRS_MAX")]
    pub(crate) key_queue_pairs_max: Option<NonZeroUsize>,
    /// Memory for bodies that clients write themselves (hipobj-rc-v2), of all access keys.
    #[arg(long = "rdma-staging-max", value_name = "SIZE", env = "PENSTOCK_RDMA_STAGING_MAX")]
    pub(crate) staging_max: Option<Size>,
    /// Of one access key; also the largest such body.
    #[arg(long = "rdma-key-staging-max", value_name = "SIZE", env = "PENSTOCK_RDMA_KEY_STAGING_MAX")]
    pub(crate) key_staging_max: Option<Size>,
    /// Connections of `rc:` clients.
    #[arg(long = "rdma-connections-max", value_name = "N", env = "PENSTOCK_RDMA_CONNECTIONS_MAX")]
    pub(crate) connections_max: Option<NonZeroUsize>,
    /// Of one source address: connecting needs no signature.
    #[arg(long = "rdma-source-connections-max", value_name = "N", env = "PENSTOCK_RDMA_SOURCE_CONNECTIONS_MAX")]
    pub(crate) source_connections_max: Option<NonZeroUsize>,
    /// A connection that is not used for so long is dropped.
    #[arg(long = "rdma-connection-idle", value_name = "SECONDS", env = "PENSTOCK_RDMA_CONNECTION_IDLE", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) connection_idle_seconds: Option<u64>,
    /// From PREPARE to READY.
    #[arg(long = "rdma-prepare-timeout", value_name = "SECONDS", env = "PENSTOCK_RDMA_PREPARE_TIMEOUT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) prepare_timeout_seconds: Option<u64>,
    /// For the bytes of one transfer.
    #[arg(long = "rdma-transfer-timeout", value_name = "SECONDS", env = "PENSTOCK_RDMA_TRANSFER_TIMEOUT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) transfer_timeout_seconds: Option<u64>,
}

impl RdmaLimits {
    /// The front's options.
    ///
    /// # Errors
    /// Limits that contradict each other, by name.
    pub(crate) fn options(&self) -> Result<RdmaOptions, Fatal> {
        let mut options = RdmaOptions::default();
        let caps = &mut options.caps;
        let numbers = [
            (&mut caps.sessions_max, self.sessions_max),
            (&mut caps.key_sessions_max, self.key_sessions_max),
            (&mut caps.queue_pairs_max, self.queue_pairs_max),
            (&mut caps.key_queue_pairs_max, self.key_queue_pairs_max),
            (&mut options.connections_max, self.connections_max),
            (&mut options.source_connections_max, self.source_connections_max),
        ];
        for (option, given) in numbers {
            *option = given.map_or(*option, NonZeroUsize::get);
        }
        for (option, given) in
            [(&mut caps.staging_bytes_max, self.staging_max), (&mut caps.key_staging_bytes_max, self.key_staging_max)]
        {
            *option = given.map_or(*option, |size| size.0);
        }
        for (option, given) in [
            (&mut options.connection_idle, self.connection_idle_seconds),
            (&mut options.prepare_timeout, self.prepare_timeout_seconds),
            (&mut options.transfer_timeout, self.transfer_timeout_seconds),
        ] {
            *option = given.map_or(*option, |seconds| Duration::from_secs(seconds.max(1)));
        }
        // A limit for all that was lowered lowers that of one; one of one key that is named past it is a mistake.
        let caps = &mut options.caps;
        within("key_sessions_max", self.key_sessions_max.is_some(), &mut caps.key_sessions_max, caps.sessions_max)?;
        within(
            "key_queue_pairs_max",
            self.key_queue_pairs_max.is_some(),
            &mut caps.key_queue_pairs_max,
            caps.queue_pairs_max,
        )?;
        within(
            "key_staging_max",
            self.key_staging_max.is_some(),
            &mut caps.key_staging_bytes_max,
            caps.staging_bytes_max,
        )?;
        within(
            "source_connections_max",
            self.source_connections_max.is_some(),
            &mut options.source_connections_max,
            options.connections_max,
        )?;
        Ok(options)
    }
}

fn within<N: PartialOrd + Copy + std::fmt::Display>(name: &str, given: bool, one: &mut N, all: N) -> Result<(), Fatal> {
    if *one > all && given {
        return Err(Fatal(format!("{name} of the RDMA limits is {one}, and all together may have {all}: lower it")));
    }
    if *one > all {
        *one = all;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_set_and_the_rest_is_as_it_was() {
        let defaults = RdmaOptions::default();
        let limits: RdmaLimits =
            toml::from_str("sessions_max = 10\nkey_staging_max = \"8MiB\"\nprepare_timeout_seconds = 3").unwrap();
        let options = limits.options().unwrap();
        assert_eq!(
            (options.caps.sessions_max, options.caps.key_sessions_max),
            (10, 10),
            "one key has no more than all"
        );
        assert_eq!(options.caps.key_staging_bytes_max, 8 << 20);
        assert_eq!(options.prepare_timeout, Duration::from_secs(3));
        assert_eq!(options.caps.queue_pairs_max, defaults.caps.queue_pairs_max);
        assert_eq!(options.transfer_timeout, defaults.transfer_timeout);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (text, says) in [
            ("sessions_max = 0", "sessions_max"),
            ("session_max = 5", "session_max"),
            ("staging_max = \"lots\"", "no size"),
        ] {
            let error = toml::from_str::<RdmaLimits>(text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let limits: RdmaLimits = toml::from_str("queue_pairs_max = 5\nkey_queue_pairs_max = 6").unwrap();
        let error = limits.options().unwrap_err().to_string();
        assert!(error.contains("key_queue_pairs_max") && error.contains('5'), "{error}");
    }
}
