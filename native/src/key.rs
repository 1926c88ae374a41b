//! The bytes by which a value is found and compared; short ones lie in place, so that a look-up reads no second line of memory.

use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

const SHORT: usize = 22;

#[derive(Clone)]
pub enum Key {
    Short(u8, [u8; SHORT]),
    Long(Arc<[u8]>),
}

impl Key {
    pub fn of(bytes: &[u8]) -> Key {
        if bytes.len() > SHORT {
            return Key::Long(bytes.into());
        }
        let mut held = [0; SHORT];
        held[..bytes.len()].copy_from_slice(bytes);
        Key::Short(bytes.len() as u8, held)
    }
}

impl Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Key::Short(length, held) => &held[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        **self == **other
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// So that a set of keys is asked for bytes.
impl std::borrow::Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self
    }
}
