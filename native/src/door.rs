//! The doors of one path: how the branches filed under it are found from a leaf.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::address::{address_of, shifted};
use crate::branch::Branch;
use crate::field::FieldCore;
use crate::ids::Path;
use crate::leaf::Leaf;
use crate::slots::{Group, Slot, cell_of, ordered};
use crate::table::Table;

const WIDEST: f64 = 4.149_515_568_880_993e180; // 2^600: beyond, cells could overflow, and no range is filed

/// A branch where it is filed, with the first field that a candidate has to satisfy besides: most are told by it alone.
#[derive(Clone)]
pub struct Entry {
    pub first: Option<Arc<FieldCore>>,
    pub branch: Arc<Branch>,
}

impl Entry {
    pub fn of(branch: Arc<Branch>) -> Entry {
        Entry { first: branch.rest.first().cloned(), branch }
    }
}

#[derive(Clone, Default)]
pub enum Posting {
    #[default]
    Empty,
    One(Entry),
    Many(Arc<Vec<Entry>>),
}

impl Posting {
    pub fn as_slice(&self) -> &[Entry] {
        match self {
            Posting::Empty => &[],
            Posting::One(entry) => std::slice::from_ref(entry),
            Posting::Many(entries) => entries,
        }
    }

    pub fn add(&mut self, entry: Entry) {
        *self = match std::mem::take(self) {
            Posting::Empty => Posting::One(entry),
            Posting::One(first) => Posting::Many(Arc::new(vec![first, entry])),
            Posting::Many(mut entries) => {
                Arc::make_mut(&mut entries).push(entry);
                Posting::Many(entries)
            }
        }
    }

    /// Whether the branch was here, and now is not.
    pub fn take(&mut self, branch: &Arc<Branch>) -> bool {
        let Some(at) = self.as_slice().iter().position(|entry| Arc::ptr_eq(&entry.branch, branch)) else { return false };
        if let Posting::Many(entries) = self {
            let entries = Arc::make_mut(entries);
            entries.swap_remove(at);
            if entries.len() == 1 {
                *self = entries.pop().map_or(Posting::Empty, Posting::One);
            }
        } else {
            *self = Posting::Empty;
        }
        true
    }
}

/// One slot: how many branches could be filed here, and those that are.
#[derive(Clone, Default)]
pub struct Place {
    pub asked: u32,
    pub filed: Posting,
}

#[derive(Clone)]
struct Grouped {
    group: Group,
    /// How many of the table's places have something filed: a group without any is not asked.
    filed: u32,
    table: Arc<Table<Place>>,
}

type Bounds = Arc<BTreeMap<u64, Place>>;

#[derive(Clone)]
pub struct Door {
    pub path: Arc<Path>,
    /// How many fields read the path, and how many of them ask for exact numbers.
    pub uses: u32,
    pub exact_uses: u32,
    groups: Vec<Grouped>,
    above: Bounds,
    below: Bounds,
}

impl Door {
    pub fn new(path: Arc<Path>) -> Door {
        Door { path, uses: 0, exact_uses: 0, groups: Vec::new(), above: Arc::default(), below: Arc::default() }
    }

    pub fn asked(&self, slot: &Slot) -> u32 {
        let place = match slot.group {
            Group::Above => self.above.get(&bound_of(slot)),
            Group::Below => self.below.get(&bound_of(slot)),
            _ => self.groups.iter().find(|grouped| grouped.group == slot.group).and_then(|there| there.table.get(&slot.key)),
        };
        place.map_or(0, |place| place.asked)
    }

    /// Change the place of a slot, which is made where it is not, and forgotten where nothing asks for it any more.
    pub fn change(&mut self, slot: &Slot, change: impl FnOnce(&mut Place)) {
        if let Some(bounds) = match slot.group {
            Group::Above => Some(&mut self.above),
            Group::Below => Some(&mut self.below),
            _ => None,
        } {
            let bounds = Arc::make_mut(bounds);
            let place = bounds.entry(bound_of(slot)).or_default();
            change(place);
            if place.asked == 0 {
                bounds.remove(&bound_of(slot));
            }
            return;
        }
        let at = self.groups.iter().position(|grouped| grouped.group == slot.group).unwrap_or_else(|| {
            self.groups.push(Grouped { group: slot.group, filed: 0, table: Arc::new(Table::new()) });
            self.groups.len() - 1
        });
        let grouped = &mut self.groups[at];
        let table = Arc::make_mut(&mut grouped.table);
        let place = table.get_or_insert(&slot.key, Place::default);
        let before = !place.filed.as_slice().is_empty();
        change(place);
        let after = !place.filed.as_slice().is_empty();
        grouped.filed = grouped.filed + u32::from(after) - u32::from(before);
        if place.asked == 0 {
            table.remove(&slot.key);
            if table.len() == 0 {
                self.groups.swap_remove(at);
            }
        }
    }

    /// Add to `into` what is filed for this leaf; gives how many look-ups that took.
    pub fn open<'a>(&'a self, leaf: &Leaf<'_>, into: &mut Vec<&'a Entry>) -> usize {
        let text = leaf.text();
        let number = leaf.number();
        let mut address = None;
        let mut folded = None;
        let mut looks = self.groups.len();
        for grouped in self.groups.iter().filter(|grouped| grouped.filed > 0) {
            let mut look = |key: &[u8]| {
                if let Some(place) = grouped.table.get(key) {
                    into.extend(place.filed.as_slice());
                }
            };
            match (grouped.group, text, number) {
                (Group::Equals, _, _) => look(leaf.key()),
                (Group::Present, _, _) => look(&[]),
                (Group::Prefix(length), Some(text), _) => text.get(..length).into_iter().for_each(look),
                (Group::Suffix(length), Some(text), _) if text.len() >= length => look(&text[text.len() - length..]),
                (Group::Folded, Some(text), _) => look(folded.get_or_insert_with(|| text.to_ascii_lowercase())),
                (Group::Contains(length), Some(text), _) => {
                    looks += text.len();
                    text.windows(length).for_each(look);
                }
                (Group::Network(version, bits), Some(text), _) => {
                    if let Some(found) = address.get_or_insert_with(|| address_of(text)).filter(|found| found.0 == version) {
                        look(&shifted(found, bits).to_be_bytes());
                    }
                }
                (Group::Range(level), _, Some(number)) if number.abs() < WIDEST => look(&cell_of(number, level).to_be_bytes()),
                _ => {}
            }
        }
        if let Some(number) = number {
            let bound = ordered(number);
            into.extend(self.above.range(..=bound).flat_map(|(_, place)| place.filed.as_slice()));
            into.extend(self.below.range(bound..).flat_map(|(_, place)| place.filed.as_slice()));
        }
        looks
    }
}

fn bound_of(slot: &Slot) -> u64 {
    slot.key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
