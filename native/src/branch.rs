//! A rule, and one conjunction of its fields.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::field::FieldCore;
use crate::slots::Slot;

pub struct Rule {
    pub id: Py<PyString>,
    /// What the whole document must satisfy besides; Python's own objects.
    pub guards: Vec<Py<PyAny>>,
}

/// Fields that must all hold, in the order of their paths, and where the index keeps the branch.
pub struct Branch {
    pub rule: Arc<Rule>,
    pub fields: Box<[Arc<FieldCore>]>,
    /// What a candidate still has to satisfy, the cheapest first.
    pub rest: Box<[Arc<FieldCore>]>,
    /// The field under which it is filed; none: it is always a candidate.
    chosen: Option<u32>,
    /// For each of the chosen field's ways of which any one slot does: which one was taken.
    picks: Box<[u32]>,
}

impl Branch {
    /// File the branch under the field that will make it a candidate least often: the one that the fewest ask for.
    pub fn of(rule: Arc<Rule>, fields: Box<[Arc<FieldCore>]>, asked: &impl Fn(&FieldCore, &Slot) -> u32) -> Branch {
        let mut best: Option<(f64, u32)> = None;
        for (at, field) in (0u32..).zip(&fields) {
            let cost = field.ways.iter().map(|way| {
                let crowds = way.slots.iter().map(|slot| asked(field, slot));
                let crowd = if way.any_one { crowds.min() } else { crowds.max() };
                f64::from(way.trying) + f64::from(crowd.unwrap_or(0))
            });
            let cost: f64 = cost.sum();
            if !field.ways.is_empty() && best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, at));
            }
        }
        let chosen = best.map(|(_, at)| at);
        let filed = chosen.map(|at| &fields[at as usize]);
        let picks = filed.map_or_else(Box::default, |field| {
            let choices = field.ways.iter().filter(|way| way.any_one);
            choices
                .map(|way| (0u32..).zip(&way.slots).min_by_key(|(_, slot)| asked(field, slot)).map_or(0, |(at, _)| at))
                .collect()
        });
        let mut rest: Vec<_> = fields
            .iter()
            .filter(|field| filed.is_none_or(|filed| !filed.exact || !Arc::ptr_eq(filed, field)))
            .cloned()
            .collect();
        rest.sort_by_key(|field| field.cost);
        Branch { rule, fields, rest: rest.into(), chosen, picks }
    }

    /// The field under which it is filed, and the slots.
    pub fn place(&self) -> Option<(&Arc<FieldCore>, Vec<&Slot>)> {
        let field = &self.fields[self.chosen? as usize];
        let mut picks = self.picks.iter();
        let mut slots = Vec::new();
        for way in &field.ways {
            match way.any_one {
                true => slots.extend(picks.next().map(|pick| &way.slots[*pick as usize])),
                false => slots.extend(&way.slots),
            }
        }
        Some((field, slots))
    }
}
