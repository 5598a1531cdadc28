//! What an engine is told at its start, as `penstock.Client` passes it, and the client made of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use penstock_client::{
    Client, ClientError, ClientOptions, Credentials, CredentialsProvider, Endpoint, HedgeOptions, Mode,
    region_from_environment,
};
use penstock_rdma_transport::{RdmaDialer, RdmaOptions, VerbsError, rails};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::Failure;
use crate::memory::set_idle_bytes_max;

/// Names the RDMA device: `none` for no RDMA; absent is all with an active port. As for the programs.
const DEVICE_VARIABLE: &str = "PENSTOCK_RDMA_DEVICE";

/// Options of a client. Parsed once; a client is made of them in every process that uses it.
#[derive(Clone)]
pub(crate) struct Spec {
    endpoint: Endpoint,
    keys: Option<Credentials>,
    options: ClientOptions,
    rdma: Rdma,
}

/// Whether RDMA is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rdma {
    Off,
    Auto,
}

fn wrong(what: String) -> ClientError {
    ClientError::Configuration(what)
}

fn seconds(name: &str, value: f64) -> Result<Duration, ClientError> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| wrong(format!("{name}={value}: a time in seconds, more than 0")))
}

/// An entry of the options, if it is there and not None.
fn entry<'py, T>(options: &Bound<'py, PyDict>, name: &str) -> PyResult<Option<T>>
where
    T: for<'a> FromPyObject<'a, 'py, Error: Into<PyErr>>,
{
    match options.get_item(name)? {
        Some(value) if !value.is_none() => Ok(Some(value.extract::<T>().map_err(Into::into)?)),
        _ => Ok(None),
    }
}

impl Spec {
    /// # Errors
    /// The inner one for options that make no sense; the outer one for values of the wrong type.
    pub(crate) fn parse(given: &Bound<'_, PyDict>) -> PyResult<Result<Self, ClientError>> {
        let defaults = ClientOptions::default();
        let endpoint: Option<String> = entry(given, "endpoint")?;
        let region: String = entry(given, "region")?.unwrap_or_else(region_from_environment);
        let virtual_hosts: bool = entry(given, "virtual_hosts")?.unwrap_or(false);
        let transport: String = entry(given, "transport")?.unwrap_or_else(|| "auto".to_owned());
        let keys: (Option<String>, Option<String>, Option<String>) =
            (entry(given, "access_key")?, entry(given, "secret_key")?, entry(given, "session_token")?);
        let require_rdma = entry(given, "require_rdma")?.unwrap_or(false);
        let timeout: Option<f64> = entry(given, "timeout")?;
        let connect_timeout: Option<f64> = entry(given, "connect_timeout")?;
        let silence_timeout: Option<f64> = entry(given, "silence_timeout")?;
        let tries: Option<u32> = entry(given, "tries")?;
        let connections: Option<usize> = entry(given, "connections")?;
        let pool: Option<usize> = entry(given, "pool")?;
        let part_bytes: Option<u64> = entry(given, "part_bytes")?;
        let parallel: Option<usize> = entry(given, "parallel")?;
        let ca_file: Option<PathBuf> = entry(given, "ca_file")?;
        let hedge: Option<f64> = entry(given, "hedge")?;
        let parse = move || -> Result<Self, ClientError> {
            let endpoint = match endpoint {
                Some(url) => Endpoint::parse(&url)?,
                None => Endpoint::from_environment(&region)?,
            };
            let endpoint = if virtual_hosts { endpoint.with_virtual_hosts() } else { endpoint };
            let keys = match keys {
                (Some(id), Some(secret), None) => Some(Credentials::new(id, secret)),
                (Some(id), Some(secret), Some(token)) => Some(Credentials::new(id, secret).with_token(token)),
                (None, None, None) => None,
                _ => {
                    return Err(wrong(
                        "access_key and secret_key are given together, session_token with both".to_owned(),
                    ));
                }
            };
            let (mode, rdma, required) = match transport.as_str() {
                "auto" => (Mode::Auto, Rdma::Auto, require_rdma),
                "tcp" if !require_rdma => (Mode::Auto, Rdma::Off, false),
                "http" if !require_rdma => (Mode::Http, Rdma::Off, false),
                "rdma" => (Mode::Auto, Rdma::Auto, true),
                "tcp" | "http" => return Err(wrong(format!("require_rdma=True with transport={transport:?}"))),
                other => {
                    return Err(wrong(format!("transport={other:?}: write \"auto\", \"tcp\", \"rdma\" or \"http\"")));
                }
            };
            let positive = |name: &str, value: Option<usize>, default: usize| match value {
                Some(0) => Err(wrong(format!("{name}=0: at least 1"))),
                value => Ok(value.unwrap_or(default)),
            };
            let time = |name: &str, value: Option<f64>, default: Duration| match value {
                Some(value) => seconds(name, value),
                None => Ok(default),
            };
            let options = ClientOptions {
                region,
                mode,
                require_rdma: required,
                connections_max: positive("connections", connections, defaults.connections_max)?,
                connect_timeout: time("connect_timeout", connect_timeout, defaults.connect_timeout)?,
                silence_timeout: time("silence_timeout", silence_timeout, defaults.silence_timeout)?,
                operation_timeout: time("timeout", timeout, defaults.operation_timeout)?,
                tries_max: positive("tries", tries.map(|tries| tries as usize), defaults.tries_max as usize)? as u32,
                part_bytes: part_bytes.unwrap_or(defaults.part_bytes),
                parallel_max: positive("parallel", parallel, defaults.parallel_max)?,
                ca_file,
                hedge: match hedge {
                    None => defaults.hedge,
                    Some(0.0) => None,
                    Some(budget) if budget > 0.0 && budget <= 1.0 => {
                        Some(HedgeOptions { budget, ..HedgeOptions::default() })
                    }
                    Some(other) => {
                        return Err(wrong(format!(
                            "hedge={other}: the share of reads that may be asked for twice, 0 to 1"
                        )));
                    }
                },
                ..defaults
            };
            if let Some(bytes) = pool {
                set_idle_bytes_max(bytes);
            }
            Ok(Self { endpoint, keys, options, rdma })
        };
        Ok(parse())
    }

    /// A client of it. Call it within a runtime.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        let failed = Failure::of("penstock.Client");
        let keys = self.keys.clone().map_or_else(CredentialsProvider::aws_chain, CredentialsProvider::fixed);
        let mut options = self.options.clone();
        if self.rdma == Rdma::Auto {
            // The libraries are looked for now, not when the module is loaded.
            let ports = match std::env::var(DEVICE_VARIABLE).ok().filter(|name| !name.is_empty()).as_deref() {
                Some("none") => Err(VerbsError::NoDevices),
                Some(name) => rails(&[name.to_owned()]),
                None => rails(&[]),
            };
            let rdma = RdmaDialer::new(ports, RdmaOptions::default())
                .map_err(|error| Failure::Process(format!("no memory for RDMA messages: {error}")))?;
            match rdma.obstacle() {
                Some(why) if options.require_rdma => return Err(Failure::NoRdma(why.to_owned())),
                Some(_) => {}
                None => options.dialers.push(Arc::new(rdma)),
            }
        }
        Client::new(self.endpoint.clone(), keys, options).map_err(failed)
    }
}
