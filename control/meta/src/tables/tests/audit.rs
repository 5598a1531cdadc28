//! Reads every row of a store in one transaction and says of every data id what the rows say of it.

use std::collections::{BTreeMap, BTreeSet};

use penstock_proto::DataId;

use crate::kv::{RangeRead, transact};
use crate::tables::rows::{GarbageEntry, GarbageList, WriteKind, WriteRow, decode, encode};
use crate::tables::{
    ExtentRow, ExtentState, Layout, ManifestRow, ObjectRow, PartListRow, PartRow, Tables, TablesError, extents, keys,
};

/// What a data id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Pending,
    Reachable,
    Garbage,
}

type KeyValue = (Vec<u8>, Vec<u8>);

/// All rows of a store, by table.
pub(super) struct Audit {
    rows: BTreeMap<u8, Vec<KeyValue>>,
}

impl Audit {
    pub(super) async fn of(tables: &Tables) -> Self {
        let read = transact::<_, TablesError, _>(&**tables.kv(), |txn| {
            Box::pin(async move {
                let mut rows = Vec::new();
                let mut begin = vec![0];
                loop {
                    let range = RangeRead { snapshot: true, ..RangeRead::between(&begin, &[0xff]) };
                    let page = txn.get_range(range).await?;
                    rows.extend(page.rows.iter().map(|(key, value)| (key.to_vec(), value.to_vec())));
                    match page.rows.last() {
                        Some((last, _)) if page.more => begin = keys::after(last),
                        _ => return Ok(rows),
                    }
                }
            })
        });
        let mut rows: BTreeMap<u8, Vec<_>> = BTreeMap::new();
        for (key, value) in read.await.unwrap() {
            rows.entry(key[0]).or_default().push((key, value));
        }
        Self { rows }
    }

    pub(super) fn table(&self, table: u8) -> &[KeyValue] {
        self.rows.get(&table).map_or(&[], Vec::as_slice)
    }

    /// The tables that have rows, as letters.
    pub(super) fn letters(&self) -> String {
        self.rows.keys().map(|letter| char::from(*letter)).collect()
    }

    /// What `versions.rs` says always holds. Panics if something does not.
    fn check_versions(&self) {
        let mut keys_of: BTreeMap<(Vec<u8>, String), Vec<ObjectRow>> = BTreeMap::new();
        let mut nulls: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, value) in self.table(keys::OBJECTS) {
            let row: ObjectRow = decode(value).unwrap();
            assert!(!row.version.marker && row.version.superseded_unix_ms == 0, "{row:?}");
            keys_of.entry((key[1..9].into(), String::from_utf8(key[9..].into()).unwrap())).or_default().push(row);
        }
        for (key, value) in self.table(keys::NONCURRENT) {
            let row: ObjectRow = decode(value).unwrap();
            let (name, at) = keys::parse_noncurrent(&key[9..]).unwrap();
            assert_eq!(row.version.key(), at);
            let versions = keys_of.entry((key[1..9].into(), name.clone())).or_default();
            assert_eq!(row.version.superseded_unix_ms == 0, versions.is_empty(), "one is current: {row:?}");
            assert!(row.version.marker || !versions.is_empty(), "an object that should be at O: {row:?}");
            assert!(versions.last().is_none_or(|newer| newer.version.stamp > row.version.stamp), "{row:?}");
            if row.version.null {
                let null_key = [&[keys::NULL_VERSIONS], &key[1..9], name.as_bytes()].concat();
                assert!(nulls.insert(null_key, [&[1], at.as_slice()].concat()).is_none(), "two null versions");
            }
            versions.push(row);
        }
        let known: BTreeMap<_, _> = self.table(keys::NULL_VERSIONS).iter().cloned().collect();
        assert_eq!(known, nulls);
        for versions in keys_of.values() {
            assert!(versions.iter().filter(|row| row.version.null).count() <= 1, "{versions:?}");
        }
    }

    /// What `extents.rs` says always holds. Panics if something does not. The data that extents own.
    fn check_extents(&self) -> Vec<DataId> {
        let mut extents_of: BTreeMap<DataId, ExtentRow> = BTreeMap::new();
        for (key, value) in self.table(keys::EXTENTS) {
            extents_of.insert(keys::parse_extent(key).unwrap(), decode(value).unwrap());
        }
        let mut batches: BTreeMap<DataId, Vec<(u64, ManifestRow)>> = BTreeMap::new();
        for (key, value) in self.table(keys::BATCHES) {
            let (extent, offset) = keys::parse_in_extent(key).unwrap();
            let row: ManifestRow = decode(value).unwrap();
            let length = match extents_of.get(&extent).map(|row| &row.state) {
                Some(ExtentState::Open { .. }) => u64::MAX,
                Some(ExtentState::Sealed { length_bytes }) => *length_bytes,
                other => panic!("a batch of an extent that is {other:?}"),
            };
            assert!(offset + row.bytes() <= length);
            let of_extent = batches.entry(extent).or_default();
            if let Some((before, other)) = of_extent.last() {
                assert!(before + other.bytes() <= offset, "batches overlap");
            }
            assert!(of_extent.iter().all(|(_, other)| other.first_stripe != row.first_stripe), "a stripe twice");
            of_extent.push((offset, row));
        }
        let current = self.table(keys::OBJECTS).iter().map(|(key, value)| {
            (&key[1..9], String::from_utf8(key[9..].into()).unwrap(), decode::<ObjectRow>(value).unwrap())
        });
        let others = self.table(keys::NONCURRENT).iter().map(|(key, value)| {
            (&key[1..9], keys::parse_noncurrent(&key[9..]).unwrap().0, decode::<ObjectRow>(value).unwrap())
        });
        let (mut owners, mut live) = (BTreeMap::new(), BTreeMap::<DataId, u64>::new());
        for (bucket, name, row) in current.chain(others) {
            let Layout::Packed(packed) = row.layout else { continue };
            assert_eq!(u64::from(packed.size_bytes), row.size_bytes);
            let owner = extents::owner(u64::from_be_bytes(bucket.try_into().unwrap()), &name, &row.version);
            let twice = owners.insert(keys::packed(packed.extent, packed.offset), encode(&owner).unwrap());
            assert!(twice.is_none(), "two objects at one place: {owner:?}");
            *live.entry(packed.extent).or_default() += u64::from(packed.size_bytes);
            match &extents_of.get(&packed.extent).expect("an object's extent is there").state {
                ExtentState::Encoded(data) => assert!(packed.end() <= data.size_bytes),
                _ => {
                    let holds = |(offset, batch): &(u64, ManifestRow)| {
                        *offset <= packed.offset && packed.end() <= offset + batch.bytes()
                    };
                    assert!(batches.get(&packed.extent).is_some_and(|all| all.iter().any(holds)), "{packed:?}");
                }
            }
        }
        let known: BTreeMap<_, _> = self.table(keys::PACKED).iter().cloned().collect();
        assert_eq!(known, owners, "who the extents say that they hold, and who says so");
        for (key, value) in self.table(keys::EXTENT_LIVE) {
            let extent = DataId::from_bytes(key[1..].try_into().unwrap());
            assert!(extents_of.contains_key(&extent), "a counter of an extent that is gone");
            let counted = u64::from_le_bytes(value.as_slice().try_into().unwrap());
            assert_eq!(counted, live.remove(&extent).unwrap_or(0));
        }
        assert!(live.is_empty(), "uncounted: {live:?}");
        let data = extents_of.into_iter().map(|(id, row)| match row.state {
            ExtentState::Encoded(data) => data.data,
            _ => id,
        });
        data.collect()
    }

    /// What every data id that occurs is. Panics if one is two things, or one thing twice, and on rows that nothing
    /// refers to.
    pub(super) fn states(&self) -> BTreeMap<DataId, State> {
        let mut states = BTreeMap::new();
        let mut say = |data: DataId, state: State| {
            if let Some(before) = states.insert(data, state) {
                panic!("{data} is {before:?} and {state:?}");
            }
        };
        let mut lists: BTreeMap<DataId, (State, Vec<PartListRow>)> = BTreeMap::new();
        let mut claimed = BTreeSet::new();
        for (key, value) in self.table(keys::PART_LISTS) {
            let list = DataId::from_bytes(key[1..17].try_into().unwrap());
            let entry = lists.entry(list).or_insert((State::Pending, Vec::new()));
            entry.1.push(decode(value).unwrap());
        }
        self.check_versions();
        for (_, value) in self.table(keys::OBJECTS).iter().chain(self.table(keys::NONCURRENT)) {
            match decode::<ObjectRow>(value).unwrap().layout {
                // Its extent is what is reachable, with or without it.
                Layout::Empty | Layout::Packed(_) => {}
                Layout::Single(data) => say(data.data, State::Reachable),
                Layout::Parts { list, count } => {
                    let entry = lists.get_mut(&list).expect("an object's list is there");
                    entry.0 = State::Reachable;
                    assert_eq!(entry.1.len(), count as usize, "list rows");
                    assert!(claimed.insert(list), "a list has one owner");
                }
            }
        }
        for data in self.check_extents() {
            say(data, State::Reachable);
        }
        for (key, value) in self.table(keys::WRITES) {
            let id = keys::parse_write(key).unwrap();
            match decode::<WriteRow>(value).unwrap().kind {
                WriteKind::Data { .. } => say(id, State::Pending),
                WriteKind::List => assert!(claimed.insert(id), "a pending list is nobody's"),
            }
        }
        let mut garbage_uploads = BTreeSet::new();
        for (key, value) in self.table(keys::GARBAGE_LISTS) {
            let (_, id) = keys::parse_garbage(key).unwrap();
            match decode::<GarbageList>(value).unwrap() {
                GarbageList::Upload { upload } => assert!(garbage_uploads.insert(upload)),
                GarbageList::Parts { next, count } => {
                    let entry = lists.get_mut(&id).expect("a garbage list has rows");
                    entry.0 = State::Garbage;
                    assert_eq!(entry.1.len(), (count - next) as usize, "list rows that are left");
                    assert!(claimed.insert(id), "a list has one owner");
                }
            }
        }
        let uploads: BTreeSet<keys::UploadKey> =
            self.table(keys::UPLOADS).iter().map(|(key, _)| keys::parse_upload(&key[9..]).unwrap().1).collect();
        for (key, value) in self.table(keys::PARTS) {
            let upload: keys::UploadKey = key[1..25].try_into().unwrap();
            let state = match (uploads.contains(&upload), garbage_uploads.contains(&upload)) {
                (true, false) => State::Reachable,
                (false, true) => State::Garbage,
                other => panic!("a part of an upload that is {other:?}"),
            };
            if let Some(data) = decode::<PartRow>(value).unwrap().data {
                say(data.data, state);
            }
        }
        for (key, _) in self.table(keys::PARTS_VERSIONS) {
            assert!(uploads.contains(&key[1..]), "a parts version without its upload");
        }
        for (list, (state, rows)) in lists {
            assert!(claimed.contains(&list), "nothing refers to the list {list}");
            if state != State::Pending {
                for data in rows.iter().flat_map(|row| &row.spans).filter_map(|span| span.data.as_ref()) {
                    say(data.data, state);
                }
            }
        }
        for (key, value) in self.table(keys::GARBAGE) {
            let _: GarbageEntry = decode(value).unwrap();
            say(keys::parse_garbage(key).unwrap().1, State::Garbage);
        }
        for table in [keys::MANIFESTS, keys::REPAIRS] {
            for (key, _) in self.table(table) {
                let data = DataId::from_bytes(key[1..17].try_into().unwrap());
                assert!(states.contains_key(&data), "a {} row of {data}, which is gone", char::from(table));
            }
        }
        states
    }
}
