//! One form of the URL of an archive. Tools write the name of a file with more or fewer percent escapes than it needs
//! (`x264-1%21164.3095-0.conda` for `x264-1!164.3095-0.conda`); what the name tells, and whether two URLs are the same,
//! must not depend on that. Channels' indexes are joined to URLs as here: with those escapes that a path needs.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

/// The URL with the name of its file in the one form.
pub fn plain(url: &Url) -> Url {
    let name = url.path_segments().and_then(Iterator::last).unwrap_or_default();
    let Some(decoded) = decoded(name) else { return url.clone() };
    let mut plain = url.clone();
    if let Ok(mut segments) = plain.path_segments_mut() {
        segments.pop().push(&decoded);
    }
    plain
}

/// The text of a file with the URLs of conda's archives in the one form.
pub fn plain_within(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        clean.push_str(&plain_line(line).unwrap_or(Cow::Borrowed(line)));
    }
    Cow::Owned(clean)
}

fn plain_line(line: &str) -> Option<Cow<'_, str>> {
    let begin = line.find("://")?;
    let is_end = |char: char| char.is_whitespace() || "\"'#?,]}".contains(char);
    let end = line[begin..].find(is_end).map_or(line.len(), |at| begin + at);
    let name_begin = line[..end].rfind('/')? + 1;
    let name = &line[name_begin..end];
    let is_archive = name.ends_with(".conda") || name.ends_with(".tar.bz2");
    let decoded = decoded(name).filter(|_| is_archive)?;
    // As a path of a URL has it.
    let mut url = Url::parse("file:///").ok()?;
    url.path_segments_mut().ok()?.push(&decoded);
    let name = url.path_segments()?.next_back()?.to_owned();
    Some(Cow::Owned(format!("{}{name}{}", &line[..name_begin], &line[end..])))
}

/// A name without escapes, if it has some, and if it is a name then.
fn decoded(name: &str) -> Option<String> {
    let decoded = percent_decode_str(name).decode_utf8().ok()?;
    let is_name = !decoded.is_empty() && !matches!(&*decoded, "." | "..") && !decoded.contains(['/', '\\', '\0']);
    (name.contains('%') && is_name).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_escapes_that_they_need() {
        for (given, expected) in [
            ("https://h/c%20d/linux-64/x264-1%21164.3-0.conda", "https://h/c%20d/linux-64/x264-1!164.3-0.conda"),
            ("https://h/noarch/a-1.0%2Bcu%201-0.conda", "https://h/noarch/a-1.0+cu%201-0.conda"),
            ("https://h/noarch/a-1%2F..%2Fb-0.conda", "https://h/noarch/a-1%2F..%2Fb-0.conda"),
            ("https://h/noarch/%2E%2E", "https://h/"),
            ("file:///a%20b/noarch/a-1%21-0.conda", "file:///a%20b/noarch/a-1!-0.conda"),
            ("https://h/noarch/a-%FF-0.conda", "https://h/noarch/a-%FF-0.conda"),
        ] {
            assert_eq!(plain(&Url::parse(given).expect("a URL")).as_str(), expected);
        }
        for (given, expected) in [
            ("- conda: https://h/c/x-1%212-0.conda\n  a: 5%21\n", "- conda: https://h/c/x-1!2-0.conda\n  a: 5%21\n"),
            ("- pypi: https://h/x-1%212-py3-none-any.whl\n", "- pypi: https://h/x-1%212-py3-none-any.whl\n"),
            ("- url: \"https://h/c/x-1%212-0.tar.bz2#md5\"", "- url: \"https://h/c/x-1!2-0.tar.bz2#md5\""),
            ("no escapes: 100", "no escapes: 100"),
        ] {
            assert_eq!(plain_within(given), expected);
        }
    }
}
