//! JSON schemas, read as the standard says.

use std::path::Path;

use serde_json::{Value, json};

/// The place of the first value that does not fit a schema (draft 7), read as the standard says, for the keywords that
/// ours have. A keyword that is not known here is an error of the test.
pub fn misfit(schema: &Value, value: &Value, place: &Path) -> Option<String> {
    let wrong = |wrong: bool| wrong.then(|| place.display().to_string());
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let found = match (keyword.as_str(), value) {
            ("$schema" | "title" | "description" | "properties", _) => None,
            ("type", _) => wrong(!types(rule).iter().any(|name| is_a(name, value))),
            ("enum", _) => wrong(!rule.as_array().expect("values").contains(value)),
            ("minimum", Value::Number(number)) => wrong(number.as_f64() < rule.as_f64()),
            ("maximum", Value::Number(number)) => wrong(number.as_f64() > rule.as_f64()),
            ("required", Value::Object(object)) => wrong(!types(rule).iter().all(|key| object.contains_key(*key))),
            ("anyOf" | "oneOf", _) => {
                let fitting = rule.as_array().expect("schemas").iter().filter(|it| misfit(it, value, place).is_none());
                let count = fitting.count();
                wrong(if keyword == "anyOf" { count == 0 } else { count != 1 })
            }
            ("items", Value::Array(items)) => {
                items.iter().enumerate().find_map(|(index, item)| misfit(rule, item, &place.join(index.to_string())))
            }
            ("additionalProperties", Value::Object(object)) => object.iter().find_map(|(key, value)| {
                match (schema.get("properties").and_then(|known| known.get(key)), rule) {
                    (Some(schema), _) => misfit(schema, value, &place.join(key)),
                    (None, rule) if rule.is_object() => misfit(rule, value, &place.join(key)),
                    (None, rule) => wrong(rule == &json!(false)),
                }
            }),
            ("minimum" | "maximum" | "required" | "items" | "additionalProperties", _) => None,
            _ => panic!("the keyword `{keyword}`"),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// One text or several.
fn types(rule: &Value) -> Vec<&str> {
    match rule {
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    }
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("the type `{name}`"),
    }
}
