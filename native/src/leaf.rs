//! One leaf of a document, and the bytes that equal leaves share.
//!
//! A string's key is its UTF-8 text.  All other keys start with a byte that no UTF-8 text has, and a letter for the kind;
//! `router/native.py` writes the keys of patterns in the same way.

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyString};

pub const NULL: &[u8] = b"\xffn";
pub const TRUE: &[u8] = b"\xfft";
pub const FALSE: &[u8] = b"\xfff";
const NUMBER: [u8; 2] = [0xff, b'#'];
const EXACT: f64 = 9_007_199_254_740_992.0; // 2^53: every integer up to here has a double of its own

pub enum Value {
    /// A string; its text is asked of the object.
    Text,
    /// A string with half a surrogate pair, which has no UTF-8 text.
    Torn(Vec<u8>),
    Number(f64, [u8; 10]),
    /// true, false or null.
    Fixed(&'static [u8]),
    /// A number that no double holds exactly.
    Wide(Vec<u8>),
}

pub struct Leaf<'py> {
    pub object: Bound<'py, PyAny>,
    pub value: Value,
    /// The array elements that it lies in (`flatten::Chains`).
    pub chain: u32,
    /// The leaf found before this one at the same path.
    pub next: u32,
}

pub fn number_key(number: f64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&NUMBER);
    key[2..].copy_from_slice(&(number + 0.0).to_be_bytes()); // -0 is 0
    key
}

impl Value {
    /// The value of a leaf, and whether its own digits may have been lost in a double.
    ///
    /// `odd` is asked for what is rare: it gives the double of a number, or the key of one that no double holds.
    pub fn of(object: &Bound<'_, PyAny>, odd: &Py<PyAny>) -> PyResult<(Value, bool)> {
        if let Ok(text) = object.cast_exact::<PyString>() {
            if text.to_str().is_ok() {
                return Ok((Value::Text, false));
            }
            let bytes = object.call_method1("encode", ("utf-8", "surrogatepass"))?;
            return Ok((Value::Torn(bytes.extract()?), false));
        }
        if let Ok(truth) = object.cast_exact::<PyBool>() {
            return Ok((Value::Fixed(if truth.is_true() { TRUE } else { FALSE }), false));
        }
        if object.is_none() {
            return Ok((Value::Fixed(NULL), false));
        }
        if object.cast_exact::<PyInt>().is_ok() {
            if let Ok(number) = object.extract::<i64>()
                && number.unsigned_abs() <= EXACT as u64
            {
                return Ok((Value::number(number as f64), false));
            }
        } else if let Ok(float) = object.cast_exact::<PyFloat>() {
            let number = float.value();
            if number.is_finite() {
                return Ok((Value::number(number), number.abs() >= EXACT));
            }
        }
        let given = odd.bind(object.py()).call1((object,))?;
        if let Ok(number) = given.cast_exact::<PyFloat>() {
            return Ok((Value::number(number.value()), false));
        }
        Ok((Value::Wide(given.extract()?), object.cast_exact::<PyFloat>().is_ok()))
    }

    fn number(number: f64) -> Value {
        Value::Number(number + 0.0, number_key(number))
    }
}

impl Leaf<'_> {
    pub fn text(&self) -> Option<&[u8]> {
        match &self.value {
            Value::Text => self.object.cast_exact::<PyString>().ok()?.to_str().ok().map(str::as_bytes),
            Value::Torn(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<f64> {
        match self.value {
            Value::Number(number, _) => Some(number),
            _ => None,
        }
    }

    /// Equal keys mean values that a pattern cannot tell apart.
    pub fn key(&self) -> &[u8] {
        match &self.value {
            Value::Number(_, key) => key,
            Value::Fixed(key) => key,
            Value::Wide(key) => key,
            Value::Text | Value::Torn(_) => self.text().unwrap_or_default(),
        }
    }
}
