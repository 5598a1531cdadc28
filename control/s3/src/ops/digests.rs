//! What a client says its body hashes to, and what we say an object does.

use std::sync::Arc;

use http::HeaderMap;
use penstock_digest::{ChecksumAlgorithm, ChecksumHasher, ChecksumValue, Md5Hasher};
use penstock_gateway::api::{BodyDigests, ObjectChecksum, TrailingChecksum};
use penstock_gateway::error::{Error, ErrorKind};

use super::{Call, set};
use crate::failure::Failure;
use crate::respond;
use crate::wire;
use crate::xml::Xml;

/// Headers that name the algorithm of a checksum to come.
const ALGORITHM_HEADERS: [&str; 2] = ["x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"];

/// The algorithm of a header's value.
///
/// # Errors
/// InvalidRequest for those that S3 does not have.
pub(super) fn algorithm(header: &str, text: &str) -> Result<ChecksumAlgorithm, Failure> {
    text.parse().map_err(|_| invalid_value(header))
}

impl Call {
    /// The checksum that a header states; at most one may.
    pub(super) fn stated_checksum(&self) -> Result<Option<ChecksumValue>, Failure> {
        let mut stated = None;
        for algorithm in ChecksumAlgorithm::ALL {
            let name = wire::checksum_header(algorithm);
            let Some(text) = self.header_or_query(name)? else {
                if self.headers.contains_key(name) {
                    return Err(invalid_value(name));
                }
                continue;
            };
            let value = wire::checksum_value(algorithm, text).ok_or_else(|| invalid_value(name))?;
            if stated.replace(value).is_some() {
                return Err(Failure::request(
                    "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
                ));
            }
        }
        Ok(stated)
    }

    /// All that is said about the body.
    pub(super) fn digests(&self) -> Result<BodyDigests, Failure> {
        let checksum = self.stated_checksum()?;
        let trailing = self.trailing_checksum()?;
        if checksum.is_some() && trailing.is_some() {
            return Err(Failure::request(
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
            ));
        }
        let mut compute = None;
        for name in ALGORITHM_HEADERS {
            let Some(text) = self.header_or_query(name)? else { continue };
            let named = algorithm(name, text)?;
            let stated =
                checksum.map(|value| value.algorithm()).or(trailing.as_ref().map(|trailing| trailing.algorithm));
            if stated.or(compute).is_some_and(|stated| stated != named) {
                return Err(Failure::request(format!("Value for {name} header is invalid.")));
            }
            compute = stated.is_none().then_some(named);
        }
        // The payload's own hash is with the body: see [`crate::streams::Payload`].
        Ok(BodyDigests { md5: wire::content_md5(&self.headers)?, checksum, trailing, compute, payload_sha256: None })
    }

    /// The checksum that `x-amz-trailer` announces.
    fn trailing_checksum(&self) -> Result<Option<TrailingChecksum>, Failure> {
        let Some(names) = self.header("x-amz-trailer")? else { return Ok(None) };
        let mut trailing = None;
        for name in names.split(',').map(|name| name.trim().to_ascii_lowercase()).filter(|name| !name.is_empty()) {
            let Some(short) = name.strip_prefix("x-amz-checksum-") else {
                return Err(Failure::header_not_implemented(&format!("x-amz-trailer: {name}")));
            };
            let algorithm = algorithm("x-amz-trailer", short)?;
            if trailing.replace(algorithm).is_some() {
                return Err(Failure::request("Expecting a single x-amz-checksum- trailer."));
            }
        }
        let Some(algorithm) = trailing else { return Ok(None) };
        let Some(handle) = self.trailers.clone() else {
            return Err(Failure::request("x-amz-trailer needs a payload whose x-amz-content-sha256 ends in -TRAILER."));
        };
        let exchange = self.exchange.clone();
        let value = move || {
            let name = wire::checksum_header(algorithm);
            let text = handle.read(|trailers| trailers.get(name).and_then(wire::utf8).map(str::to_owned)).flatten();
            let failure = match text.as_deref().map(|text| wire::checksum_value(algorithm, text)) {
                Some(Some(value)) => return Ok(value),
                Some(None) => Failure::request(format!("Value for {name} trailing header is invalid.")),
                None => Failure::bad(
                    "MalformedTrailerError",
                    "The request contained trailing data that was not well-formed or did not conform to our published schema.",
                ),
            };
            let error = Error::new(ErrorKind::InvalidRequest, failure.message.clone());
            exchange.fail_body(failure);
            Err(error)
        };
        Ok(Some(TrailingChecksum { algorithm, value: Arc::new(value) }))
    }

    /// Verifies what is said about a body that was read as a whole.
    ///
    /// # Errors
    /// BadDigest, and whatever [`Call::digests`] fails with.
    pub(super) fn verify_small_body(&self, body: &[u8]) -> Result<(), Failure> {
        let digests = self.digests()?;
        if digests.md5.is_some_and(|md5| Md5Hasher::of(body) != md5) {
            return Err(Failure::bad("BadDigest", "The Content-MD5 you specified did not match what we received."));
        }
        let trailing = digests.trailing.map(|trailing| (trailing.value)()).transpose()?;
        for stated in digests.checksum.into_iter().chain(trailing) {
            let mut hasher = ChecksumHasher::new(stated.algorithm());
            hasher.update(body);
            if hasher.finish() != stated {
                let name = stated.algorithm().name();
                return Err(Failure::bad(
                    "BadDigest",
                    format!("The {name} you specified did not match the calculated checksum."),
                ));
            }
        }
        Ok(())
    }
}

fn invalid_value(header: &str) -> Failure {
    Failure::request(format!("Value for {header} header is invalid."))
}

/// `x-amz-checksum-*` and `x-amz-checksum-type` of an object.
pub(super) fn set_object_checksum(headers: &mut HeaderMap, checksum: &ObjectChecksum) {
    let name = wire::checksum_header(checksum.value.algorithm());
    set(headers, respond::name(name), &wire::format_object_checksum(checksum));
    set(headers, respond::name("x-amz-checksum-type"), wire::checksum_type_name(checksum.kind));
}

/// `x-amz-checksum-*` of a part.
pub(super) fn set_checksum(headers: &mut HeaderMap, value: &ChecksumValue) {
    set(headers, respond::name(wire::checksum_header(value.algorithm())), &wire::format_checksum(value));
}

/// `<ChecksumCRC64NVME>` and `<ChecksumType>` of an object.
pub(super) fn write_object_checksum(xml: &mut Xml, checksum: &ObjectChecksum) {
    xml.text(wire::checksum_element(checksum.value.algorithm()), &wire::format_object_checksum(checksum));
    xml.value("ChecksumType", wire::checksum_type_name(checksum.kind));
}

/// `<ChecksumCRC64NVME>` of a part.
pub(super) fn write_checksum(xml: &mut Xml, value: &ChecksumValue) {
    xml.text(wire::checksum_element(value.algorithm()), &wire::format_checksum(value));
}
