//! Where in a door what a pattern asks for is kept: the same groups as in `router/index.py`, on bytes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::key::Key;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Group {
    Equals,
    Prefix(usize),
    Suffix(usize),
    /// ASCII text in lower case.
    Folded,
    /// A piece of the text.
    Contains(usize),
    Network(u8, u8),
    /// A cell of numbers, 2^level wide.
    Range(i32),
    /// Numbers from a bound on, and up to one.
    Above,
    Below,
    Present,
}

#[derive(Clone)]
pub struct Slot {
    pub group: Group,
    pub key: Key,
}

/// One way to a field: its slots, all of which are needed, or of which any one does.
pub struct Way {
    /// What it costs to be tried at every event that has the path, in candidates.
    pub trying: f32,
    pub any_one: bool,
    pub slots: Vec<Slot>,
}

const PIECES: [usize; 4] = [8, 4, 2, 1];

/// Reads `(kind, key)`, an access of `router/operators.py` with its key in bytes.
pub fn way_of(given: &Bound<'_, PyTuple>) -> PyResult<Way> {
    let kind: String = given.get_item(0)?.extract()?;
    let wanted = given.get_item(1)?;
    if kind == "range" {
        let (low, high): (f64, f64) = wanted.extract()?;
        return Ok(Way { trying: 2.0, any_one: false, slots: range_slots(low, high) });
    }
    if kind == "network" {
        let (version, bits, network): (u8, u8, u128) = wanted.extract()?;
        return Ok(one(2.0, Group::Network(version, bits), &network.to_be_bytes()));
    }
    let key: Vec<u8> = wanted.extract()?;
    Ok(match kind.as_str() {
        "equals" => one(0.1, Group::Equals, &key),
        "prefix" => one(1.0, Group::Prefix(key.len()), &key),
        "suffix" => one(1.5, Group::Suffix(key.len()), &key),
        "folded" => one(1.0, Group::Folded, &key),
        "present" => one(8.0, Group::Present, &key),
        "contains" => {
            let length = PIECES.into_iter().find(|length| *length <= key.len()).unwrap_or(1);
            let slots = key.windows(length).map(|piece| Slot { group: Group::Contains(length), key: Key::of(piece) });
            Way { trying: 4.0, any_one: true, slots: slots.collect() }
        }
        _ => return Err(PyValueError::new_err(format!("no access is called {kind:?}"))),
    })
}

fn one(trying: f32, group: Group, key: &[u8]) -> Way {
    Way { trying, any_one: false, slots: vec![Slot { group, key: Key::of(key) }] }
}

fn range_slots(low: f64, high: f64) -> Vec<Slot> {
    if low.is_infinite() {
        return vec![Slot { group: Group::Below, key: Key::of(&ordered(high).to_be_bytes()) }];
    }
    if high.is_infinite() {
        return vec![Slot { group: Group::Above, key: Key::of(&ordered(low).to_be_bytes()) }];
    }
    // A cell is as wide as the range or up to twice, so a range touches two or three.
    let level = exponent_of(high - low).max(-60);
    let (mut cell, last) = (cell_of(low, level), cell_of(high, level));
    let mut slots = Vec::new();
    while cell <= last {
        slots.push(Slot { group: Group::Range(level), key: Key::of(&cell.to_be_bytes()) });
        cell = (cell + 1.0).max(cell.next_up()); // beyond 2^53 the next double is further than one
    }
    slots
}

/// The power of two just above a positive number.
fn exponent_of(number: f64) -> i32 {
    ((number.to_bits() >> 52) & 0x7ff) as i32 - 1022
}

pub fn cell_of(number: f64, level: i32) -> f64 {
    (number / 2f64.powi(level)).floor() + 0.0
}

/// A whole number in the order of the doubles.
pub fn ordered(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}
