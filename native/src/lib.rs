//! The compiled half of Nightbell's matcher: one team's rules, indexed, matched against a parsed document.
//!
//! ```text
//! Rules (index)   a snapshot: doors by path, residual branches, rules by id, and the trie of used paths
//!   flatten       document → leaves at the used paths, with the array elements they lie in
//!   door, slots   leaf → candidates: a branch is filed under its one field that the fewest ask for
//!   agree         candidates → hits: each field once per event, then array consistency
//! ```
//!
//! The same structure, in the same words, as `router/team_index.py` and its neighbours, which do without this.  What a pattern
//! means is decided there alone: a test that has no form here is asked of Python.

mod address;
mod agree;
mod branch;
mod door;
mod field;
mod flatten;
mod ids;
mod index;
mod key;
mod leaf;
mod slots;
mod table;

use pyo3::prelude::*;

#[pymodule]
fn nightbell_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<field::Field>()?;
    module.add_class::<index::Rules>()
}
