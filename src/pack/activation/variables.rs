//! `env_vars.d`: JSON objects of variables, read as conda reads them.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::lock::{ActivationStep, RESERVED_VARIABLES, UNSET};
use crate::model::{is_shell_name, variable_fits};
use crate::util::python;

/// What a file sets, and what of it is left out, as the ends of sentences that begin with the file.
pub type Variables = (Vec<ActivationStep>, Vec<String>);

/// Reads an `env_vars.d` file. Numbers and truth values become text as Python writes them, as they do in conda; null
/// unsets. Names that no shell can export, those that conda reserves, and values that are no scalar are left out.
///
/// # Errors
/// A file that is no JSON object: what it is not.
pub fn parse_variables(file: &str, json: &[u8]) -> Result<Variables, String> {
    let json = python::plain_json(json);
    let object: BTreeMap<String, &RawValue> =
        serde_json::from_slice(&json).map_err(|_| "is not a JSON object, and is ignored".to_owned())?;
    let (mut steps, mut left_out) = (Vec::new(), Vec::new());
    for (name, raw) in object {
        if RESERVED_VARIABLES.contains(&name.as_str()) {
            left_out.push(format!("sets `{name}`, which conda reserves: it is ignored"));
            continue;
        }
        if !is_shell_name(&name) {
            left_out.push(format!("sets `{}`, which is not a name of a variable: it is ignored", shown(&name)));
            continue;
        }
        match python::scalar(raw) {
            Some(Some(value)) if value == UNSET => {}
            Some(Some(value)) if !variable_fits(&name, &value) => left_out
                .push(format!("sets `{name}` to a value that is too long for any program to start: it is ignored")),
            Some(value) => steps.push(ActivationStep {
                file: file.to_owned(),
                name,
                value: value.map(|value| value.replace('$', "$$")),
                if_set: false,
            }),
            None => left_out.push(format!("sets `{name}` to what is not text: it is ignored")),
        }
    }
    Ok((steps, left_out))
}

fn shown(name: &str) -> String {
    name.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::activation::expand;

    fn read(json: &str) -> (Vec<(String, Option<String>)>, Vec<String>) {
        let (steps, left_out) = parse_variables("etc/conda/env_vars.d/x.json", json.as_bytes()).expect("an object");
        let value = |step: &ActivationStep| step.value.as_deref().and_then(|value| expand(value, |_| None));
        (steps.iter().map(|step| (step.name.clone(), value(step))).collect(), left_out)
    }

    #[test]
    fn scalars_become_text_as_in_python() {
        for (json, expected) in [
            (r#""$HOME""#, "$HOME"),
            ("5", "5"),
            ("-0", "0"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1.50", "1.5"),
            ("1e3", "1000.0"),
            ("1e16", "1e+16"),
            ("0.00001", "1e-05"),
            ("0.0001", "0.0001"),
            ("true", "True"),
            ("false", "False"),
            ("NaN", "nan"),
            ("-Infinity", "-inf"),
            ("\"NaN \\\" Infinity\"", "NaN \" Infinity"),
        ] {
            let (steps, left_out) = read(&format!("{{\"A\": {json}, \"B\": \"b\"}}"));
            assert_eq!(steps[0].1.as_deref(), Some(expected), "{json}");
            assert_eq!((steps.len(), left_out.len()), (2, 0), "{json}");
        }
        assert_eq!(read(r#"{"A": null, "B": "***unset***"}"#).0, [("A".to_owned(), None)]);
    }

    #[test]
    fn a_variable_that_no_program_takes_drops_itself() {
        let told = |length: usize| read(&format!("{{\"LONG\": \"{}\", \"B\": 1}}", "x".repeat(length)));
        // `LONG=`, the value and the byte at its end.
        let (steps, left_out) = told((128 << 10) - 6);
        assert_eq!((steps.len(), left_out.len()), (2, 0));
        for length in [(128 << 10) - 5, 200_000] {
            let (steps, left_out) = told(length);
            assert_eq!(steps, [("B".to_owned(), Some("1".to_owned()))]);
            assert!(left_out.len() == 1 && left_out[0].contains("`LONG`"), "{left_out:?}");
        }
    }

    #[test]
    fn one_bad_variable_drops_itself_alone() {
        for (json, culprit) in [
            (r#""PATH": "/x""#, "`PATH`"),
            (r#""CONDA_PREFIX": "/x""#, "`CONDA_PREFIX`"),
            (r#""A B": "c""#, "`A B`"),
            (r#""1A": "c""#, "`1A`"),
            (r#""A=B": "c""#, "`A=B`"),
            (r#""": "c""#, "``"),
            (r#""A": [1]"#, "`A`"),
            (r#""A": {}"#, "`A`"),
            (r#""A": "\u0000""#, "`A`"),
        ] {
            let (steps, left_out) = read(&format!("{{{json}, \"GOOD\": 1}}"));
            assert_eq!(steps, [("GOOD".to_owned(), Some("1".to_owned()))], "{json}");
            assert!(left_out.len() == 1 && left_out[0].contains(culprit), "{json}: {left_out:?}");
        }
        for wrong in ["[]", "", "{", "1", "{\"A\": xNaN}"] {
            assert!(parse_variables("x", wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
