//! What a condaimg.yaml says goes where no flag, and no variable, says anything.

use std::path::Path;

use crate::cli::args::{BytecodeArg, EnvironmentArgs, PriorityArg};
use crate::model::BaseRef;
use crate::registry::Registry;
use crate::spec::{Settings, Target};
use crate::util::{Error, Result, redact};

/// Completes the arguments.
///
/// # Errors
/// What is wrong in the file, with its place.
pub fn fill(mut args: EnvironmentArgs, file: &Settings) -> Result<EnvironmentArgs> {
    let from = file.from.as_deref().map(|text| file.at("from", base(text, file))).transpose()?;
    let named = file.base.as_deref().map(|text| file.at("base", base(text, file))).transpose()?;
    if from.is_some() && named.is_some() {
        let error = Error::user("`base:` and `from:` exclude each other");
        return file.at("from", Err(error.hint("`from:` extends the environment of an image, which is the base then")));
    }
    // A flag of the one takes the place of the other, too.
    if args.from.is_none() && args.base.is_none() {
        for (key, text) in [("from", &file.from), ("base", &file.base)] {
            let path = text.as_deref().and_then(|text| text.parse::<BaseRef>().ok()?.path().map(Path::to_owned));
            if let Some(path) = path.as_ref().and_then(|path| path.to_str()) {
                file.at(key, file.path_inside(path).map(drop))?;
            }
        }
        (args.from, args.base) = (from, named);
    }
    args.prefix = args.prefix.or_else(|| file.prefix.clone());
    if args.platforms.is_empty() {
        args.platforms.clone_from(&file.platforms);
    }
    let Target { cuda, glibc, virtual_packages } = &file.target;
    args.cuda = args.cuda.or_else(|| cuda.clone());
    args.glibc = args.glibc.or_else(|| glibc.clone());
    args.virtual_package = merged(virtual_packages, args.virtual_package);
    args.channel_priority = args.channel_priority.or_else(|| match file.channel_priority.as_deref()? {
        "flexible" => Some(PriorityArg::Flexible),
        "disabled" => Some(PriorityArg::Disabled),
        _ => Some(PriorityArg::Strict),
    });
    args.exclude_newer = args.exclude_newer.or_else(|| file.exclude_newer.clone());
    args.allow_clobber.extend(file.allow_clobber.iter().cloned());
    args.allow_build |= file.allow_build.unwrap_or_default();
    // It has one value, `never`.
    args.no_build |= file.build.is_some();
    let switch = |on| if on { BytecodeArg::On } else { BytecodeArg::Off };
    args.bytecode = args.bytecode.or_else(|| file.bytecode.map(switch));
    Ok(args)
}

/// What to tell of a variable that names a base where the file names one of the other kind: it comes first, as it does
/// for every key, but says more here than another value.
pub fn outdone_base(args: &EnvironmentArgs, file: &Settings) -> Option<String> {
    let name = args.base_variable()?;
    let (key, text) = match name {
        "CONDAIMG_BASE" => ("from", file.from.as_ref()?),
        _ => ("base", file.base.as_ref()?),
    };
    let text = redact::text(text);
    Some(format!(
        "`{name}` comes before `{key}: {text}` of the file, which is not used: give `--{key} {text}` to use it"
    ))
}

/// A base as a flag names it: its path begins in the working folder.
fn base(text: &str, file: &Settings) -> Result<String> {
    Ok(match text.parse::<BaseRef>()? {
        BaseRef::Registry(reference) => Registry::parse(&reference)?.to_string(),
        local => local.beginning_in(file.folder()).to_string(),
    })
}

/// The file's pairs and those of flags, which come after: of one name, the flag's alone.
pub fn merged<'a>(file: impl IntoIterator<Item = (&'a String, &'a String)>, flags: Vec<String>) -> Vec<String> {
    let given = |name: &str| flags.iter().any(|flag| flag.split_once('=').is_some_and(|(given, _)| given == name));
    let file = file.into_iter().filter(|(name, _)| !given(name)).map(|(name, value)| format!("{name}={value}"));
    file.collect::<Vec<_>>().into_iter().chain(flags).collect()
}
