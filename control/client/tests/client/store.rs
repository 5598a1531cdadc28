//! arrow-rs's own integration tests of its trait, by plan and over HTTP.

use ::object_store::integration as suite;
use ::object_store::path::Path;
use ::object_store::{ObjectStore as _, ObjectStoreExt as _};
use futures::{StreamExt, TryStreamExt};
use penstock_client::object_store::PenstockStore;

use crate::house::{BUCKET, House, by_plan, over_http};

/// Some of the suite begins with an empty store.
async fn clear(store: &PenstockStore) {
    let keys = store.list(None).map_ok(|meta| meta.location).boxed();
    store.delete_stream(keys).try_collect::<Vec<Path>>().await.unwrap();
}

async fn all(store: PenstockStore) {
    suite::put_get_delete_list(&store).await;
    suite::put_get_attributes(&store).await;
    suite::get_opts(&store).await;
    suite::put_opts(&store, true).await;
    suite::list_uses_directories_correctly(&store).await;
    suite::list_with_delimiter(&store).await;
    suite::list_with_offset_exclusivity(&store).await;
    suite::rename_and_copy(&store).await;
    suite::copy_if_not_exists(&store).await;
    suite::copy_rename_nonexistent_object(&store).await;
    clear(&store).await;
    suite::stream_get(&store).await;
    suite::multipart(&store, &store).await;
    suite::multipart_with_opts(&store, &store).await;
    suite::multipart_put_part_out_of_order(&store, &store).await;
    suite::multipart_race_condition(&store, true).await;
    suite::multipart_out_of_order(&store).await;
    suite::list_paginated(&store, &store).await;
    assert!(matches!(store.get(&Path::from("no")).await, Err(::object_store::Error::NotFound { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_traits_own_suite_over_http() {
    let house = House::new(0, true).await;
    all(PenstockStore::new(house.client(over_http()), BUCKET)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_traits_own_suite_by_plan() {
    let house = House::new(0, true).await;
    let store = PenstockStore::new(house.client(by_plan()), BUCKET);
    all(store.clone()).await;
    assert!(store.client().stats().by_plan > 0);
    assert!(store.client().stats().fallbacks.is_empty(), "{:?}", store.client().stats());
}
