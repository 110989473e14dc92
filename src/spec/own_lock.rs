//! A lock of condaimg as what an image is made of: nothing is asked anew, and what the lock recorded of an earlier
//! build (it does when it is attached to an image) is what this one does where no flag says something else.

use std::path::Path;

use super::{Settings, Spec};
use crate::lock;
use crate::util::{Error, Result, ResultExt as _};

/// Reads the text of a lock.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(file: &Path, text: &str) -> Result<Spec> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = std::path::absolute(folder)?;
    let locks = lock::parse(text, &folder)
        .context(|| format!("the lock `{}` cannot be used", file.display()))
        .map_err(|error| error.hint("make it again from what it was made from"))?;
    let Some(first) = locks.iter().next() else {
        return Err(Error::user(format!("the lock `{}` is for no platform", file.display()))
            .hint("make it again from what it was made from"));
    };
    let mut settings = lock::recorded_parameters(text)?.map(Settings::recorded).unwrap_or_default();
    // Of a base that lay on another machine, an image's lock knows the digest alone.
    let base = &first.base;
    let reference = (base.reference != base.digest.to_string()).then(|| base.reference.clone());
    (settings.from, settings.base) = match first.extended() {
        Some(_) => (reference, None),
        None => (None, reference),
    };
    settings.platforms = locks.platforms();
    Ok(Spec {
        file: file.to_owned(),
        channels: first.channels.clone(),
        variables: first.variables.clone(),
        settings,
        is_lock: true,
        ..Spec::default()
    })
}
