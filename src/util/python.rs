//! JSON values as Python's `str` writes them, since conda does.

use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON scalar as the text that an environment variable gets, null as nothing; none for lists, objects and texts that
/// no variable can hold.
pub fn scalar(raw: &RawValue) -> Option<Option<String>> {
    match serde_json::from_str::<Value>(raw.get()).ok()? {
        Value::Null => Some(None),
        Value::Bool(true) => Some(Some("True".to_owned())),
        Value::Bool(false) => Some(Some("False".to_owned())),
        Value::Number(_) => Some(Some(number(raw.get().trim())?)),
        Value::String(text) => (!text.contains('\0')).then_some(Some(text)),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// JSON as Python's `json` reads it: the numbers that are none, as the texts that `str` makes of them.
pub fn plain_json(json: &[u8]) -> Vec<u8> {
    const NUMBERS: [(&[u8], &[u8]); 3] = [(b"-Infinity", b"\"-inf\""), (b"Infinity", b"\"inf\""), (b"NaN", b"\"nan\"")];
    let (mut plain, mut rest, mut in_text) = (Vec::with_capacity(json.len()), json, false);
    while let Some((&byte, after)) = rest.split_first() {
        if !in_text && let Some((name, text)) = NUMBERS.iter().find(|(name, _)| rest.starts_with(name)) {
            plain.extend_from_slice(text);
            rest = &rest[name.len()..];
            continue;
        }
        in_text ^= byte == b'"';
        plain.push(byte);
        rest = after;
        if in_text
            && byte == b'\\'
            && let Some((&escaped, after)) = rest.split_first()
        {
            plain.push(escaped);
            rest = after;
        }
    }
    plain
}

/// A JSON number as Python's `str` writes it.
fn number(text: &str) -> Option<String> {
    if !text.contains(['.', 'e', 'E']) {
        return Some(if text == "-0" { "0".to_owned() } else { text.to_owned() });
    }
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() {
        return Some(if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() });
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e')?;
    let exponent: i32 = exponent.parse().ok()?;
    // As `float.__repr__` chooses.
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return Some(if plain.contains('.') { plain } else { format!("{plain}.0") });
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    Some(format!("{digits}e{sign}{:02}", exponent.abs()))
}
