//! Maps whose copy with one change is cheap: what a snapshot shares with the next one.
//!
//! A table is one hash table, above `SPLIT_ABOVE` rows 256 of them; each is copied only when it is changed while a snapshot
//! still holds it (`Arc::make_mut`).  So a bulk build copies nothing, and a change of one row copies 1/256.

use std::hash::Hasher;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustc_hash::FxHasher;

use crate::key::Key;

const SPLIT_ABOVE: usize = 1024;
const PARTS: usize = 256;

#[derive(Clone)]
struct Row<V> {
    key: Key,
    value: V,
}

#[derive(Clone)]
pub struct Table<V> {
    parts: Vec<Arc<HashTable<Row<V>>>>,
    len: usize,
}

fn hash_of(key: &[u8]) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(key);
    hasher.finish()
}

impl<V: Clone> Table<V> {
    pub fn new() -> Self {
        Table { parts: vec![Arc::default()], len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Which part has a hash: bits that the parts' own tables do not use.
    fn at(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (self.parts.len() - 1)
    }

    pub fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = hash_of(key);
        self.parts[self.at(hash)].find(hash, |row| *row.key == *key).map(|row| &row.value)
    }

    /// The value of a key, made by `new` where there is none.
    pub fn get_or_insert(&mut self, key: &Key, new: impl FnOnce() -> V) -> &mut V {
        if self.len == SPLIT_ABOVE && self.parts.len() == 1 {
            self.split();
        }
        let hash = hash_of(key);
        let at = self.at(hash);
        let part = Arc::make_mut(&mut self.parts[at]);
        match part.entry(hash, |row| *row.key == **key, |row| hash_of(&row.key)) {
            Entry::Occupied(there) => &mut there.into_mut().value,
            Entry::Vacant(free) => {
                self.len += 1;
                &mut free.insert(Row { key: key.clone(), value: new() }).into_mut().value
            }
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<V> {
        let hash = hash_of(key);
        let at = self.at(hash);
        let found = Arc::make_mut(&mut self.parts[at]).find_entry(hash, |row| *row.key == *key).ok()?;
        self.len -= 1;
        Some(found.remove().0.value)
    }

    fn split(&mut self) {
        let mut parts: Vec<HashTable<Row<V>>> = (0..PARTS).map(|_| HashTable::new()).collect();
        for row in self.parts[0].iter() {
            let hash = hash_of(&row.key);
            let part = &mut parts[(hash >> 40) as usize & (PARTS - 1)];
            part.insert_unique(hash, row.clone(), |row| hash_of(&row.key));
        }
        self.parts = parts.into_iter().map(Arc::new).collect();
    }
}
