//! Array consistency: fields below one array must hold in one element of it (`router/consistency.py` says more).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use pyo3::prelude::*;

use crate::field::FieldCore;
use crate::flatten::Found;

type Fixed = BTreeMap<u32, u32>;
type Links = Vec<(u32, u32)>;

/// Whether one choice of array elements satisfies all of `fields`, which are in the order of their paths.
pub fn is_consistent(fields: &[Arc<FieldCore>], found: &mut Found<'_>) -> PyResult<bool> {
    let mut shared = Vec::new();
    for field in fields {
        if found.tangles(field.at) {
            shared.push(field);
        } else if !holds(field, found)? {
            return Ok(false);
        }
    }
    if let [alone] = shared[..] {
        return holds(alone, found); // one field alone agrees with itself
    }
    let mut tried = Tried { fields: Vec::with_capacity(shared.len()), failed: HashSet::new(), steps: 0 };
    let mut ahead = BTreeSet::new();
    for field in shared.iter().rev() {
        let holding = shelved(field, false, found)?;
        let every = if field.absent { Some(shelved(field, true, found)?) } else { None };
        let here = Asked { every, holding, ahead: ahead.clone() };
        ahead.extend(here.holding.passes.iter().chain(here.every.iter().flat_map(|every| &every.passes)));
        tried.fields.push(here);
    }
    tried.fields.reverse();
    let agree = tried.agree(0, &Fixed::new());
    found.steps += tried.steps;
    Ok(agree)
}

/// The chains at the field's path: of every leaf, or of those for which the field holds.  Made once per event.
fn shelved(field: &FieldCore, every: bool, found: &mut Found<'_>) -> PyResult<Rc<Shelved>> {
    if let Some(known) = found.shelves.get(&(field.id, every)) {
        return Ok(known.clone());
    }
    let mut made = Shelved::default();
    for leaf in found.at(field.at) {
        if every || field.holds_for(leaf)? {
            let links: Links = found.links(leaf.chain).collect();
            made.passes.extend(links.iter().map(|(array, _)| *array));
            made.shelf.put(&links);
        }
    }
    let made = Rc::new(made);
    found.steps += made.passes.len() + 1;
    found.shelves.insert((field.id, every), made.clone());
    Ok(made)
}

/// The shelf of one field, and the arrays that its chains pass.
#[derive(Default)]
pub struct Shelved {
    shelf: Shelf,
    passes: BTreeSet<u32>,
}

/// Whether the leaves at its path satisfy a field, array consistency apart; decided once per event.
pub fn holds(field: &FieldCore, found: &mut Found<'_>) -> PyResult<bool> {
    if let Some(known) = found.decided(field.id) {
        return Ok(known);
    }
    let mut met = false;
    let mut held = false;
    let mut steps = 1;
    for leaf in found.at(field.at) {
        met = true;
        steps += 1;
        if field.holds_for(leaf)? {
            held = true;
            break;
        }
    }
    held |= field.absent && !met;
    found.steps += steps;
    found.decide(field.id, held);
    Ok(held)
}

/// Chains by the array and element that they pass, outermost first: what agrees with what is fixed is found, not searched.
#[derive(Default)]
struct Shelf {
    arrays: BTreeMap<u32, BTreeMap<u32, Shelf>>,
    ends: bool,
}

impl Shelf {
    /// `links`: innermost first.
    fn put(&mut self, links: &[(u32, u32)]) {
        let mut place = self;
        for (array, element) in links.iter().rev() {
            place = place.arrays.entry(*array).or_default().entry(*element).or_default();
        }
        place.ends = true;
    }

    /// Calls `each` with every chain that agrees with `fixed` until it says yes; whether it did.
    fn any(
        &self,
        fixed: &Fixed,
        passed: &mut Links,
        steps: &mut usize,
        each: &mut dyn FnMut(&Links, &mut usize) -> bool,
    ) -> bool {
        *steps += 1;
        if self.ends && each(passed, steps) {
            return true;
        }
        for (array, elements) in &self.arrays {
            let mut below = |element: u32, shelf: &Shelf, steps: &mut usize| {
                passed.push((*array, element));
                let held = shelf.any(fixed, passed, steps, each);
                passed.pop();
                held
            };
            let held = match fixed.get(array) {
                Some(chosen) => elements.get(chosen).is_some_and(|shelf| below(*chosen, shelf, steps)),
                None => elements.iter().any(|(element, shelf)| below(*element, shelf, steps)),
            };
            if held {
                return true;
            }
        }
        false
    }
}

/// One field whose elements must agree with those of the others.
struct Asked {
    /// Every leaf's chains, where absence may satisfy the field.
    every: Option<Rc<Shelved>>,
    holding: Rc<Shelved>,
    /// The arrays that later fields pass: only their elements need to be remembered.
    ahead: BTreeSet<u32>,
}

struct Tried {
    fields: Vec<Asked>,
    /// What has been tried in vain: the field, and the elements fixed.
    failed: HashSet<(usize, Links)>,
    steps: usize,
}

impl Tried {
    fn agree(&mut self, at: usize, fixed: &Fixed) -> bool {
        let Some(field) = self.fields.get(at) else { return true };
        let state = (at, fixed.iter().map(|(array, element)| (*array, *element)).collect());
        if self.failed.contains(&state) {
            return false;
        }
        let mut steps = 0;
        let mut next: Vec<Fixed> = Vec::new();
        let remember = |links: &Links| -> Fixed {
            let all = fixed.iter().map(|(array, element)| (*array, *element)).chain(links.iter().copied());
            all.filter(|(array, _)| field.ahead.contains(array)).collect()
        };
        if let Some(every) = &field.every
            && !every.shelf.any(fixed, &mut Links::new(), &mut steps, &mut |_, _| true)
        {
            next.push(remember(&Links::new()));
        }
        field.holding.shelf.any(fixed, &mut Links::new(), &mut steps, &mut |links, _| {
            let then = remember(links);
            if next.last() != Some(&then) {
                next.push(then);
            }
            false
        });
        self.steps += steps + next.len();
        if next.iter().any(|then| self.agree(at + 1, then)) {
            return true;
        }
        self.failed.insert(state);
        false
    }
}
