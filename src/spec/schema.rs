//! The JSON schema of condaimg.yaml, made of the forms that its reader goes by. Editors and checks in CI use it.

use serde_json::{Map, Value, json};

use super::forms::{Form, Table, Text};
use super::keys::PROJECT_FILE;

/// The schema (draft 7, which every editor knows). It is as strict as can be said there: a value that it lets through
/// may still be refused by the reader, with the reason.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "condaimg.yaml",
        "description": "An environment, and what its image is to be.",
    });
    merge(&mut schema, table(&PROJECT_FILE));
    merge(&mut schema, json!({ "anyOf": [{ "required": ["environment"] }, { "required": ["dependencies"] }] }));
    schema
}

fn merge(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

fn table(table: &Table) -> Value {
    let properties: Map<String, Value> = table
        .keys
        .iter()
        .map(|entry| {
            let mut value = match entry.form {
                // One that lost its list asks for nothing by mistake.
                Form::Packages => form(&entry.form),
                _ => or_nothing(form(&entry.form)),
            };
            let flag = entry.flag.map(|flag| format!(" Flag: {flag}.")).unwrap_or_default();
            merge(&mut value, json!({ "description": format!("{}{flag}", entry.about) }));
            (entry.key.to_owned(), value)
        })
        .collect();
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn form(form: &Form) -> Value {
    match form {
        Form::Text(text) => scalar(text),
        // YAML 1.1 reads `on` as true, YAML 1.2 as a text.
        Form::Switch => json!({ "enum": [true, false, "on", "off"] }),
        Form::Number(range) => json!({ "type": "integer", "minimum": range.start(), "maximum": range.end() }),
        Form::Command => json!({ "type": ["string", "array"], "items": { "type": ["string", "number", "boolean"] } }),
        Form::List(item) => json!({ "type": "array", "items": self::form(item) }),
        Form::Pairs(pairs) => json!({ "type": "object", "additionalProperties": or_nothing(self::form(pairs.value)) }),
        Form::Table(it) => {
            let mut value = table(it);
            let exactly = |group: &&[&str]| json!({ "required": group });
            if !it.groups.is_empty() {
                merge(&mut value, json!({ "oneOf": it.groups.iter().map(exactly).collect::<Vec<_>>() }));
            }
            value
        }
        Form::Packages => json!({
            "type": "array",
            "items": {
                "type": ["string", "object"],
                "properties": { "pip": { "type": "array", "items": { "type": "string" } } },
                "additionalProperties": false,
            },
        }),
    }
}

/// Any scalar is taken as the text that the file has, but what should be written in quotes is asked for in quotes only
/// where it matters.
fn scalar(text: &Text) -> Value {
    match text.one_of {
        [] if text.may_be_empty => json!({ "type": ["string", "number", "boolean"] }),
        [] => json!({ "type": ["string", "number"] }),
        known => json!({ "enum": known }),
    }
}

/// A key with nothing behind it is as good as none.
fn or_nothing(mut schema: Value) -> Value {
    if let Some(types) = schema.get_mut("type") {
        let mut all = match types.take() {
            Value::Array(types) => types,
            one => vec![one],
        };
        all.push("null".into());
        *types = Value::Array(all);
    }
    if let Some(Value::Array(known)) = schema.get_mut("enum") {
        known.push(Value::Null);
    }
    schema
}
