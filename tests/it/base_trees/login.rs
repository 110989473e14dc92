//! Login shells find the environment.

use super::*;
use crate::common::program;

/// Debian's, as `base-files` has it.
const PROFILE: &str = r#"if [ "$(id -u)" -eq 0 ]; then
  PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
  PATH="/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
fi
export PATH
if [ -d /etc/profile.d ]; then
  for i in /etc/profile.d/*.sh; do
    if [ -r $i ]; then
      . $i
    fi
  done
  unset i
fi
"#;

const BIN: &str = "/opt/conda/envs/default/bin";

fn debian() -> Variant {
    let items = [File("etc/profile", PROFILE), Folder("etc/profile.d", 0o755, 0, 0)];
    Variant::new(&items, json!({"Env": ["PATH=/opt/tools/bin:/usr/bin:/bin"]}))
}

#[test]
fn login_shell_has_path_and_variables() {
    let base = debian();
    base.built(&["--env", "NAME=it's $HOME"]);
    let expected = format!("{BIN}:/opt/tools/bin:/usr/bin:/bin:/usr/local/bin:/usr/local/games:/usr/games");
    assert_eq!(base.run(&[], "sh -lc 'echo $PATH'"), format!("{expected}\n"));
    // As `su -` does: nothing is handed on.
    let printed = base.run(&["--user=5:5"], "env -i HOME=/ sh -lc 'echo $PATH; echo $CONDA_PREFIX $NAME $HOME'");
    assert_eq!(printed, format!("{expected}\n/opt/conda/envs/default it's $HOME /\n"));
    // Who sets something for a run has it.
    assert_eq!(base.run(&["--env=NAME=mine"], "sh -lc 'echo $NAME'"), "mine\n");
    // Bases without the directory get none.
    let plain = node();
    plain.built(&[]);
    assert!(!plain.texts().keys().any(|path| path.contains("profile.d")));
}

#[test]
fn login_script_runs_in_every_shell() {
    let base = debian();
    base.built(&[]);
    let script = base.workspace.file("condaimg.sh", &base.texts()["etc/profile.d/condaimg.sh"]);
    let shells = [
        ("dash", "dash", &[][..]),
        ("bash", "bash", &["--posix"]),
        ("bash", "bash", &[]),
        ("busybox", "busybox", &["sh"]),
    ];
    let image = format!("{BIN}:/opt/tools/bin:/usr/bin:/bin");
    for (shell, package, flags) in shells {
        // What comes after is what a shell started with -eu has of it, twice.
        let path = |path: Option<&str>| {
            let mut command = program(shell, package);
            command.env_clear().env("LC_ALL", "C").args(flags).args(["-euc", r#". "$1"; . "$1"; echo "$PATH""#, "sh"]);
            if let Some(path) = path {
                command.env("PATH", path);
            }
            succeed(command.arg(&script)).trim_end().to_owned()
        };
        assert_eq!(path(Some("/usr/bin:/x y/bin:/usr/bin")), format!("{image}:/x y/bin"), "{shell} {flags:?}");
        assert_eq!(path(Some("/*:/bin")), format!("{image}:/*"), "{shell} {flags:?}");
        // It has the environment: somebody put it where it is.
        let own = format!("/mine:{BIN}:/bin");
        assert_eq!(path(Some(&own)), own, "{shell} {flags:?}");
    }
}
