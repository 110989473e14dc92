//! Docker takes images of 125 layers.

use super::*;
use crate::common::daemons::Daemon;

/// A base with so many layers.
fn base_of(layers: usize) -> Variant {
    let workspace = Workspace::new();
    let more = layers - variants::example_layers().len();
    let tars: Vec<Vec<u8>> = (0..more).map(|number| tar(&[File(&format!("var/layer{number}"), "x")])).collect();
    let base = variants::base(&workspace.path("base"), &tars, json!({}));
    Variant::on(workspace, base)
}

fn count(variant: &Variant) -> usize {
    variant.layout().layers().len()
}

#[test]
fn max_layers_is_lowered_to_what_the_base_leaves() {
    let base = base_of(122);
    let told = base.built(&[]);
    assert_eq!(told.matches("`--max-layers` is 3 instead of 32").count(), 1, "{told}");
    assert!(count(&base) <= 125);
    assert!(!base.built(&["--max-layers", "3"]).contains("instead of"));
    let error = fail(&mut base.build(&["--max-layers", "4"]), 2);
    assert!(error.contains("--max-layers 4") && error.contains("122 layers"), "{error}");
    // What is recorded fits, so that the image's own lock builds it again.
    let archive = base.workspace.path("image.tar");
    base.built(&["--output", &format!("docker-archive:{}", archive.display()), "--tag", "registry.example/many:1"]);
    let docker = Daemon::docker("docker-many");
    succeed(docker.client().args(["load", "--quiet", "--input"]).arg(&archive));
    let mut run = docker.client();
    run.args(["run", "--rm", "--network=none", "--user=1234:1234", "registry.example/many:1", "sh", "-c"]);
    assert_eq!(succeed(run.arg("cd && echo text >x && cat x /var/layer0")), "text\nx");
}

#[test]
fn base_without_room_is_refused() {
    let error = fail(&mut base_of(124).build(&[]), 1);
    assert!(error.contains("124") && error.contains("125"), "{error}");
    let two = base_of(123);
    two.workspace.file("plug/x", "");
    let error = fail(&mut two.build(&["--copy", "plug:/app"]), 1);
    assert!(error.contains("123 layers") && error.contains("--copy"), "{error}");
    two.built(&[]);
    assert_eq!(count(&two), 125);
    // The image is full: nothing extends it.
    let full = two.layout().image();
    let mut from = two.workspace.condaimg();
    from.args(["build", "--override-channels", "--channel"]).arg(example_channel());
    let error = fail(from.args(["--from", &full, "--output", "oci:other"]), 1);
    assert!(error.contains("125") && error.contains("layers"), "{error}");
}
