//! What is made from the command line and committed: the man pages of section 1 and the scripts
//! for shells. A test compares; `cargo test --lib generated::write -- --ignored` makes them anew.
//!
//! A page is what clap knows, and then what `tools/man/sections/PAGE` says besides, section by
//! section: those of the same name are joined, all are put in the order of man-pages(7), and EXIT
//! STATUS and SEE ALSO are written here where the file has none. Lines between .EX and .EE are taken
//! as they are, without escapes; .HELP is what `--help` says at its end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory as _};
use clap_complete::env::Shells;
use clap_mangen::Man;

use crate::cli::Cli;
use crate::completion;

const PROGRAM: &str = "virtfs-mediator";
const AGAIN: &str = "cargo test --lib generated::write -- --ignored";

/// The last sections, in their order; others stand before them as they come.
const LAST: [&str; 6] = [
    "EXIT STATUS",
    "ENVIRONMENT",
    "FILES",
    "NOTES",
    "EXAMPLES",
    "SEE ALSO",
];

const EXIT_STATUS: &str = "\
0 if all went well; else
.TP
64
the command line is wrong
.TP
71
a wall, or what a command needs of the kernel, cannot be had
.TP
74
the view could not be mounted, failed, does not answer, or was ended under its client
.TP
77
not root
.TP
78
a policy, an export, a user or a name is wrong, or no such view runs
";

fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}

/// Every file by its place below tools/.
fn files() -> BTreeMap<String, String> {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    let mut made = BTreeMap::new();
    pages(&command, &[], &mut made);
    for (shell, file) in [
        ("bash", "virtfs-mediator.bash"),
        ("zsh", "_virtfs-mediator"),
        ("fish", "virtfs-mediator.fish"),
    ] {
        made.insert(format!("completions/{file}"), script(shell));
    }
    made
}

/// The page of a command and those of what is below it. Hidden commands have none.
fn pages(command: &Command, above: &[String], made: &mut BTreeMap<String, String>) {
    let name = page_name(command);
    let children: Vec<&Command> = command
        .get_subcommands()
        .filter(|child| !child.is_hide_set())
        .collect();
    let mut related = above.to_vec();
    related.extend(children.iter().map(|child| page_name(child)));
    made.insert(format!("man/{name}.1"), page(command, &name, &related));
    let mut above = above.to_vec();
    above.push(name);
    for child in children {
        pages(child, &above, made);
    }
}

fn page_name(command: &Command) -> String {
    command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned()
}

fn page(command: &Command, name: &str, related: &[String]) -> String {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")))
        .manual("Virtual machines");
    let mut made = Vec::new();
    man.render_title(&mut made).unwrap();
    man.render_name_section(&mut made).unwrap();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").replace(['<', '>'], "");
    made.extend(format!(".SH SYNOPSIS\n{}\n", escaped(&usage)).into_bytes());
    man.render_description_section(&mut made).unwrap();
    man.render_options_section(&mut made).unwrap();
    if command.has_subcommands() {
        man.render_subcommands_section(&mut made).unwrap();
    }
    // Each part defines the apostrophe anew.
    let (apostrophe, made) = (roff_apostrophe(), String::from_utf8(made).unwrap());
    let made = format!("{apostrophe}{}", made.replace(&apostrophe, ""));
    let (head, mut sections) = sections(&emphasized(&made));
    let written = tools().join("man/sections").join(name);
    let written = fs::read_to_string(&written).unwrap_or_else(|error| {
        panic!("{}: {error}: it has the page's EXAMPLES", written.display())
    });
    let help = command.get_after_help().map(ToString::to_string);
    let written = written.replace(
        ".HELP\n",
        &format!(".EX\n{}\n.EE\n", help.unwrap_or_default()),
    );
    for (title, text) in self::sections(&literal(&written)).1 {
        match sections.iter_mut().find(|(known, _)| *known == title) {
            Some((_, already)) => {
                already.push_str(".PP\n");
                already.push_str(&text);
            }
            None => sections.push((title, text)),
        }
    }
    let there: BTreeSet<String> = sections.iter().map(|(title, _)| title.clone()).collect();
    assert!(there.contains("EXAMPLES"), "{name}: a page has EXAMPLES");
    if !there.contains("EXIT STATUS") {
        sections.push(("EXIT STATUS".into(), EXIT_STATUS.into()));
    }
    let mut see = String::new();
    for page in related {
        let _infallible = writeln!(see, ".BR {} (1),", escaped(page));
    }
    if name != PROGRAM && !related.iter().any(|page| page == PROGRAM) {
        let _infallible = writeln!(see, ".BR {} (1),", escaped(PROGRAM));
    }
    for (page, section) in [("policy", 5), ("config", 5), ("semantics", 7)] {
        let _infallible = writeln!(see, ".BR virtfs\\-mediator\\-{page} ({section}),");
    }
    see.push_str(".BR virtfs\\-mediator (8)\n");
    sections.push(("SEE ALSO".into(), see));
    let place = |title: &str| {
        LAST.iter()
            .position(|last| *last == title)
            .map_or(0, |at| at + 1)
    };
    sections.sort_by_key(|(title, _)| place(title));
    let mut page = format!("{MADE} and tools/man/sections/{name}: {AGAIN}\n{head}");
    for (title, text) in sections {
        let _infallible = write!(page, ".SH \"{title}\"\n{text}");
    }
    page
}

/// How the crate `roff` begins what it renders.
fn roff_apostrophe() -> String {
    clap_mangen::roff::Roff::new().render()
}

/// What stands before the first section, and each section with its text.
fn sections(text: &str) -> (String, Vec<(String, String)>) {
    let mut head = String::new();
    let mut found: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix(".SH ") {
            Some(title) => found.push((title.trim_matches('"').to_owned(), String::new())),
            None => {
                let text = found.last_mut().map_or(&mut head, |(_, text)| text);
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    (head, found)
}

/// Examples, with every character made to be printed as it is.
fn literal(text: &str) -> String {
    let mut lines = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside = (inside || line == ".EX") && line != ".EE";
        if !inside || line == ".EX" {
            lines.push_str(line);
        } else {
            if line.starts_with(['.', '\'']) {
                lines.push_str("\\&");
            }
            for character in line.chars() {
                match character {
                    '\\' => lines.push_str("\\e"),
                    '-' => lines.push_str("\\-"),
                    '\'' => lines.push_str("\\(aq"),
                    '`' => lines.push_str("\\(ga"),
                    '~' => lines.push_str("\\(ti"),
                    '^' => lines.push_str("\\(ha"),
                    other => lines.push(other),
                }
            }
        }
        lines.push('\n');
    }
    lines
}

/// Between backticks, which roff would print as quotation marks, is what is typed: bold.
fn emphasized(text: &str) -> String {
    let mut lines = String::new();
    for line in text.lines() {
        let mut bold = false;
        for part in line.split_inclusive('`') {
            match part.strip_suffix('`') {
                Some(part) => {
                    bold = !bold;
                    lines.push_str(part);
                    lines.push_str(if bold { "\\fB" } else { "\\fR" });
                }
                None => lines.push_str(part),
            }
        }
        assert!(!bold, "a backtick without another: {line}");
        lines.push('\n');
    }
    lines
}

fn escaped(text: &str) -> String {
    text.replace('-', "\\-")
}

/// What a shell sources: it asks the program that PATH leads to.
fn script(shell: &str) -> String {
    let shells = Shells::builtins();
    let shell = shells.completer(shell).unwrap();
    let mut made = Vec::new();
    shell
        .write_registration(completion::VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut made)
        .unwrap();
    let made = String::from_utf8(made).unwrap();
    let made = made.trim();
    match shell.name() {
        "bash" => quoting(made),
        "zsh" => autoloaded(made),
        _ => format!("{made}\n"),
    }
}

const QUOTING: &str = r#"# What is offered may be the name of any file, and goes to the command line as it is.
_virtfs_mediator() {
    _clap_complete_virtfs_mediator "$@"
    local at home
    for at in "${!COMPREPLY[@]}"; do
        home=
        [[ ${COMPREPLY[at]} == "~/"* ]] && home="~/"
        printf -v "COMPREPLY[at]" '%s%q' "$home" "${COMPREPLY[at]#"$home"}"
    done
}
"#;

/// bash puts what is offered on the command line as it is: a file called `$(reboot)`, which a guest
/// can make in an export, would be run.
fn quoting(script: &str) -> String {
    let (function, quoting) = ("_clap_complete_virtfs_mediator", "_virtfs_mediator");
    assert_eq!(script.matches(&format!("-F {function} ")).count(), 2);
    let script = script.replace(&format!("-F {function} "), &format!("-F {quoting} "));
    format!("# Made by clap_complete: {AGAIN}\n{script}\n{QUOTING}")
}

/// zsh loads the file as the completing function itself: the first TAB is asked of it.
fn autoloaded(script: &str) -> String {
    let registers = "compdef _clap_dynamic_completer_virtfs_mediator virtfs-mediator";
    let (head, end) = script.split_once('\n').unwrap();
    let body = end.strip_suffix(registers).unwrap();
    format!(
        "{head}\n# Made by clap_complete: {AGAIN}\n{body}\
         if [[ $funcstack[1] == _virtfs-mediator ]]; then\n    \
             _clap_dynamic_completer_virtfs_mediator \"$@\"\n\
         else\n    {registers}\nfi\n"
    )
}

/// How a page begins that is made here; others of section 1 are written by hand.
const MADE: &str = ".\\\" Made from the command line";

/// Files of the kinds that are made here, as they are committed.
fn committed() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (directory, suffix) in [("man", ".1"), ("completions", "")] {
        for entry in fs::read_dir(tools().join(directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if name.ends_with(suffix) && entry.file_type().unwrap().is_file() {
                let text = fs::read_to_string(entry.path()).unwrap();
                if suffix.is_empty() || text.starts_with(MADE) {
                    found.insert(format!("{directory}/{name}"), text);
                }
            }
        }
    }
    found
}

#[test]
fn committed_pages_and_scripts_are_what_the_command_line_says() {
    let (made, committed) = (files(), committed());
    let names: BTreeSet<&String> = made.keys().chain(committed.keys()).collect();
    let differ: Vec<&&String> = names
        .iter()
        .filter(|name| made.get(**name) != committed.get(**name))
        .collect();
    assert!(
        differ.is_empty(),
        "below tools/, these are not what the command line says: {differ:?}. Make them anew: {AGAIN}"
    );
}

/// Commands of ours in a text, each in one line, without what the shell takes off them.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\e\n", " ").replace("\\\n", " ");
    joined
        .lines()
        .map(|line| line.trim().trim_start_matches("sudo "))
        .filter(|line| line.starts_with("virtfs-mediator ") && !line.contains("..."))
        .map(|line| {
            let end = [" >", " <", " 3<"]
                .iter()
                .filter_map(|end| line.find(end))
                .min();
            line[..end.unwrap_or(line.len())].to_owned()
        })
        .collect()
}

#[test]
fn commands_of_pages_and_help_are_understood() {
    let mut texts = vec![Cli::command().render_long_help().to_string()];
    for directory in ["man", "man/sections"] {
        for entry in fs::read_dir(tools().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            // Those of section 1 are made from the sections.
            if path.is_file() && path.extension() != Some("1".as_ref()) {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let commands: Vec<String> = texts
        .iter()
        .flat_map(|text| commands(text))
        // Synopses.
        .filter(|command| !command.contains('['))
        .collect();
    assert!(commands.len() > 40, "{commands:#?}");
    for command in commands {
        let words = shlex::split(&command).unwrap();
        if let Err(error) = Cli::command().try_get_matches_from(words) {
            panic!("{command}\n{error}");
        }
    }
}

#[test]
fn domain_s_file_of_the_manual_is_understood() {
    let page = fs::read_to_string(tools().join("man/virtfs-mediator-config.5")).unwrap();
    let (_, section) = page.split_once(".Sh DOMAINS OF LIBVIRT\n").unwrap();
    let (_, example) = section
        .split_once("\n.Bd -literal -offset indent\n")
        .unwrap();
    let (example, _) = example.split_once("\n.Ed\n").unwrap();
    let file: crate::libvirt::domain_file::DomainFile = toml::from_str(example).unwrap();
    assert_eq!(file.views.len(), 1);
}

#[test]
fn sections_belong_to_a_page_each() {
    let made = files();
    for entry in fs::read_dir(tools().join("man/sections")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            made.contains_key(&format!("man/{name}.1")),
            "tools/man/sections/{name}: there is no such command"
        );
    }
}

#[test]
#[ignore = "writes tools/man and tools/completions"]
fn write() {
    let made = files();
    for name in committed().keys() {
        if !made.contains_key(name) {
            fs::remove_file(tools().join(name)).unwrap();
        }
    }
    for (name, text) in made {
        fs::write(tools().join(name), text).unwrap();
    }
}
