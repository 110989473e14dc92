//! What to say when packages need a virtual package that the target does not have, or not as it must be.

/// How a virtual package is declared, for a hint.
pub fn how_to_declare(name: &str) -> String {
    match name {
        "__cuda" => "no GPU is assumed: declare the driver of the machine with `--cuda VERSION`".to_owned(),
        "__glibc" => "the C library is that of the base image: take a newer base, or declare one with `--glibc VERSION`".to_owned(),
        "__archspec" => "if all machines have that processor, declare it: `--platform linux/amd64/v3` (or v2, v4), else `--virtual-package __archspec=1=NAME`".to_owned(),
        name => format!("if the machine has it, declare it: `--virtual-package {name}=VERSION`"),
    }
}

/// The names of virtual packages in a text, sorted, each once.
pub fn virtual_packages_in(text: &str) -> Vec<&str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let words = text.split(|char| !is_part(char));
    let mut names: Vec<&str> = words.filter(|word| word.len() > 2 && word.starts_with("__")).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_virtual_package_has_a_flag() {
        assert_eq!(virtual_packages_in("a needs __linux >=5, `__cuda` and __linux; x__y"), ["__cuda", "__linux"]);
        for (name, flag) in [
            ("__cuda", "--cuda VERSION"),
            ("__glibc", "--glibc VERSION"),
            ("__archspec", "--platform linux/amd64/v3"),
            ("__linux", "--virtual-package __linux=VERSION"),
        ] {
            assert!(how_to_declare(name).contains(flag), "{name}");
        }
    }
}
