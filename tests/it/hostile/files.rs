//! Files of a project: environments, settings, policies, requirements, locks.

use std::process::Command;

use super::{Case, Refused, Row, row};

pub fn rows() -> Vec<Row> {
    vec![
        row("environment.yml of 200,000 packages", packages, Refused(&["environment.yml:", "--limit dependencies="])),
        row("environment.yml of 20 MiB", long, Refused(&["environment.yml", "--limit environment-file="])),
        row("environment.yml of 3,000,000 values", values, Refused(&["environment.yml", "--limit yaml-nodes="])),
        row("environment.yml with 900 kB of `[`, one a line", brackets, Refused(&["--limit yaml-brackets="])),
        row("environment.yml with brackets that comments hide", hidden, Refused(&["--limit yaml-brackets="])),
        row("environment.yml with 100,000 `%TAG`", directives, Refused(&["environment.yml", "directives"])),
        row("environment.yml whose aliases grow", aliases, Refused(&["environment.yml:"])),
        row("environment.yml nested 100,000 times", nested, Refused(&["environment.yml:"])),
        row("condaimg.yaml with 900 kB of `{`", settings, Refused(&["condaimg.yaml", "--limit yaml-brackets="])),
        row("layer policy with 60 kB of `[`", policy, Refused(&["policy.yaml", "--limit yaml-brackets="])),
        row("condaimg.lock with 60 kB of `[`", lock, Refused(&["condaimg.lock", "--limit yaml-brackets="])),
        row("condaimg.lock of 3,000,000 values", lock_values, Refused(&["condaimg.lock", "--limit yaml-nodes="])),
        row("condaimg.lock of 100 MiB", long_lock, Refused(&["condaimg.lock", "--limit lock-file="])),
        row("pixi.lock with 60 kB of `[`", pixi, Refused(&["pixi.lock", "--limit yaml-brackets="])),
        row("conda-lock.yml with 60 kB of `[`", conda_lock, Refused(&["conda-lock.yml", "--limit yaml-brackets="])),
        row("explicit list of 200,000 URLs", explicit, Refused(&["explicit.txt", "--limit dependencies="])),
        row("requirements file of 200,000 lines", requirements, Refused(&["--limit dependencies="])),
        row("requirements files that name each other 10^9 times", nested_requirements, Refused(&["--limit "])),
        row("named pipe as environment.yml", pipe_environment, Refused(&["environment.yml", "named pipe"])),
        row("device as an environment", device, Refused(&["/dev/zero", "device"])),
        row("named pipe as condaimg.lock", pipe_lock, Refused(&["condaimg.lock", "named pipe"])),
        row("named pipe as a layer policy", pipe_policy, Refused(&["policy.yaml", "named pipe"])),
        row("named pipe as a requirements file", pipe_requirements, Refused(&["more.txt", "named pipe"])),
    ]
}

fn environment(case: &mut Case, text: &str) -> Command {
    case.workspace.file("environment.yml", text);
    case.build_here()
}

fn packages(case: &mut Case) -> Command {
    let lines: String = (0..200_000).map(|number| format!(" - p{number}\n")).collect();
    environment(case, &format!("dependencies:\n{lines}"))
}

fn long(case: &mut Case) -> Command {
    environment(case, &format!("dependencies: [fine]\n#{}\n", "x".repeat(20 << 20)))
}

fn values(case: &mut Case) -> Command {
    environment(case, &format!("dependencies: [fine]\nother: [{}]\n", "a,".repeat(1_600_000)))
}

fn brackets(case: &mut Case) -> Command {
    environment(case, &format!("dependencies: {}", "[\n".repeat(450_000)))
}

fn hidden(case: &mut Case) -> Command {
    environment(case, &format!("dependencies: [\n{}", "[ # ]\n".repeat(60_000)))
}

fn directives(case: &mut Case) -> Command {
    let lines: String = (0..100_000).map(|number| format!("%TAG !a{number}! tag:x,1:\n")).collect();
    environment(case, &format!("{lines}---\ndependencies: [fine]\n"))
}

fn aliases(case: &mut Case) -> Command {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for number in 1..12 {
        let before = format!("*a{}", number - 1);
        text += &format!("a{number}: &a{number} [{}]\n", vec![before; 10].join(", "));
    }
    environment(case, &format!("{text}dependencies: *a11\n"))
}

fn nested(case: &mut Case) -> Command {
    environment(case, &format!("dependencies:\n{}fine\n", "- ".repeat(100_000)))
}

fn settings(case: &mut Case) -> Command {
    case.workspace.file("condaimg.yaml", format!("dependencies: {}", "{a:\n".repeat(225_000)));
    let mut command = case.build_here();
    command.arg("condaimg.yaml");
    command
}

fn policy(case: &mut Case) -> Command {
    case.workspace.file("policy.yaml", format!("tiers: {}", "[".repeat(60_000)));
    let mut command = case.build_fine();
    command.args(["--layers", "./policy.yaml"]);
    command
}

fn with_lock(case: &mut Case, text: &str) -> Command {
    case.workspace.file("condaimg.lock", text);
    let mut command = case.build_fine();
    command.arg("--locked");
    command
}

fn lock(case: &mut Case) -> Command {
    with_lock(case, &format!("version: 6\ncondaimg: {}", "[".repeat(60_000)))
}

fn lock_values(case: &mut Case) -> Command {
    with_lock(case, &format!("version: 6\ncondaimg:\n{}", "- a\n".repeat(1_500_000)))
}

fn long_lock(case: &mut Case) -> Command {
    with_lock(case, &format!("version: 6\n#{}\n", "x".repeat(100 << 20)))
}

/// A build of what another tool locked.
fn of(case: &mut Case, name: &str, text: &str) -> Command {
    case.workspace.file(name, text);
    let mut command = case.build_here();
    command.arg(name);
    command
}

fn pixi(case: &mut Case) -> Command {
    of(case, "pixi.lock", &format!("version: 6\nenvironments: {}", "[".repeat(60_000)))
}

fn conda_lock(case: &mut Case) -> Command {
    of(case, "conda-lock.yml", &format!("version: 1\nmetadata: {{}}\npackage: {}", "[".repeat(60_000)))
}

fn explicit(case: &mut Case) -> Command {
    let lines: String =
        (0..200_000).map(|number| format!("https://host.example/c/noarch/p{number}-1-0.conda\n")).collect();
    of(case, "explicit.txt", &format!("# platform: linux-64\n@EXPLICIT\n{lines}"))
}

fn requirements(case: &mut Case) -> Command {
    let lines: String = (0..200_000).map(|number| format!("p{number}\n")).collect();
    let mut command = of(case, "requirements.txt", &lines);
    command.args(["--python", "3.11"]);
    command
}

fn nested_requirements(case: &mut Case) -> Command {
    for level in 0..9 {
        case.workspace.file(&format!("r{level}.txt"), format!("-r r{}.txt\n", level + 1).repeat(10));
    }
    case.workspace.file("r9.txt", format!("fine\n#{}\n", "x".repeat(1 << 20)));
    let mut command = of(case, "requirements.txt", "-r r0.txt\n");
    command.args(["--python", "3.11"]);
    command
}

fn pipe_environment(case: &mut Case) -> Command {
    case.pipe("environment.yml");
    let mut command = case.build_here();
    command.arg("environment.yml");
    command
}

fn device(case: &mut Case) -> Command {
    let mut command = case.build_here();
    command.arg("/dev/zero");
    command
}

fn pipe_lock(case: &mut Case) -> Command {
    case.pipe("condaimg.lock");
    case.build_fine()
}

fn pipe_policy(case: &mut Case) -> Command {
    case.pipe("policy.yaml");
    let mut command = case.build_fine();
    command.args(["--layers", "./policy.yaml"]);
    command
}

fn pipe_requirements(case: &mut Case) -> Command {
    case.pipe("more.txt");
    environment(case, "dependencies:\n  - fine\n  - pip:\n    - -r more.txt\n")
}
