//! Bucket settings.

use super::support::{bucket, fjall, mem};
use crate::tables::{BUCKET_SETTING_BYTES_MAX, BucketSetting, Tables, TablesError};

#[test]
fn numbers_never_change() {
    let numbers: Vec<u16> = BucketSetting::ALL.iter().map(|kind| kind.number()).collect();
    assert_eq!(numbers, (1..=14).chain([18]).collect::<Vec<u16>>());
    assert_eq!((BucketSetting::Tagging.number(), BucketSetting::Website.number()), (1, 14));
}

#[tokio::test]
async fn settings_come_and_go_with_their_bucket() {
    for (kv, _directory) in [(mem(), None), {
        let (kv, directory) = fjall();
        (kv, Some(directory))
    }] {
        let tables = Tables::new(kv);
        assert_eq!(tables.put_bucket_setting("b", BucketSetting::Policy, b"x").await, Err(TablesError::NoSuchBucket));
        let made = bucket(&tables, "b").await;
        let long: Vec<u8> = (0..BUCKET_SETTING_BYTES_MAX).map(|at| (at % 251) as u8).collect();
        tables.put_bucket_setting("b", BucketSetting::Policy, b"first").await.unwrap();
        tables.put_bucket_setting("b", BucketSetting::Lifecycle, &long).await.unwrap();
        tables.put_bucket_setting("b", BucketSetting::Cors, b"").await.unwrap();
        let kinds = [BucketSetting::Cors, BucketSetting::Lifecycle, BucketSetting::Tagging, BucketSetting::Policy];
        let (row, found) = tables.bucket_with_settings("b", kinds).await.unwrap().unwrap();
        assert_eq!(found, [Some(Vec::new()), Some(long.clone()), None, Some(b"first".to_vec())]);
        assert_eq!((row.id, row.settings_version), (made.id, 3));
        let too_long = [long.as_slice(), b"!"].concat();
        let refused = tables.put_bucket_setting("b", BucketSetting::Lifecycle, &too_long).await;
        assert_eq!(refused, Err(TablesError::SettingTooLarge { bytes: too_long.len() }));
        tables.put_bucket_setting("b", BucketSetting::Lifecycle, b"short").await.unwrap();
        tables.delete_bucket_setting("b", BucketSetting::Policy).await.unwrap();
        tables.delete_bucket_setting("b", BucketSetting::Policy).await.unwrap();
        let (row, found) = tables.bucket_with_settings("b", kinds).await.unwrap().unwrap();
        assert_eq!(found, [Some(Vec::new()), Some(b"short".to_vec()), None, None]);
        assert_eq!(row.settings, BucketSetting::Cors.bit() | BucketSetting::Lifecycle.bit());
        assert_eq!(row.settings_version, 5, "removing what is not there changes nothing");
        tables.delete_bucket("b").await.unwrap();
        let letters = super::audit::Audit::of(&tables).await.letters();
        assert_eq!(letters, "C", "only the counter of buckets is left");
        bucket(&tables, "b").await;
        let (_, found) = tables.bucket_with_settings("b", kinds).await.unwrap().unwrap();
        assert_eq!(found, [None, None, None, None]);
    }
}
