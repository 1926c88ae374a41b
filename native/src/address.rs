//! IP addresses in text, as `router/values.py` reads them.

use std::net::Ipv6Addr;

/// (version, number) of an address; leading zeros of IPv4 are decimal, there is no form of one version within the other.
pub fn address_of(text: &[u8]) -> Option<(u8, u128)> {
    let text = str::from_utf8(text).ok()?;
    if text.len() > 45 {
        return None;
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return four(text).map(|number| (4, u128::from(number)));
    }
    if text.contains(':') && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
        return text.parse::<Ipv6Addr>().ok().map(|address| (6, u128::from(address)));
    }
    None
}

fn four(text: &str) -> Option<u32> {
    let mut number = 0;
    let mut parts = 0;
    for part in text.split('.') {
        if part.is_empty() || part.len() > 10 {
            return None;
        }
        number = (number << 8) | u32::from(u8::try_from(part.parse::<u64>().ok()?).ok()?);
        parts += 1;
        if parts > 4 {
            return None;
        }
    }
    (parts == 4).then_some(number)
}

/// The network of `bits` that an address lies in.
pub fn shifted((version, number): (u8, u128), bits: u8) -> u128 {
    let most: u32 = if version == 4 { 32 } else { 128 };
    number.checked_shr(most - u32::from(bits)).unwrap_or(0)
}
