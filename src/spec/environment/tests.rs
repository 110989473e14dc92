use super::*;

fn read(text: &str) -> Result<Spec> {
    parse(PathBuf::from("environment.yml"), text.to_owned(), &Choices::default())
}

fn message(text: &str) -> String {
    read(text).expect_err("refused").to_string()
}

#[test]
fn a_full_file_is_read() {
    let spec = read(concat!(
        "name: analysis\n",
        "channels:\n  - conda-forge\n  - nodefaults\n",
        "dependencies:\n  - python=3.11  # [linux]\n  - pip\n  - pip:\n    - a>=1\n    - ./b\n  - pytorch::pytorch=1.12.0\n",
        "variables:\n  A: 1.10\n  B: yes\n  C: \"quoted\"\n  D:\n",
        "prefix: /home/me/env\n",
        "colour: blue\n",
    ))
    .expect("reads");
    assert_eq!(spec.name.as_deref(), Some("analysis"));
    assert_eq!(spec.channels, ["conda-forge", "nodefaults"]);
    let texts: Vec<_> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
    assert_eq!(texts, ["python=3.11", "pip", "pytorch::pytorch=1.12.0"]);
    assert_eq!(spec.place_of(0), "environment.yml:6");
    let pip: Vec<_> = spec.pip.requirements.iter().map(|it| (it.place.as_str(), it.text.as_str())).collect();
    assert_eq!(pip, [("environment.yml:9", "a>=1"), ("environment.yml:10", "./b")]);
    let variables: Vec<_> = spec.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(variables, [("A", "1.10"), ("B", "yes"), ("C", "quoted"), ("D", "")]);
    assert_eq!(spec.notices.len(), 2);
    assert!(spec.notices[0].contains("`prefix:` is ignored"));
    assert!(spec.notices[1].contains("`colour:`"));
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, expected) in [
        ("dependencies:\n  - python\n - numpy\n", "environment.yml:3:2: "),
        ("dependencies:\n  - python\n  - [a]\n", "environment.yml:3:5: dependencies[1]: invalid type: sequence"),
        ("dependencies:\n  - 3.11\n", "environment.yml:2:5: dependencies[0]: invalid type: floating point"),
        ("dependencies:\n  -\n", "environment.yml:2:4: nothing stands behind this `-`"),
        ("dependencies:\n  - a\n  - ~\n", "environment.yml:3:5: nothing stands behind this `-`"),
        ("dependencies:\n  - {}\n", "environment.yml:2:5: this item is empty"),
        ("dependencies:\n", "environment.yml:1:14: nothing stands behind `dependencies:`"),
        ("name: a\ndependencies: ~\n", "environment.yml:2:15: nothing stands behind `dependencies:`"),
        ("dependencies:\n  - pip:\n  - a\n", "environment.yml:2:9: nothing stands behind `pip:`"),
        ("dependencies:\n  - sel(bsd): a\n", "environment.yml:2:5: `sel(bsd):` selects by `bsd`"),
        ("dependencies:\n  - sel(linux): [a]\n", "environment.yml:2:17: "),
        ("dependencies:\n  - sel(linux): a==b==c\n", "`a==b==c` is no package specification"),
        ("dependencies:\n  - pip: [a]\n    sel(win): b\n", "stands in one item with another key"),
        ("dependencies:\n  - a={{ a }}\n", "environment.yml:2:5: `a={{ a }}` is no package specification: templates"),
        ("dependencies:\n  - {{ a }}\n", "environment.yml:2:"),
        ("{% set a = 1 %}\ndependencies: [a]\n", "environment.yml:1:"),
        ("dependencies:\n  - pip\n    - a\n", "environment.yml:2:5: `pip - a` is no package specification: a list"),
        (
            "dependencies: python\n",
            "environment.yml:1:15: dependencies: invalid type: string \"python\", expected a list",
        ),
        ("dependencies:\n  - numpy==1.2==3\n", "environment.yml:2:5: `numpy==1.2==3` is no package specification"),
        ("dependencies:\n  - num*\n", "is no package specification"),
        ("dependencies:\n  - https://host/linux-64/a-1-0.conda\n", "by URL are not supported"),
        ("dependencies:\n  - python: 3.11\n", "environment.yml:2:5: `python:` is neither"),
        (
            "dependencies:\n  - pip\n  - pip:\n    - requests\n    - requests==\n",
            "environment.yml:5: `requests==` is no requirement",
        ),
        ("dependencies:\n  - pip:\n    - [a]\n", "environment.yml:3:7: dependencies[0].pip[0]: invalid type"),
        ("dependencies:\n  - pip:\n    -\n", "environment.yml:3:6: "),
        ("name: a\nname: b\n", "environment.yml:2:1: `name:` stands here a second time"),
        ("variables:\n  A: 1\n  A: 2\n", "environment.yml:3:3: the variable `A` is set a second time"),
        ("variables:\n  A: [1]\n", "environment.yml:2:6: variables.A: invalid type: sequence"),
        ("channels:\n  - \n", "environment.yml:2:4: a channel is missing here"),
        ("a: 1\n---\nb: 1\n", "more than one YAML document"),
        ("- python\n", "environment.yml:1:1: the file holds a list"),
        ("python\n", "environment.yml:1:1: the file holds a text"),
        ("dependencies: *nothing\n", "environment.yml:1:15: unknown anchor"),
        ("dependencies: [\n", "environment.yml:2:1: "),
    ] {
        let message = message(text);
        assert!(message.contains(expected), "{text:?}: {message}");
    }
}

#[test]
fn a_file_without_dependencies_is_refused() {
    for (text, expected, hint) in [
        ("name: a\n", "environment.yml: there is no `dependencies:`", "`dependencies: []`"),
        ("depencencies: [a]\n", "environment.yml:1:1: `depencencies:` is no key", "did you mean `dependencies:`?"),
        ("Dependencies: [a]\n", "environment.yml:1:1: `Dependencies:` is no key", "did you mean `dependencies:`?"),
        ("name: a\npackages:\n  - a\n", "environment.yml:2: there is no `dependencies:`", "by `packages:`?"),
        ("{\"name\": \"a\",\n\"deps\": []}\n", "environment.yml:2: there is no", "by `deps:`?"),
        ("dependencies: [a]\nchanels: [b]\n", "environment.yml:2:1: `chanels:` is no key", "`channels:`?"),
        ("dependencies: [a]\nvariable: {A: b}\n", "environment.yml:2:1: `variable:` is no key", "`variables:`?"),
        ("dependencies: [a]\npip: [b]\n", "environment.yml:2:1: `pip:`", "`- pip:`"),
        ("pip:\n  - b\n", "environment.yml:1:1: `pip:`", "`- pip:`"),
        ("dependencies: [a]\npip_dependencies: [b]\n", "environment.yml:2:1: `pip_dependencies:`", "`- pip:`"),
        ("dependencies: [a]\nPyPI: [b]\n", "environment.yml:2:1: `PyPI:`", "`- pip:`"),
        ("dependencies:\n- sel(osx): foo\n", "environment.yml: no dependency is for Linux", "`dependencies: []`"),
        ("services: {a: {image: b}}\n", "is a Compose file", "environment.yml"),
        ("package: {name: a}\nrequirements: {run: [b]}\n", "is a recipe", "build the recipe"),
        ("version: 1\npackage:\n- name: a\n", "is a conda-lock.yml without `metadata:`", "make the file again"),
    ] {
        let error = read(text).expect_err(text);
        assert!(error.to_string().contains(expected), "{text:?}: {error}");
        assert!(error.hints().join("\n").contains(hint), "{text:?}: {:?}", error.hints());
    }
    for text in ["dependencies: []\n", "dependencies: [a]\nchannel: b\n".replace("channel:", "colour:").as_str()] {
        assert!(read(text).is_ok(), "{text}");
    }
}

#[test]
fn selectors_choose_what_is_for_linux() {
    let text =
        "dependencies:\n- pip: [x]\n- sel(linux): a\n- sel(win): b\n- sel( unix ): c=1\n- d  # [win]\n- e # [linux]\n";
    let spec = read(text).expect("reads");
    let texts: Vec<_> = spec.dependencies.iter().map(|dependency| dependency.text.as_str()).collect();
    assert_eq!(texts, ["a", "c=1", "d", "e"]);
    assert_eq!(
        (0..4).map(|at| spec.place_of(at)).collect::<Vec<_>>(),
        [3, 5, 6, 7].map(|line| format!("environment.yml:{line}"))
    );
    assert!(spec.notices.iter().any(|notice| notice.contains("leave out `b`")), "{:?}", spec.notices);
    assert!(spec.notices.iter().any(|notice| notice.contains("`# [win]` (line 6)")), "{:?}", spec.notices);
}

#[test]
fn tabs_get_a_hint() {
    let error = read("dependencies:\n\t- python\n").expect_err("refused");
    assert!(error.hints().iter().any(|hint| hint.contains("tabs")), "{error} {:?}", error.hints());
}

#[test]
fn aliases_cannot_explode() {
    let mut text = String::from("dependencies: []\nother:\n- &a [x,x,x,x,x,x,x,x,x]\n");
    for (name, of) in ('b'..='z').zip('a'..='y') {
        text.push_str(&format!("- &{name} [*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of},*{of}]\n"));
    }
    assert!(read(&text).is_ok(), "ignored keys are not expanded");

    let long = "x".repeat(1_900);
    let text = format!("dependencies:\n- &a {long}\n{}", "- *a\n".repeat(20_000));
    assert!(message(&text).contains("beyond all measure"));
}
