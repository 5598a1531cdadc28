//! Server-side encryption: its headers, and a bucket's default.
//!
//! Sources: "Protecting data with encryption" in the S3 User Guide, and the API reference's pages of PutObject,
//! GetObject and PutBucketEncryption. A customer's key is read here, and stands in no error, no log and no answer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, StatusCode};
use penstock_digest::Md5Hasher;
use penstock_gateway::api::{BucketSetting, CustomerKey, Encrypt, EncryptionInfo, KmsKey};
use s3s::dto;
use serde::{Deserialize, Serialize};

use super::delete::from_xml;
use super::settings::{Document, unreadable};
use super::{Call, set};
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::xml::Xml;

const SSE: &str = "x-amz-server-side-encryption";
const KMS_KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
const CONTEXT: &str = "x-amz-server-side-encryption-context";
const BUCKET_KEY: &str = "x-amz-server-side-encryption-bucket-key-enabled";
const AES256: &str = "AES256";
const KMS: &str = "aws:kms";
/// Longest encryption context, decoded.
const CONTEXT_BYTES_MAX: usize = 4 << 10;

/// The headers of a customer's key, of the object or of a copy's source.
struct CustomerHeaders {
    algorithm: &'static str,
    key: &'static str,
    md5: &'static str,
}

const OBJECT: CustomerHeaders = CustomerHeaders {
    algorithm: "x-amz-server-side-encryption-customer-algorithm",
    key: "x-amz-server-side-encryption-customer-key",
    md5: "x-amz-server-side-encryption-customer-key-md5",
};
const SOURCE: CustomerHeaders = CustomerHeaders {
    algorithm: "x-amz-copy-source-server-side-encryption-customer-algorithm",
    key: "x-amz-copy-source-server-side-encryption-customer-key",
    md5: "x-amz-copy-source-server-side-encryption-customer-key-md5",
};

impl Call {
    /// How the new object (or upload) is to be encrypted: as the request says, else as the bucket does.
    ///
    /// # Errors
    /// InvalidArgument, InvalidRequest, InvalidEncryptionAlgorithmError; NotImplemented for `aws:kms:dsse`; AccessDenied for
    /// a customer's key where the bucket blocks those.
    pub(super) fn encryption(&self) -> Result<Option<Encrypt>, Failure> {
        let asked = self.asked_encryption()?;
        let bucket = self.access.bucket.as_ref().and_then(|bucket| bucket.encryption.as_ref());
        match (asked, bucket) {
            (Some(Encrypt::Customer(_)), Some(bucket)) if bucket.blocks_customer_keys => Err(Failure::access_denied(
                "This bucket does not allow objects that are encrypted with customer-provided keys (SSE-C).",
            )),
            (None, Some(bucket)) => Ok(bucket.by_default()),
            (asked, _) => Ok(asked),
        }
    }

    /// What the request itself says of encryption.
    ///
    /// # Errors
    /// As [`Call::encryption`].
    pub(super) fn asked_encryption(&self) -> Result<Option<Encrypt>, Failure> {
        let customer = self.customer_key()?;
        let (named, context) = (self.header(KMS_KEY)?, self.header(CONTEXT)?);
        let bucket_key = self.header(BUCKET_KEY)?;
        let asked = match self.header(SSE)? {
            None => None,
            Some(AES256) => Some(Encrypt::S3),
            Some(KMS) => Some(Encrypt::Kms(KmsKey {
                key: named.map(str::to_owned),
                context: context.map(parse_context).transpose()?.unwrap_or_default(),
                bucket_key: bucket_key.is_some_and(|text| text.eq_ignore_ascii_case("true")),
            })),
            Some("aws:kms:dsse") => {
                return Err(Failure::header_not_implemented("x-amz-server-side-encryption: aws:kms:dsse"));
            }
            Some(other) => {
                return Err(Failure::argument(SSE, other, "The encryption method specified is not supported"));
            }
        };
        if !matches!(asked, Some(Encrypt::Kms(_)))
            && let Some((name, text)) = named.map(|text| (KMS_KEY, text)).or(context.map(|text| (CONTEXT, text)))
        {
            let message = "Server Side Encryption with KMS managed key requires HTTP header x-amz-server-side-encryption : aws:kms";
            return Err(Failure::argument(name, text, message));
        }
        match (customer, asked) {
            (Some(_), Some(_)) => Err(Failure::argument(
                SSE,
                self.header(SSE)?.unwrap_or_default(),
                "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
            )),
            (Some(customer), None) => Ok(Some(Encrypt::Customer(customer))),
            (None, asked) => Ok(asked),
        }
    }

    /// The customer's key of the object.
    ///
    /// # Errors
    /// InvalidArgument, InvalidRequest, InvalidEncryptionAlgorithmError.
    pub(super) fn customer_key(&self) -> Result<Option<CustomerKey>, Failure> {
        self.customer_key_of(&OBJECT)
    }

    /// The customer's key of a copy's source.
    ///
    /// # Errors
    /// As [`Call::customer_key`].
    pub(super) fn source_customer_key(&self) -> Result<Option<CustomerKey>, Failure> {
        self.customer_key_of(&SOURCE)
    }

    fn customer_key_of(&self, names: &CustomerHeaders) -> Result<Option<CustomerKey>, Failure> {
        let (algorithm, key) = (self.header(names.algorithm)?, self.header(names.key)?);
        let md5 = self.header(names.md5)?;
        if algorithm.is_none() && key.is_none() && md5.is_none() {
            return Ok(None);
        }
        let secret = parse_customer_key(names, algorithm, key, md5)?;
        let loopback = self.peer.ip().is_loopback();
        if self.peer.tls.is_none() && !loopback && !self.front.options.customer_keys_without_tls {
            return Err(Failure::request(
                "Requests specifying Server Side Encryption with Customer provided keys must be made over a secure connection.",
            ));
        }
        Ok(Some(secret))
    }

    /// Refuses headers that ask a read for an encryption, as AWS does.
    ///
    /// # Errors
    /// InvalidArgument.
    pub(super) fn check_reads_encryption(&self) -> Result<(), Failure> {
        for name in [SSE, KMS_KEY] {
            if let Some(text) = self.header(name)? {
                let message = format!("{name} header is not supported for this operation.");
                return Err(Failure::argument(name, text, message));
            }
        }
        Ok(())
    }
}

/// A customer's key from its three headers. No error repeats it.
fn parse_customer_key(
    names: &CustomerHeaders,
    algorithm: Option<&str>,
    key: Option<&str>,
    md5: Option<&str>,
) -> Result<CustomerKey, Failure> {
    let missing = |name: &'static str, what: &str| {
        let text = "Requests specifying Server Side Encryption with Customer provided keys must provide";
        Failure::argument(name, "null", format!("{text} {what}."))
    };
    let algorithm = algorithm.ok_or_else(|| missing(names.algorithm, "a valid encryption algorithm"))?;
    if algorithm != AES256 {
        let mut failure = Failure::bad(
            "InvalidEncryptionAlgorithmError",
            "The encryption request that you specified is not valid. The valid value is AES256.",
        );
        failure.details.push(("ArgumentName", names.algorithm.to_owned()));
        return Err(failure);
    }
    let key = key.ok_or_else(|| missing(names.key, "an appropriate secret key"))?;
    let decoded = STANDARD.decode(key).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    let decoded = decoded
        .ok_or_else(|| Failure::argument(names.key, "", "The secret key was invalid for the specified algorithm."))?;
    let md5 = md5.ok_or_else(|| missing(names.md5, "the client calculated MD5 of the secret key"))?;
    if STANDARD.decode(md5).ok().as_deref() != Some(Md5Hasher::of(&decoded).as_slice()) {
        return Err(Failure::argument(
            names.md5,
            md5,
            "The calculated MD5 hash of the key did not match the hash that was provided.",
        ));
    }
    Ok(CustomerKey::new(decoded))
}

/// An encryption context, decoded and with sorted keys.
fn parse_context(text: &str) -> Result<String, Failure> {
    let object = STANDARD
        .decode(text)
        .ok()
        .filter(|bytes| bytes.len() <= CONTEXT_BYTES_MAX)
        .and_then(|bytes| serde_json::from_slice::<std::collections::BTreeMap<String, String>>(&bytes).ok());
    object.and_then(|object| serde_json::to_string(&object).ok()).ok_or_else(|| {
        let message = "The encryption context is the base64 of a JSON object of strings.";
        Failure::argument(CONTEXT, text, message)
    })
}

/// UpdateObjectEncryption.
pub(super) async fn update(mut call: Call) -> Result<Answer, Failure> {
    let document: dto::ObjectEncryption = from_xml(&call.document().await?)?;
    let dto::ObjectEncryption::SSEKMS(wish) = document else { return Err(Failure::malformed_xml()) };
    let kms = KmsKey {
        key: Some(wish.kms_key_arn),
        context: String::new(),
        bucket_key: wish.bucket_key_enabled.unwrap_or(false),
    };
    call.gateway().update_object_encryption(&call.object_name(), kms).await?;
    Ok(respond::empty(StatusCode::OK))
}

/// What answers to requests that made or read an object say of its encryption. `asked` are the request's headers: of a
/// customer's key the answer repeats what they say.
pub(super) fn set_encryption(headers: &mut HeaderMap, asked: &HeaderMap, info: Option<&EncryptionInfo>, made: bool) {
    match info {
        None => {}
        Some(EncryptionInfo::S3) => set(headers, respond::name(SSE), AES256),
        Some(EncryptionInfo::Kms { key, context, bucket_key }) => {
            set(headers, respond::name(SSE), KMS);
            set(headers, respond::name(KMS_KEY), key);
            if *bucket_key {
                headers.insert(respond::name(BUCKET_KEY), HeaderValue::from_static("true"));
            }
            if made && !context.is_empty() {
                set(headers, respond::name(CONTEXT), &STANDARD.encode(context));
            }
        }
        Some(EncryptionInfo::Customer) => {
            headers.insert(respond::name(OBJECT.algorithm), HeaderValue::from_static(AES256));
            if let Some(md5) = asked.get(OBJECT.md5) {
                headers.insert(respond::name(OBJECT.md5), md5.clone());
            }
        }
    }
}

/// A bucket's encryption, stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BucketEncryption {
    /// How objects are encrypted whose request says nothing.
    default: Option<DefaultEncryption>,
    bucket_key: bool,
    /// Whether new objects may not be encrypted with customers' keys.
    blocks_customer_keys: bool,
    /// Whether the document named what it blocks, if only `NONE`.
    names_blocked: bool,
}

/// A default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DefaultEncryption {
    /// `aws:kms`, else `AES256`.
    kms: bool,
    key: Option<String>,
    bucket_key: bool,
}

impl DefaultEncryption {
    fn encrypt(&self) -> Encrypt {
        if !self.kms {
            return Encrypt::S3;
        }
        Encrypt::Kms(KmsKey { key: self.key.clone(), context: String::new(), bucket_key: self.bucket_key })
    }
}

impl BucketEncryption {
    /// What was stored.
    ///
    /// # Errors
    /// InternalError for what can't be read.
    pub(crate) fn stored(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map_err(unreadable)
    }

    /// How objects are encrypted that come without a request.
    pub(crate) fn by_default(&self) -> Option<Encrypt> {
        self.default.as_ref().map(DefaultEncryption::encrypt)
    }

    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let document: dto::ServerSideEncryptionConfiguration = from_xml(body)?;
        let [rule] = document.rules.as_slice() else { return Err(Failure::malformed_xml()) };
        let bucket_key = rule.bucket_key_enabled.unwrap_or(false);
        let default = match &rule.apply_server_side_encryption_by_default {
            None => None,
            Some(default) => Some(parse_default(default, bucket_key)?),
        };
        let blocked = rule.blocked_encryption_types.as_ref();
        let mut blocks_customer_keys = false;
        let names = blocked.and_then(|types| types.encryption_type.as_deref()).unwrap_or_default();
        for name in names {
            match name.as_str() {
                "NONE" => {}
                "SSE-C" => blocks_customer_keys = true,
                _ => return Err(Failure::malformed_xml()),
            }
        }
        if default.is_none() && blocked.is_none() {
            return Err(Failure::malformed_xml());
        }
        Ok(Self { default, bucket_key, blocks_customer_keys, names_blocked: blocked.is_some() })
    }

    fn document(&self) -> String {
        Xml::document("ServerSideEncryptionConfiguration", |xml| {
            xml.element("Rule", |xml| {
                if let Some(default) = &self.default {
                    xml.element("ApplyServerSideEncryptionByDefault", |xml| {
                        xml.value("SSEAlgorithm", if default.kms { KMS } else { AES256 });
                        if let Some(key) = &default.key {
                            xml.text("KMSMasterKeyID", key);
                        }
                    });
                }
                xml.value("BucketKeyEnabled", self.bucket_key);
                if self.names_blocked {
                    xml.element("BlockedEncryptionTypes", |xml| {
                        xml.value("EncryptionType", if self.blocks_customer_keys { "SSE-C" } else { "NONE" });
                    });
                }
            });
        })
    }
}

fn parse_default(default: &dto::ServerSideEncryptionByDefault, bucket_key: bool) -> Result<DefaultEncryption, Failure> {
    let key = default.kms_master_key_id.clone().filter(|key| !key.is_empty());
    match default.sse_algorithm.as_str() {
        AES256 if key.is_some() => Err(Failure::argument(
            "KMSMasterKeyID",
            "",
            "a KMSMasterKeyID is not applicable if the default sse algorithm is not aws:kms or aws:kms:dsse",
        )),
        AES256 => Ok(DefaultEncryption { kms: false, key: None, bucket_key }),
        KMS => Ok(DefaultEncryption { kms: true, key, bucket_key }),
        "aws:kms:dsse" => Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "The SSEAlgorithm aws:kms:dsse is not implemented: use aws:kms.",
        )),
        _ => Err(Failure::malformed_xml()),
    }
}

/// PutBucketEncryption, GetBucketEncryption and DeleteBucketEncryption.
pub(super) const OF_BUCKET: Document = Document {
    kind: BucketSetting::Encryption,
    accept: |body| serde_json::to_vec(&BucketEncryption::parse(body)?).map_err(unreadable),
    answer: |stored| Ok(BucketEncryption::stored(stored)?.document()),
    absent: || {
        Err(Failure::new(
            StatusCode::NOT_FOUND,
            "ServerSideEncryptionConfigurationNotFoundError",
            "The server side encryption configuration was not found",
        ))
    },
    put_status: StatusCode::OK,
};

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "pO3upElrwuEXSoFwCfnZPdSsmt/xWeFa0N9KgDijwVs=";
    const MD5: &str = "DWygnHRtgiJ77HCm+1rvHw==";

    #[test]
    fn customer_keys_are_checked_and_never_repeated() {
        assert!(parse_customer_key(&OBJECT, Some("AES256"), Some(KEY), Some(MD5)).is_ok());
        for (algorithm, key, md5, code) in [
            (None, Some(KEY), Some(MD5), "InvalidArgument"),
            (Some("AES128"), Some(KEY), Some(MD5), "InvalidEncryptionAlgorithmError"),
            (Some("AES256"), None, Some(MD5), "InvalidArgument"),
            (Some("AES256"), Some("c2hvcnQ="), Some(MD5), "InvalidArgument"),
            (Some("AES256"), Some("no base64"), Some(MD5), "InvalidArgument"),
            (Some("AES256"), Some(KEY), None, "InvalidArgument"),
            (Some("AES256"), Some(KEY), Some("AAAAAAAAAAAAAAAAAAAAAA=="), "InvalidArgument"),
        ] {
            let failure = parse_customer_key(&OBJECT, algorithm, key, md5).unwrap_err();
            assert_eq!((failure.code.as_ref(), failure.status.as_u16()), (code, 400), "{algorithm:?} {key:?} {md5:?}");
            let shown = format!("{failure:?}");
            assert!(!shown.contains(KEY) && !shown.contains("c2hvcnQ"), "{shown}");
        }
    }

    #[test]
    fn contexts_are_objects_of_strings() {
        let parse = |json: &str| parse_context(&STANDARD.encode(json)).ok();
        assert_eq!(parse("{\"b\": \"2\", \"a\":\"1\"}").as_deref(), Some("{\"a\":\"1\",\"b\":\"2\"}"));
        for bad in ["", "[]", "{\"a\":1}", "{\"a\":{}}", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(parse_context("not base64").is_err());
    }

    fn rule(inner: &str) -> Result<BucketEncryption, Failure> {
        let body =
            format!("<ServerSideEncryptionConfiguration><Rule>{inner}</Rule></ServerSideEncryptionConfiguration>");
        BucketEncryption::parse(body.as_bytes())
    }

    fn by_default(algorithm: &str, key: &str) -> String {
        format!(
            "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>{algorithm}</SSEAlgorithm>{key}\
             </ApplyServerSideEncryptionByDefault>"
        )
    }

    #[test]
    fn a_buckets_encryption_comes_back() {
        let key = "<KMSMasterKeyID>k</KMSMasterKeyID>";
        for (inner, has) in [
            (by_default("AES256", ""), "<SSEAlgorithm>AES256</SSEAlgorithm>"),
            (by_default("aws:kms", key), "<KMSMasterKeyID>k</KMSMasterKeyID>"),
            (by_default("aws:kms", "") + "<BucketKeyEnabled>true</BucketKeyEnabled>", "<BucketKeyEnabled>true<"),
            (
                "<BlockedEncryptionTypes><EncryptionType>SSE-C</EncryptionType></BlockedEncryptionTypes>".to_owned(),
                "<EncryptionType>SSE-C</EncryptionType>",
            ),
        ] {
            let parsed = rule(&inner).unwrap();
            let stored = serde_json::to_vec(&parsed).unwrap();
            assert_eq!(BucketEncryption::stored(&stored).unwrap(), parsed);
            let document = parsed.document();
            assert!(document.contains(has), "{document}");
            assert_eq!(BucketEncryption::parse(document.as_bytes()).unwrap(), parsed);
        }
        for (inner, code) in [
            (by_default("AES256", key), "InvalidArgument"),
            (by_default("aws:kms:dsse", ""), "NotImplemented"),
            (by_default("ROT13", ""), "MalformedXML"),
            (String::new(), "MalformedXML"),
        ] {
            assert_eq!(rule(&inner).unwrap_err().code, code, "{inner}");
        }
    }
}
