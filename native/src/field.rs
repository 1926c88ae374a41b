//! What a branch asks of one path: tests of a leaf, and the ways by which an index finds them.

use std::sync::Arc;

use memchr::memmem;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rustc_hash::FxHashSet;

use crate::address::{address_of, shifted};
use crate::ids::{FIELDS, Path};
use crate::key::Key;
use crate::leaf::Leaf;
use crate::slots::{Way, way_of};

pub enum Test {
    Equals(Key),
    OneOf(FxHashSet<Key>),
    NoneOf(FxHashSet<Key>),
    Prefix(Key),
    Suffix(Key),
    /// The same three, ASCII in any case.
    AnyCase(Key),
    AnyCasePrefix(Key),
    AnyCaseSuffix(Key),
    /// Literal runs in order, the first at the start, the last at the end.
    Wildcard(Vec<Key>),
    Range {
        low: f64,
        with_low: bool,
        high: f64,
        with_high: bool,
    },
    Network {
        version: u8,
        bits: u8,
        network: u128,
    },
    Exists,
    Not(Vec<Test>),
    /// Anything else: asked of Python.
    Foreign(Py<PyAny>),
}

impl Test {
    fn read(given: &Bound<'_, PyAny>) -> PyResult<Test> {
        let given = given.cast::<PyTuple>()?;
        let kind: String = given.get_item(0)?.extract()?;
        let bytes = |at: usize| -> PyResult<Key> { Ok(Key::of(&given.get_item(at)?.extract::<Vec<u8>>()?)) };
        let all = || -> PyResult<Vec<Key>> {
            given.get_item(1)?.try_iter()?.map(|one| Ok(Key::of(&one?.extract::<Vec<u8>>()?))).collect()
        };
        Ok(match kind.as_str() {
            "equals" => Test::Equals(bytes(1)?),
            "one-of" => Test::OneOf(all()?.into_iter().collect()),
            "none-of" => Test::NoneOf(all()?.into_iter().collect()),
            "prefix" => Test::Prefix(bytes(1)?),
            "suffix" => Test::Suffix(bytes(1)?),
            "any-case" => Test::AnyCase(bytes(1)?),
            "any-case-prefix" => Test::AnyCasePrefix(bytes(1)?),
            "any-case-suffix" => Test::AnyCaseSuffix(bytes(1)?),
            "wildcard" => Test::Wildcard(all()?),
            "range" => {
                let (_, low, with_low, high, with_high): (String, f64, bool, f64, bool) = given.extract()?;
                Test::Range { low, with_low, high, with_high }
            }
            "network" => {
                let (_, version, bits, network): (String, u8, u8, u128) = given.extract()?;
                Test::Network { version, bits, network }
            }
            "exists" => Test::Exists,
            "not" => Test::Not(given.get_item(1)?.try_iter()?.map(|one| Test::read(&one?)).collect::<PyResult<_>>()?),
            "call" => Test::Foreign(given.get_item(1)?.unbind()),
            _ => return Err(PyValueError::new_err(format!("no test is called {kind:?}"))),
        })
    }

    /// How much dearer this test is than a comparison: those that a branch still has to satisfy are tried the cheapest first.
    fn cost(&self) -> u32 {
        match self {
            Test::Equals(_) | Test::OneOf(_) | Test::Exists => 0,
            Test::Wildcard(_) | Test::Network { .. } | Test::Not(_) => 2,
            Test::Foreign(_) => 50,
            _ => 1,
        }
    }

    pub fn holds(&self, leaf: &Leaf<'_>) -> PyResult<bool> {
        let text = |holds: &dyn Fn(&[u8]) -> bool| leaf.text().is_some_and(holds);
        Ok(match self {
            Test::Equals(key) => leaf.key() == &**key,
            Test::OneOf(keys) => keys.contains(leaf.key()),
            Test::NoneOf(keys) => !keys.contains(leaf.key()),
            Test::Prefix(start) => text(&|text| text.starts_with(start)),
            Test::Suffix(end) => text(&|text| text.ends_with(end)),
            Test::AnyCase(whole) => text(&|text| text.eq_ignore_ascii_case(whole)),
            Test::AnyCasePrefix(start) => {
                text(&|text| text.get(..start.len()).is_some_and(|part| part.eq_ignore_ascii_case(start)))
            }
            Test::AnyCaseSuffix(end) => text(&|text| {
                let start = text.len().checked_sub(end.len());
                start.is_some_and(|start| text[start..].eq_ignore_ascii_case(end))
            }),
            Test::Wildcard(parts) => text(&|text| fits(text, parts)),
            Test::Range { low, with_low, high, with_high } => leaf.number().is_some_and(|number| {
                (number > *low || (*with_low && number == *low)) && (number < *high || (*with_high && number == *high))
            }),
            Test::Network { version, bits, network } => {
                text(&|text| address_of(text).is_some_and(|found| found.0 == *version && shifted(found, *bits) == *network))
            }
            Test::Exists => true,
            Test::Not(tests) => {
                for test in tests {
                    if test.holds(leaf)? {
                        return Ok(false);
                    }
                }
                true
            }
            Test::Foreign(holds) => holds.bind(leaf.object.py()).call1((&leaf.object,))?.is_truthy()?,
        })
    }
}

fn fits(text: &[u8], parts: &[Key]) -> bool {
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else { return false };
    if parts.len() == 1 {
        return text == &**first;
    }
    if text.len() < first.len() + last.len() || !text.starts_with(first) || !text.ends_with(last) {
        return false;
    }
    let mut rest = &text[first.len()..text.len() - last.len()];
    for literal in &parts[1..parts.len() - 1] {
        match memmem::find(rest, literal) {
            Some(at) => rest = &rest[at + literal.len()..],
            None => return false,
        }
    }
    true
}

/// Fields of equal meaning are one object: a match decides each once per event.
pub struct FieldCore {
    pub id: u32,
    pub at: u32,
    /// Its tests, any of which satisfies it; the first in place, since most fields have one.
    first: Option<Test>,
    others: Vec<Test>,
    pub path: Arc<Path>,
    /// That no leaf is here satisfies it too.
    pub absent: bool,
    /// Being found by one of its ways proves it.
    pub exact: bool,
    /// Asks for the exact value of a number that a double cannot hold.
    pub numeric: bool,
    pub cost: u32,
    /// Every leaf that satisfies it comes by one of these; none where absence may satisfy it.
    pub ways: Vec<Way>,
}

impl FieldCore {
    pub fn holds_for(&self, leaf: &Leaf<'_>) -> PyResult<bool> {
        for test in self.first.iter().chain(&self.others) {
            if test.holds(leaf)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Drop for FieldCore {
    fn drop(&mut self) {
        FIELDS.give_back(self.id);
    }
}

/// A field of a compiled pattern, as `router/native.py` describes it.
#[pyclass(frozen)]
pub struct Field(pub Arc<FieldCore>);

#[pymethods]
impl Field {
    #[new]
    fn new(
        path: &str,
        tests: Vec<Bound<'_, PyAny>>,
        accesses: Vec<Bound<'_, PyTuple>>,
        absent: bool,
        exact: bool,
        numeric: bool,
    ) -> PyResult<Self> {
        let tests = tests.iter().map(Test::read).collect::<PyResult<Vec<_>>>()?;
        let ways = accesses.iter().map(way_of).collect::<PyResult<Vec<_>>>()?;
        let cost = tests.iter().map(Test::cost).sum::<u32>() + tests.len() as u32 - u32::from(!tests.is_empty());
        let mut tests = tests.into_iter();
        let (first, others) = (tests.next(), tests.collect());
        let path = Path::of(path);
        let (id, at) = (FIELDS.take(), path.id);
        Ok(Field(Arc::new(FieldCore { id, at, first, others, path, absent, exact, numeric, cost, ways })))
    }
}
