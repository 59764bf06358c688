//! Boots the real guest in columns and compares what it sees; see `--help`.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command's whole purpose"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use virtfs_guest::runner::boot::{self, Limits};
use virtfs_guest::runner::column::{self, Column, MATRIX_SHARES, PLAIN_SHARES, Setup, Share};
use virtfs_guest::runner::expect::Expectations;
use virtfs_guest::runner::matrix::{self, Results};
use virtfs_guest::runner::workspace::{Client, Workspace};
use virtfs_guest::runner::{Error, demo, interrupt, onlibvirt, plainfuse, table};

/// Boots Debian's kernel under stock QEMU and runs the operation matrix over 9p, once per column:
/// root and user on the raw directory, the mediated view, the same under libvirt, QEMU's old proxy
/// helper, a plain FUSE mount.
#[derive(Debug, Parser)]
#[command(name = "virtfs-matrix")]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run the whole matrix and compare the columns
    Run {
        /// Columns to run
        #[arg(long, value_delimiter = ',', default_value = "root,user,view,proxy")]
        columns: Vec<Column>,
        /// Compare view with root and with this list of expected differences, and libvirt with view
        #[arg(long, value_name = "FILE")]
        check: Option<PathBuf>,
        /// Write everything as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Show every probe and not only those whose columns differ
        #[arg(long)]
        all: bool,
        /// Show the sums alone
        #[arg(long, conflicts_with = "all")]
        quiet: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Run the short set of tools/try and print its table
    Try {
        /// Columns to run
        #[arg(long, value_delimiter = ',', default_value = "user,view,root")]
        columns: Vec<Column>,
        #[command(flatten)]
        common: Common,
    },
    /// Boot a guest to log into
    Shell {
        /// The arrangement
        #[arg(long, default_value = "view")]
        column: Column,
        #[command(flatten)]
        common: Common,
    },
    /// Have libvirt start a guest, and copy its console (used by the column libvirt)
    #[command(hide = true)]
    OnLibvirt(onlibvirt::Guest),
    /// Run COMMAND as the client with SOURCE on a plain FUSE mount (used by the column plainfuse)
    #[command(hide = true)]
    OnPlainFuse {
        #[arg(long)]
        client: String,
        #[arg(long)]
        server: PathBuf,
        source: PathBuf,
        at: PathBuf,
        #[arg(last = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Who QEMU runs as: NAME, UID or UID:GID (default: who called sudo, else 65534:65534)
    #[arg(long)]
    client: Option<String>,
    /// Where tools/guest/build put the guest
    #[arg(long, value_name = "DIR", default_value = "target/guest")]
    guest: PathBuf,
    /// The program under test
    #[arg(
        long,
        value_name = "FILE",
        default_value = "target/release/virtfs-mediator"
    )]
    mediator: PathBuf,
    /// Where exports and consoles are put (default: the guest's directory)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Seconds that one boot may take
    #[arg(long, default_value_t = 300)]
    limit: u64,
}

/// Everything that a run needs, kept together because the workspace must outlive the boots.
struct Bench {
    workspace: Workspace,
    client: Client,
    mediator: PathBuf,
    passthrough: PathBuf,
    kept: PathBuf,
    limits: Limits,
}

impl Bench {
    fn new(common: &Common, columns: &[Column]) -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::NotRoot);
        }
        interrupt::listen()?;
        let passthrough = common.guest.join("passthrough_ll");
        let passthrough = std::path::absolute(&passthrough).map_err(failed(&passthrough))?;
        for column in columns {
            column::check_programs(*column, &common.mediator, &passthrough)?;
        }
        let client = Client::find(common.client.as_deref())?;
        let kept = common.dir.clone().unwrap_or_else(|| common.guest.clone());
        let kept = std::path::absolute(&kept).map_err(failed(&kept))?;
        Ok(Self {
            workspace: Workspace::new(
                &kept,
                &common.guest,
                client,
                columns.contains(&Column::Libvirt),
            )?,
            client,
            mediator: std::path::absolute(&common.mediator).map_err(failed(&common.mediator))?,
            passthrough,
            kept,
            limits: Limits {
                total: Duration::from_secs(common.limit),
                silence: Duration::from_secs(60),
            },
        })
    }

    fn setup<'a>(&'a self, run: &'a str, shares: &'a [Share]) -> Setup<'a> {
        Setup {
            workspace: &self.workspace,
            client: self.client,
            mediator: &self.mediator,
            passthrough: &self.passthrough,
            run,
            shares,
        }
    }

    /// Every column, as many at once as there are processors: a guest keeps one busy.
    fn run(&self, columns: &[Column], run: &str, shares: &[Share]) -> Result<Results, Error> {
        let setup = self.setup(run, shares);
        let next = AtomicUsize::new(0);
        let found = Mutex::new(Vec::new());
        let work = || {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(&column) = columns.get(index) else {
                    return;
                };
                let mut results = Results::default();
                let ran = matrix::run_column(&mut results, &setup, column, self.limits, &self.kept);
                let how = match (&ran, results.columns.last()) {
                    (Ok(()), Some(run)) => format!("{:.1} s", run.time.as_secs_f64()),
                    (Ok(()), None) | (Err(_), _) => "failed".to_owned(),
                };
                let (count, name) = (columns.len(), column.name());
                eprintln!("[{}/{count}] guest, {name:<10} {how}", index + 1);
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                found.push((index, ran.map(|()| results)));
            }
        };
        let at_once = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 0..at_once.min(columns.len()) {
                scope.spawn(work);
            }
        });
        let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        found.sort_by_key(|(index, _)| *index);
        let mut results = Results::default();
        for (_, of_column) in found {
            results.append(of_column?);
        }
        Ok(results)
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = path.display().to_string();
    move |source| Error::Io { what, source }
}

fn main() -> ExitCode {
    match act(Cli::parse().action) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("virtfs-matrix: {error}");
            ExitCode::from(2)
        }
    }
}

fn act(action: Action) -> Result<ExitCode, Error> {
    match action {
        Action::Run {
            columns,
            check,
            json,
            all,
            quiet,
            common,
        } => {
            let expectations = check.as_deref().map(Expectations::read).transpose()?;
            let results = Bench::new(&common, &columns)?.run(&columns, "matrix", MATRIX_SHARES)?;
            let text = table::text(&results, all);
            let skip = if quiet {
                text.lines().count() - columns.len() - 1
            } else {
                0
            };
            for line in text.lines().skip(skip) {
                println!("{line}");
            }
            if let Some(path) = json {
                let text = table::json(&results).map_err(|e| Error::Io {
                    what: "JSON".into(),
                    source: e.into(),
                })?;
                std::fs::write(&path, text).map_err(failed(&path))?;
            }
            Ok(expectations.map_or(ExitCode::SUCCESS, |expected| verdict(&expected, &results)))
        }
        Action::Try { columns, common } => {
            let bench = Bench::new(&common, &columns)?;
            let results = bench.run(&columns, "try", PLAIN_SHARES)?;
            for column in &columns {
                // A console is of use after a failure only.
                let _ = std::fs::remove_file(matrix::console(&bench.kept, *column));
            }
            println!("\n{}", demo::table(&results)?);
            Ok(ExitCode::SUCCESS)
        }
        Action::Shell {
            column: Column::Libvirt,
            ..
        } => Err(Error::Libvirt(
            "there is no shell in this column: its console is copied one way".to_owned(),
        )),
        Action::Shell { column, common } => {
            let bench = Bench::new(&common, &[column])?;
            let export = bench.workspace.export(column.name())?;
            eprintln!("the export on the host: {}", export.display());
            boot::interactive(
                bench
                    .setup("shell", PLAIN_SHARES)
                    .plan(column, &export, None)?,
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Action::OnLibvirt(guest) => {
            interrupt::listen()?;
            onlibvirt::run(&guest)?;
            Ok(ExitCode::SUCCESS)
        }
        Action::OnPlainFuse {
            client,
            server,
            source,
            at,
            command,
        } => {
            let client = Client::find(Some(&client))?;
            let status = plainfuse::run(&server, &source, &at, client, &command)?;
            Ok(if status.success() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            })
        }
    }
}

/// Prints what is not as listed, and the line that test runners look for.
fn verdict(expected: &Expectations, results: &Results) -> ExitCode {
    let wrong = expected.check(results);
    for line in &wrong {
        println!("FAIL {line}");
    }
    let failed = wrong.len().min(results.names.len());
    println!(
        "guest: {} passed, {failed} failed",
        results.names.len() - failed
    );
    if wrong.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
