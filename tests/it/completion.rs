//! What the shells offer after TAB: bash, zsh and fish themselves, with the committed scripts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::common::{Export, Start, program, shown, stderr, stdout};

/// A shell with our program where its script looks for it, in a directory of its own.
fn shell(argv: &[&str], directory: &Path, variables: &[(&str, &str)]) -> Output {
    let ours = Path::new(program()).parent().unwrap();
    let path = format!("{}:{}", shown(ours), std::env::var("PATH").unwrap());
    // A shell that waits for what does not come must not hold the tests up.
    let output = Command::new("timeout")
        .arg("60")
        .args(argv)
        .current_dir(directory)
        .env("PATH", path)
        .env("TERM", "dumb")
        .env("HOME", directory)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    assert!(
        output.status.code() != Some(127),
        "{}: is {} installed (apt-get install zsh fish)?",
        stderr(&output),
        argv[0]
    );
    output
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tools/completions")
        .join(name)
}

/// What bash puts on the command line for the last of these words.
fn bash(directory: &Path, words: &[&str]) -> Vec<String> {
    let asked = r#"
        . "$SCRIPT"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        _virtfs_mediator virtfs-mediator "${@: -1}" ""
        printf '%s\n' "${COMPREPLY[@]}""#;
    let argv = [&["bash", "--norc", "-c", asked, "bash"], words].concat();
    let output = shell(
        &argv,
        directory,
        &[("SCRIPT", &shown(&script("virtfs-mediator.bash")))],
    );
    stdout(&output).lines().map(str::to_owned).collect()
}

/// What fish offers at the end of a line, without what it says of it.
fn fish(directory: &Path, line: &str) -> Vec<String> {
    let asked = "source $SCRIPT; complete -C $LINE";
    let output = shell(
        &["fish", "--no-config", "-c", asked],
        directory,
        &[
            ("SCRIPT", &shown(&script("virtfs-mediator.fish"))),
            ("LINE", line),
        ],
    );
    let offered = stdout(&output);
    let names = offered.lines().map(|line| line.split('\t').next().unwrap());
    names.map(str::to_owned).collect()
}

/// What zsh makes of a line when TAB is pressed at its end, the first that is completed in it: the
/// function is loaded by its name then.
fn zsh(directory: &Path, line: &str) -> String {
    let functions = script("_virtfs-mediator");
    let asked = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell 'PS1= PS2= fpath=($FUNCTIONS $fpath); autoload -U compinit; compinit -D -u; bindkey "^I" complete-word "^X" print; print-buffer() { print -r -- "<$BUFFER>" }; zle -N print-buffer; bindkey "^X" print-buffer; print -r -- set""up'
        zpty -r shell out '*setup*'
        zpty -n -w shell "$LINE"$'\t\x18'
        zpty -r shell out '*<virtfs-mediator*>*'
        zpty -d shell
        print -r -- "$out""#;
    let output = shell(
        &["zsh", "-f", "-c", asked],
        directory,
        &[
            ("FUNCTIONS", &shown(functions.parent().unwrap())),
            ("LINE", line),
        ],
    );
    let seen = stdout(&output);
    let typed = seen
        .rsplit_once("<virtfs-mediator")
        .and_then(|(_, rest)| rest.split_once('>'));
    let (typed, _) = typed.unwrap_or_else(|| panic!("{seen:?} {}", stderr(&output)));
    format!("virtfs-mediator{typed}")
}

#[test]
fn names_of_running_views_are_offered_by_every_shell() {
    let export = Export::new();
    let view = Start::new(&export).mount();
    let name = view.name.clone();
    let part = &name[..name.len() - 1];
    let here = export.beside("");
    for command in [
        "enter", "unmount", "status", "reload", "trace", "step", "metrics",
    ] {
        let offered = bash(&here, &["virtfs-mediator", command, part]);
        assert!(offered.contains(&view.name), "bash {command}: {offered:?}");
        let offered = fish(&here, &format!("virtfs-mediator {command} {part}"));
        assert!(offered.contains(&view.name), "fish {command}: {offered:?}");
    }
    let typed = zsh(&here, &format!("virtfs-mediator status {}", view.name));
    assert_eq!(
        typed.trim_end(),
        format!("virtfs-mediator status {}", view.name)
    );
    drop(view);
    assert!(!bash(&here, &["virtfs-mediator", "enter", part]).contains(&name));
}

#[test]
fn shipped_policies_users_programs_and_commands_are_offered_by_every_shell() {
    let export = Export::new();
    let here = export.beside("");
    for (line, wanted) in [
        ("virtfs-mediator policy init reado", "readonly"),
        ("virtfs-mediator run --client nobod", "nobody"),
        ("virtfs-mediator run /srv -- setpri", "setpriv"),
        ("virtfs-mediator run /srv --dat", "--data"),
        ("virtfs-mediator unmou", "unmount"),
        ("virtfs-mediator run --cache exclu", "exclusive"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(bash(&here, &words), [wanted], "bash: {line}");
        assert_eq!(fish(&here, line), [wanted], "fish: {line}");
        let (before, _) = line.rsplit_once(' ').unwrap();
        let typed = zsh(&here, line);
        assert_eq!(
            typed.trim_end(),
            format!("{before} {wanted}"),
            "zsh: {line}"
        );
    }
}

/// Whoever may write to an export chooses names in it, and root completes them.
#[test]
fn name_of_a_file_is_offered_so_that_no_shell_runs_what_is_in_it() {
    let export = Export::new();
    let here = export.beside("");
    fs::create_dir(here.join("a$(touch ran);b")).unwrap();
    let quoted = bash(&here, &["virtfs-mediator", "run", "a"]);
    assert_eq!(quoted, [r"a\$\(touch\ ran\)\;b/"]);
    let typed = zsh(&here, "virtfs-mediator run a");
    assert_eq!(
        typed.trim_end(),
        r"virtfs-mediator run a\$\(touch\ ran\)\;b/"
    );
    // fish quotes what it inserts by itself; what is offered is the name.
    assert_eq!(fish(&here, "virtfs-mediator run a"), ["a$(touch ran);b/"]);
    assert!(!here.join("ran").exists());
}

#[test]
fn directories_and_policies_are_offered_for_an_export_and_nothing_else() {
    let export = Export::new();
    let here = export.beside("");
    fs::write(here.join("exp.toml"), "").unwrap();
    fs::write(here.join("exp.img"), "").unwrap();
    let offered = bash(&here, &["virtfs-mediator", "run", "exp"]);
    assert_eq!(offered, ["exp.toml", "export/"]);
    let line = "virtfs-mediator run export=e";
    assert_eq!(fish(&here, line), ["export=exp.toml", "export=export/"]);
    // Any file may be bound.
    let offered = bash(
        &here,
        &["virtfs-mediator", "run", "--isolate", "--bind", "exp"],
    );
    assert_eq!(offered, ["exp.img", "exp.toml", "export/"]);
}
