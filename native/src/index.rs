//! One team's rules, indexed: an immutable snapshot; a change gives a new one, which shares what it did not touch.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use rustc_hash::FxHashMap;

use crate::agree::{holds, is_consistent};
use crate::branch::{Branch, Rule};
use crate::door::{Door, Entry, Posting};
use crate::field::{Field, FieldCore};
use crate::flatten::{Found, Trie};
use crate::key::Key;
use crate::slots::Slot;
use crate::table::Table;

type Fields = Box<[Arc<FieldCore>]>;
/// A rule to be added: its id, the fields of each of its branches, and its guards.
type Given<'py> = (Bound<'py, PyString>, Vec<Vec<Bound<'py, Field>>>, Vec<Py<PyAny>>);

#[derive(Clone)]
struct Index {
    doors: FxHashMap<u32, Arc<Door>>,
    residual: Posting,
    rules: Table<Arc<[Arc<Branch>]>>,
}

impl Index {
    /// Count that a field is asked for by so many branches more, or less.
    fn count(&mut self, field: &FieldCore, by: i32) {
        let door = self.door(field);
        door.uses = door.uses.wrapping_add_signed(by);
        door.exact_uses = door.exact_uses.wrapping_add_signed(if field.numeric { by } else { 0 });
        for slot in field.ways.iter().flat_map(|way| &way.slots) {
            door.change(slot, |place| place.asked = place.asked.wrapping_add_signed(by));
        }
        if door.uses == 0 {
            self.doors.remove(&field.at);
        }
    }

    fn door(&mut self, field: &FieldCore) -> &mut Door {
        let door = self.doors.entry(field.at).or_insert_with(|| Arc::new(Door::new(field.path.clone())));
        Arc::make_mut(door)
    }

    fn asked(&self, field: &FieldCore, slot: &Slot) -> u32 {
        self.doors.get(&field.at).map_or(0, |door| door.asked(slot))
    }

    fn add(&mut self, id: &str, rule: Arc<Rule>, branches: Vec<Fields>) {
        let filed: Arc<[Arc<Branch>]> = branches
            .into_iter()
            .map(|fields| Arc::new(Branch::of(rule.clone(), fields, &|field, slot| self.asked(field, slot))))
            .collect();
        for branch in filed.iter() {
            match branch.place() {
                None => self.residual.add(Entry::of(branch.clone())),
                Some((field, slots)) => {
                    let door = self.door(field);
                    for slot in slots {
                        door.change(slot, |place| place.filed.add(Entry::of(branch.clone())));
                    }
                }
            }
        }
        *self.rules.get_or_insert(&Key::of(id.as_bytes()), || filed.clone()) = filed.clone();
    }

    fn remove(&mut self, id: &str) {
        let Some(filed) = self.rules.remove(id.as_bytes()) else { return };
        for branch in filed.iter() {
            match branch.place() {
                None => {
                    self.residual.take(branch);
                }
                Some((field, slots)) => {
                    let door = self.door(field);
                    for slot in slots {
                        door.change(slot, |place| _ = place.filed.take(branch));
                    }
                }
            }
            branch.fields.iter().for_each(|field| self.count(field, -1));
        }
    }

    /// The used paths, and where each asks for exact numbers.
    fn uses(&self) -> FxHashMap<u32, bool> {
        self.doors.iter().map(|(path, door)| (*path, door.exact_uses > 0)).collect()
    }

    fn candidates<'a>(&'a self, found: &mut Found<'_>) -> Vec<&'a Entry> {
        let mut candidates = Vec::with_capacity(32);
        let mut looks = 0;
        for path in &found.paths {
            let Some(door) = self.doors.get(path) else { continue };
            let mut leaves = found.at(*path);
            let (first, second) = (leaves.next(), leaves.next());
            if second.is_none() {
                looks += first.map_or(0, |leaf| door.open(leaf, &mut candidates));
                continue;
            }
            let mut distinct: Vec<_> = found.at(*path).collect();
            distinct.sort_unstable_by(|one, other| one.key().cmp(other.key()));
            distinct.dedup_by(|one, other| one.key() == other.key());
            looks += distinct.into_iter().map(|leaf| door.open(leaf, &mut candidates)).sum::<usize>();
        }
        candidates.extend(self.residual.as_slice());
        if found.has_lists {
            candidates.sort_unstable_by_key(|entry| Arc::as_ptr(&entry.branch));
            candidates.dedup_by_key(|entry| Arc::as_ptr(&entry.branch));
        }
        found.steps += looks + candidates.len();
        candidates
    }

    /// The rules that match, guards apart, in the order of their ids.
    fn matching<'a>(&'a self, found: &mut Found<'_>, py: Python<'_>) -> PyResult<Vec<&'a Arc<Rule>>> {
        let mut hits = Vec::new();
        for entry in self.candidates(found) {
            if !found.is_tangled
                && let Some(first) = &entry.first
                && !holds(first, found)?
            {
                continue;
            }
            if satisfied(&entry.branch, found)? {
                hits.push(&entry.branch.rule);
            }
        }
        if hits.len() > 1 {
            let mut named =
                hits.into_iter().map(|rule| Ok((rule.id.bind(py).to_str()?, rule))).collect::<PyResult<Vec<_>>>()?;
            named.sort_unstable_by_key(|(id, _)| *id);
            named.dedup_by_key(|(id, _)| *id);
            hits = named.into_iter().map(|(_, rule)| rule).collect();
        }
        Ok(hits)
    }
}

fn satisfied(branch: &Branch, found: &mut Found<'_>) -> PyResult<bool> {
    if found.is_tangled && branch.fields.iter().filter(|field| found.tangles(field.at)).count() > 1 {
        return is_consistent(&branch.fields, found);
    }
    for field in &branch.rest {
        if !holds(field, found)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// An immutable set of rules, matched against parsed documents.
#[pyclass(frozen)]
pub struct Rules {
    index: Index,
    trie: Arc<Trie>,
    odd: Py<PyAny>,
}

#[pymethods]
impl Rules {
    /// No rules.  `odd` gives the double of a number that a look at its type does not tell, or its key in bytes.
    #[new]
    fn new(py: Python<'_>, odd: Py<PyAny>) -> Rules {
        let index = Index { doors: FxHashMap::default(), residual: Posting::default(), rules: Table::new() };
        Rules { index, trie: Arc::new(Trie::of(py, std::iter::empty())), odd }
    }

    fn __len__(&self) -> usize {
        self.index.rules.len()
    }

    /// The rules without those of `remove`, then with those of `add`, which replace what has the same id.
    fn with_rules(&self, py: Python<'_>, add: Vec<Given<'_>>, remove: Vec<String>) -> PyResult<Rules> {
        let mut index = self.index.clone();
        let added: Vec<(String, Arc<Rule>, Vec<Fields>)> = add
            .into_iter()
            .map(|(id, branches, guards)| {
                let fields = branches.iter().map(|fields| fields.iter().map(|field| field.get().0.clone()).collect()).collect();
                Ok((id.to_str()?.to_owned(), Arc::new(Rule { id: id.unbind(), guards }), fields))
            })
            .collect::<PyResult<_>>()?;
        let index = py.detach(move || {
            for id in remove.iter().chain(added.iter().map(|(id, _, _)| id)) {
                index.remove(id);
            }
            // All of them are counted before any is filed where the fewest ask.
            let mut asked: FxHashMap<u32, (&FieldCore, i32)> = FxHashMap::default();
            for field in added.iter().flat_map(|(_, _, branches)| branches.iter().flatten()) {
                asked.entry(field.id).or_insert((field, 0)).1 += 1;
            }
            for (field, count) in asked.into_values() {
                index.count(field, count);
            }
            for (id, rule, branches) in added {
                index.add(&id, rule, branches);
            }
            index
        });
        let trie = if index.uses() == self.index.uses() {
            self.trie.clone()
        } else {
            Arc::new(Trie::of(py, index.doors.values().map(|door| (&*door.path, door.exact_uses > 0))))
        };
        Ok(Rules { index, trie, odd: self.odd.clone_ref(py) })
    }

    /// The ids of the rules that match, sorted; None where a number's own text decides (asked only with `sharply`).
    #[pyo3(name = "match")]
    fn matched<'py>(&self, document: &Bound<'py, PyDict>, now_ms: i64, sharply: bool) -> PyResult<Option<Bound<'py, PyList>>> {
        let py = document.py();
        let mut found = Found::of(document, &self.trie, &self.odd)?;
        if found.blurred && sharply {
            return Ok(None);
        }
        let hits = PyList::empty(py);
        'rules: for rule in self.index.matching(&mut found, py)? {
            for guard in &rule.guards {
                if !guard.bind(py).call_method1("holds", (document, now_ms))?.is_truthy()? {
                    continue 'rules;
                }
            }
            hits.append(&rule.id)?;
        }
        Ok(Some(hits))
    }

    /// How many steps a match of this document takes, guards apart: a measure that no clock disturbs.
    fn steps(&self, document: &Bound<'_, PyDict>) -> PyResult<usize> {
        let mut found = Found::of(document, &self.trie, &self.odd)?;
        self.index.matching(&mut found, document.py())?;
        Ok(found.steps)
    }
}
