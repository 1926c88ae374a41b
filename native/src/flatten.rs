//! The leaves of a document at the used paths, each with the array elements that it lies in.
//!
//! Only what the trie names is read: cost grows with the used paths that are there and the elements of arrays on them, not with
//! the document.  `router/flatten.py` does the same, and says more.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use rustc_hash::FxHashMap;

use crate::agree::Shelved;
use crate::ids::{FIELDS, NONE, Path};
use crate::leaf::{Leaf, Value};

/// A used name and what is used below it; `dotted` has the names that an event may write as one key.
#[derive(Default)]
pub struct Node {
    children: Names,
    dotted: Names,
    path: Option<u32>,
    exact: bool,
}

#[derive(Default)]
struct Names {
    known: FxHashMap<Box<str>, usize>,
    keys: Vec<Py<PyString>>,
    places: Vec<usize>,
}

impl Names {
    fn add(&mut self, py: Python<'_>, name: &str, place: usize) {
        if !self.known.contains_key(name) {
            self.known.insert(name.into(), self.keys.len());
            self.keys.push(PyString::intern(py, name).unbind());
            self.places.push(place);
        }
    }

    fn of(&self, name: &str) -> Option<usize> {
        self.known.get(name).map(|at| self.places[*at])
    }
}

/// The used paths, as a tree in one list; the first node is the root.
pub struct Trie(Vec<Node>);

impl Trie {
    /// The trie of these paths; with each, whether a number that a double may have blurred is to be reported there.
    pub fn of<'a>(py: Python<'_>, paths: impl Iterator<Item = (&'a Path, bool)>) -> Trie {
        let mut nodes = vec![Node::default()];
        for (path, exact) in paths {
            let names: Vec<&str> = path.text.split('.').collect();
            let mut walked = vec![0];
            for name in &names {
                let at = walked[walked.len() - 1];
                let child = nodes[at].children.of(name).unwrap_or_else(|| {
                    nodes.push(Node::default());
                    let child = nodes.len() - 1;
                    nodes[at].children.add(py, name, child);
                    child
                });
                walked.push(child);
            }
            let leaf = &mut nodes[walked[names.len()]];
            leaf.path = Some(path.id);
            leaf.exact = exact;
            for start in 0..names.len() {
                for end in start + 2..=names.len() {
                    nodes[walked[start]].dotted.add(py, &names[start..end].join("."), walked[end]);
                }
            }
        }
        Trie(nodes)
    }
}

/// What is known during one match, by path and by field; kept and cleaned for the next one.
#[derive(Default)]
struct Scratch {
    heads: Vec<u32>,
    tangled: Vec<bool>,
    memo: Vec<u8>,
}

static SCRATCHES: Mutex<Vec<Scratch>> = Mutex::new(Vec::new());

/// What was found in one document.
pub struct Found<'py> {
    pub leaves: Vec<Leaf<'py>>,
    /// The paths that have leaves, in the order in which they were met.
    pub paths: Vec<u32>,
    /// A number's own text may decide, and the document no longer has it.
    pub blurred: bool,
    /// Arrays of objects were met, so that fields must agree on elements.
    pub is_tangled: bool,
    /// A path has several leaves, so that a branch may be found twice.
    pub has_lists: bool,
    /// How many steps it took: a measure that no clock disturbs.
    pub steps: usize,
    /// By field, and whether of every leaf: the chains at its path, for array consistency.
    pub shelves: FxHashMap<(u32, bool), Rc<Shelved>>,
    chains: Vec<(u32, u32, u32)>,
    arrays: u32,
    scratch: Scratch,
    decided: Vec<u32>,
}

/// The chain of no array.
pub const FREE: u32 = 0;

impl<'py> Found<'py> {
    pub fn of(document: &Bound<'py, PyDict>, trie: &Trie, odd: &Py<PyAny>) -> PyResult<Found<'py>> {
        let mut scratch = SCRATCHES.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let (paths, fields) = (Path::bound(), FIELDS.bound());
        if scratch.heads.len() < paths {
            scratch.heads.resize(paths, NONE);
            scratch.tangled.resize(paths, false);
        }
        if scratch.memo.len() < fields {
            scratch.memo.resize(fields, 0);
        }
        let mut found = Found {
            leaves: Vec::with_capacity(32),
            paths: Vec::with_capacity(32),
            blurred: false,
            is_tangled: false,
            has_lists: false,
            steps: 0,
            shelves: FxHashMap::default(),
            chains: vec![(FREE, 0, 0)],
            arrays: 0,
            scratch,
            decided: Vec::new(),
        };
        Walk { trie: &trie.0, odd }.object(document, &trie.0[0], FREE, &mut found)?;
        Ok(found)
    }

    /// The leaves at a path, the last found first.
    pub fn at(&self, path: u32) -> impl Iterator<Item = &Leaf<'py>> {
        let mut next = self.scratch.heads.get(path as usize).copied().unwrap_or(NONE);
        std::iter::from_fn(move || {
            let leaf = self.leaves.get(next as usize)?;
            next = leaf.next;
            Some(leaf)
        })
    }

    /// Whether a leaf at the path lies in an array of objects.
    pub fn tangles(&self, path: u32) -> bool {
        self.is_tangled && self.scratch.tangled[path as usize]
    }

    /// The (array, element) pairs of a chain, innermost first.
    pub fn links(&self, chain: u32) -> impl Iterator<Item = (u32, u32)> {
        let mut at = chain;
        std::iter::from_fn(move || {
            let (around, array, element) = self.chains[at as usize];
            let here = at != FREE;
            at = around;
            here.then_some((array, element))
        })
    }

    /// What is known of a field: nothing, or whether it holds.
    pub fn decided(&self, field: u32) -> Option<bool> {
        match self.scratch.memo[field as usize] {
            0 => None,
            known => Some(known == 2),
        }
    }

    pub fn decide(&mut self, field: u32, holds: bool) {
        self.scratch.memo[field as usize] = 1 + u8::from(holds);
        self.decided.push(field);
    }

    fn keep(&mut self, path: u32, object: Bound<'py, PyAny>, value: Value, chain: u32) {
        let head = &mut self.scratch.heads[path as usize];
        let next = std::mem::replace(head, self.leaves.len() as u32);
        if next == NONE {
            self.paths.push(path);
        } else {
            self.has_lists = true;
        }
        if chain != FREE {
            self.is_tangled = true;
            self.scratch.tangled[path as usize] = true;
        }
        self.leaves.push(Leaf { object, value, chain, next });
    }
}

impl Drop for Found<'_> {
    fn drop(&mut self) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for path in &self.paths {
            scratch.heads[*path as usize] = NONE;
            scratch.tangled[*path as usize] = false;
        }
        for field in &self.decided {
            scratch.memo[*field as usize] = 0;
        }
        SCRATCHES.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
    }
}

struct Walk<'a> {
    trie: &'a [Node],
    odd: &'a Py<PyAny>,
}

impl Walk<'_> {
    fn object<'py>(&self, document: &Bound<'py, PyDict>, node: &Node, chain: u32, found: &mut Found<'py>) -> PyResult<()> {
        let py = document.py();
        found.steps += node.children.keys.len().min(document.len()) + 1;
        if node.children.keys.len() <= document.len() {
            for (name, place) in node.children.keys.iter().zip(&node.children.places) {
                if let Some(value) = document.get_item(name.bind(py))? {
                    self.value(value, &self.trie[*place], chain, found)?;
                }
            }
        } else {
            self.named(document, &node.children, chain, found)?;
        }
        if node.dotted.keys.is_empty() {
            return Ok(());
        }
        if node.dotted.keys.len() <= document.len() {
            for (name, place) in node.dotted.keys.iter().zip(&node.dotted.places) {
                if let Some(value) = document.get_item(name.bind(py))? {
                    self.value(value, &self.trie[*place], chain, found)?;
                }
            }
            Ok(())
        } else {
            self.named(document, &node.dotted, chain, found)
        }
    }

    /// Every key of the document that is one of `names`: for nodes with more names than the document has.
    fn named<'py>(&self, document: &Bound<'py, PyDict>, names: &Names, chain: u32, found: &mut Found<'py>) -> PyResult<()> {
        for (key, value) in document.iter() {
            if let Some(place) = key.cast_exact::<PyString>().ok().and_then(|key| names.of(key.to_str().ok()?)) {
                self.value(value, &self.trie[place], chain, found)?;
            }
        }
        Ok(())
    }

    fn value<'py>(&self, value: Bound<'py, PyAny>, node: &Node, chain: u32, found: &mut Found<'py>) -> PyResult<()> {
        if let Ok(object) = value.cast_exact::<PyDict>() {
            return if node.children.keys.is_empty() { Ok(()) } else { self.object(object, node, chain, found) };
        }
        if let Ok(array) = value.cast_exact::<PyList>() {
            return self.array(array.clone(), node, chain, found);
        }
        self.leaf(value, node, chain, found)
    }

    fn leaf<'py>(&self, object: Bound<'py, PyAny>, node: &Node, chain: u32, found: &mut Found<'py>) -> PyResult<()> {
        let Some(path) = node.path else { return Ok(()) };
        let (value, is_blurred) = Value::of(&object, self.odd)?;
        found.blurred |= is_blurred && node.exact;
        found.keep(path, object, value, chain);
        Ok(())
    }

    /// Arrays within arrays are walked with a list of our own: a hostile document may nest them a thousand deep.
    fn array<'py>(&self, values: Bound<'py, PyList>, node: &Node, chain: u32, found: &mut Found<'py>) -> PyResult<()> {
        let mut waiting = VecDeque::from([(values, chain)]);
        while let Some((array, around)) = waiting.pop_front() {
            found.arrays += 1;
            found.steps += array.len();
            let number = found.arrays;
            for (at, value) in (0u32..).zip(array.iter()) {
                let is_array = value.cast_exact::<PyList>().is_ok();
                if is_array || value.cast_exact::<PyDict>().is_ok() {
                    found.chains.push((around, number, at));
                    let within = found.chains.len() as u32 - 1;
                    match value.cast_into_exact::<PyList>() {
                        Ok(below) => waiting.push_back((below, within)),
                        Err(other) => self.value(other.into_inner(), node, within, found)?,
                    }
                } else {
                    self.leaf(value, node, around, found)?;
                }
            }
        }
        Ok(())
    }
}
