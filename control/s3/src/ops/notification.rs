//! Which events of a bucket go where. What the rules may say the gateway decides; here is their XML.

use http::StatusCode;
use penstock_gateway::events::{NotificationRule, TargetKind};
use penstock_proto::DataId;
use s3s::dto;

use super::Call;
use super::delete::from_xml;
use crate::failure::Failure;
use crate::respond::{self, Answer};
use crate::xml::Xml;

/// The elements of a kind: the configuration's and, within it, the target's.
const fn elements(kind: TargetKind) -> (&'static str, &'static str) {
    match kind {
        TargetKind::Topic => ("TopicConfiguration", "Topic"),
        TargetKind::Queue => ("QueueConfiguration", "Queue"),
        TargetKind::Function => ("CloudFunctionConfiguration", "CloudFunction"),
    }
}

pub(super) async fn get(call: Call) -> Result<Answer, Failure> {
    let rules = call.gateway().notifications(&call.bucket()).await?;
    Ok(respond::xml(document(&rules)))
}

pub(super) async fn put(mut call: Call) -> Result<Answer, Failure> {
    let rules = parse(&call.document().await?)?;
    call.gateway().put_notifications(&call.bucket(), &rules).await?;
    Ok(respond::empty(StatusCode::OK))
}

fn parse(body: &[u8]) -> Result<Vec<NotificationRule>, Failure> {
    let document: dto::NotificationConfiguration = from_xml(body)?;
    if document.event_bridge_configuration.is_some() {
        return Err(Failure::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            "EventBridgeConfiguration is not implemented: name a topic, queue or function that this store's administrator \
             has set up.",
        ));
    }
    let topics = document.topic_configurations.unwrap_or_default().into_iter();
    let topics = topics.map(|one| rule(TargetKind::Topic, one.topic_arn, one.id, one.events, one.filter));
    let queues = document.queue_configurations.unwrap_or_default().into_iter();
    let queues = queues.map(|one| rule(TargetKind::Queue, one.queue_arn, one.id, one.events, one.filter));
    let functions = document.lambda_function_configurations.unwrap_or_default().into_iter();
    let functions =
        functions.map(|one| rule(TargetKind::Function, one.lambda_function_arn, one.id, one.events, one.filter));
    topics.chain(queues).chain(functions).collect()
}

fn rule(
    kind: TargetKind,
    target: String,
    id: Option<String>,
    events: Vec<dto::Event>,
    filter: Option<dto::NotificationConfigurationFilter>,
) -> Result<NotificationRule, Failure> {
    let (mut prefix, mut suffix) = (None, None);
    for rule in filter.and_then(|filter| filter.key).and_then(|key| key.filter_rules).unwrap_or_default() {
        let name = rule.name.ok_or_else(Failure::malformed_xml)?;
        let value = rule.value.unwrap_or_default();
        let place = match name.as_str().to_ascii_lowercase().as_str() {
            "prefix" => &mut prefix,
            "suffix" => &mut suffix,
            _ => {
                let message = "filter rule name must be either prefix or suffix";
                return Err(Failure::argument("FilterRule.Name", name.as_str(), message));
            }
        };
        if place.replace(value).is_some() {
            let message = "Cannot specify more than one prefix rule, or more than one suffix rule, in a filter.";
            return Err(Failure::argument("FilterRule.Name", name.as_str(), message));
        }
    }
    let events: Vec<String> = events.into_iter().map(|event| event.into()).collect();
    if events.is_empty() {
        return Err(Failure::malformed_xml());
    }
    let id = id.filter(|id| !id.is_empty()).unwrap_or_else(|| DataId::random().to_string());
    Ok(NotificationRule { id, kind, target, events, prefix, suffix })
}

fn document(rules: &[NotificationRule]) -> String {
    Xml::document("NotificationConfiguration", |xml| {
        for rule in rules {
            let (configuration, target) = elements(rule.kind);
            xml.element(configuration, |xml| {
                xml.text("Id", &rule.id);
                xml.text(target, &rule.target);
                for event in &rule.events {
                    xml.text("Event", event);
                }
                write_filter(xml, rule);
            });
        }
    })
}

fn write_filter(xml: &mut Xml, rule: &NotificationRule) {
    if rule.prefix.is_none() && rule.suffix.is_none() {
        return;
    }
    xml.element("Filter", |xml| {
        xml.element("S3Key", |xml| {
            for (name, value) in [("Prefix", &rule.prefix), ("Suffix", &rule.suffix)] {
                if let Some(value) = value {
                    xml.element("FilterRule", |xml| {
                        xml.value("Name", name);
                        xml.text("Value", value);
                    });
                }
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(content: &str) -> String {
        format!("<NotificationConfiguration>{content}</NotificationConfiguration>")
    }

    #[test]
    fn what_was_put_is_got() {
        let content = "<TopicConfiguration><Id>t</Id><Topic>arn:aws:sns:r:0:t</Topic><Event>s3:ObjectCreated:*</Event>\
            <Event>s3:ObjectRemoved:Delete</Event></TopicConfiguration>\
            <QueueConfiguration><Id>q&amp;</Id><Queue>arn:aws:sqs:r:0:q</Queue><Event>s3:ObjectTagging:*</Event>\
            <Filter><S3Key><FilterRule><Name>Prefix</Name><Value>a&lt;b/</Value></FilterRule>\
            <FilterRule><Name>Suffix</Name><Value>.x</Value></FilterRule></S3Key></Filter></QueueConfiguration>\
            <CloudFunctionConfiguration><Id>f</Id><CloudFunction>arn:aws:lambda:r:0:f</CloudFunction>\
            <Event>s3:LifecycleExpiration:*</Event></CloudFunctionConfiguration>";
        let rules = parse(configuration(content).as_bytes()).unwrap();
        assert!(document(&rules).ends_with(&format!("{content}</NotificationConfiguration>")));
        assert_eq!(parse(configuration("").as_bytes()).unwrap(), []);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let queue = |inner: &str| configuration(&format!("<QueueConfiguration>{inner}</QueueConfiguration>"));
        let (arn, event) = ("<Queue>arn:aws:sqs:r:0:q</Queue>", "<Event>s3:ObjectCreated:*</Event>");
        let filter = |rules: &str| queue(&format!("{arn}{event}<Filter><S3Key>{rules}</S3Key></Filter>"));
        let part = |name: &str| format!("<FilterRule><Name>{name}</Name><Value>v</Value></FilterRule>");
        let made_up = &parse(queue(&format!("{arn}{event}")).as_bytes()).unwrap()[0].id;
        assert_eq!(made_up.len(), 32);
        for (bad, status) in [
            (queue(arn), 400),
            (queue(event), 400),
            (filter(&part("middle")), 400),
            (filter(&(part("prefix") + &part("Prefix"))), 400),
            (configuration("<EventBridgeConfiguration></EventBridgeConfiguration>"), 501),
        ] {
            assert_eq!(parse(bad.as_bytes()).unwrap_err().status, status, "{bad}");
        }
    }
}
