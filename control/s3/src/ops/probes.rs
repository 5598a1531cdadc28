//! CORS configurations, and the questions that clients ask every bucket about what is not built: they get the answers that
//! AWS gives for a bucket that has none of it. To set any of it is 501, by the gate.

use http::StatusCode;
use penstock_gateway::api::BucketSetting;

use super::settings::Document;
use crate::cors::CorsRules;
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::xml::Xml;

/// CORS rules.
pub(super) const CORS: Document = Document {
    kind: BucketSetting::Cors,
    accept: |body| CorsRules::parse(body)?.to_stored(),
    answer: |stored| Ok(CorsRules::stored(stored)?.document()),
    absent: || {
        Err(Failure::new(StatusCode::NOT_FOUND, "NoSuchCORSConfiguration", "The CORS configuration does not exist"))
    },
    put_status: StatusCode::OK,
};

pub(super) fn no_replication() -> Failure {
    Failure::new(
        StatusCode::NOT_FOUND,
        "ReplicationConfigurationNotFoundError",
        "The replication configuration was not found",
    )
}

pub(super) fn accelerate() -> Answer {
    respond::xml(Xml::document("AccelerateConfiguration", |_| {}))
}

pub(super) fn request_payment() -> Answer {
    respond::xml(Xml::document("RequestPaymentConfiguration", |xml| xml.value("Payer", "BucketOwner")))
}
