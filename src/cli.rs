//! The command line: a contract that scripts rely on.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use virtfs_mediator_core::policy::shipped;

use crate::libvirt::cli::LibvirtCommand;

/// Share a host directory with a stock QEMU guest, safely, through a mediated FUSE view.
///
/// A view shows a directory of the host, the export, to one client: QEMU, run as an ordinary user
/// without any capability. What the guest asks of its 9p mount is done by an unprivileged mediator,
/// as far as a policy allows it, so that the guest's root owns files as if QEMU were root. QEMU's
/// command line is the usual one: the view lies over the export's own path.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_long_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How much is told on stderr: error, warn, info, debug, trace.
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: String,
    /// How it is told.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

const EXAMPLES: &str = "\
A first view, as root, with a user of its own for the virtual machine:
  adduser --system --group vm-web && adduser vm-web kvm && chown vm-web disk.img
  virtfs-mediator doctor --client vm-web /srv/share
  virtfs-mediator run --client vm-web --isolate --bind disk.img /srv/share -- \\
      qemu-system-x86_64 -m 1G -nographic -drive file=disk.img,format=raw \\
      -virtfs local,path=/srv/share,mount_tag=share,security_model=passthrough
and in the guest:
  mount -t 9p -o trans=virtio,version=9p2000.L share /mnt

More examples:
  sudo virtfs-mediator run /srv/share=share.toml /srv/docs -- ./start-vm.sh
  sudo virtfs-mediator mount --client vm-web --name web /srv/web
  sudo virtfs-mediator enter web -- ls -l /srv/web
  sudo virtfs-mediator metrics web --output /var/lib/node_exporter/web.prom
  sudo virtfs-mediator unmount web

Exit status: that of the client for `run` and `enter` (128+N if signal N ended it); else 0, 1 if
`policy test`, `policy diff` or `replay` finds a difference, or
  64  the command line        77  not root                  74  the view failed or was ended
  78  policy, export or name  71  a wall cannot be built    126, 127  the command cannot be run

Manual: virtfs-mediator(8) tells of administration, virtfs-mediator-policy(5) of policies,
virtfs-mediator-semantics(7) of what a guest may rely on.";

const RUN_EXAMPLES: &str = "\
Example:
  virtfs-mediator run --client vm-web --isolate --bind disk.img /srv/share -- \\
      qemu-system-x86_64 -m 1G -nographic -drive file=disk.img,format=raw \\
      -virtfs local,path=/srv/share,mount_tag=share,security_model=passthrough
In the guest:
  mount -t 9p -o trans=virtio,version=9p2000.L share /mnt
When the command ends, the view is gone. SIGTERM and SIGINT are handed on to it.";

const MOUNT_EXAMPLES: &str = "\
Example:
  virtfs-mediator mount --client vm-web --name web /srv/web
  virtfs-mediator enter web -- ls -l /srv/web
  virtfs-mediator unmount web
The view is in a mount namespace of its own, where `enter` runs commands: the host does not see it.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command, QEMU say, as the client, with each export being a view; its exit status is
    /// ours.
    #[command(after_long_help = RUN_EXAMPLES)]
    Run {
        #[command(flatten)]
        options: ViewOptions,
        /// Write the client's process id, as the host numbers it, to FILE.
        #[arg(long, value_name = "FILE")]
        pidfile: Option<PathBuf>,
        /// Hand this open descriptor on to the client, under the same number (else 0, 1, 2 only).
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
        pass_fd: Vec<i32>,
        /// Directories to share, each with the policy file of its own after `=`, if it has one;
        /// default: the one that --policy's file names as its `export`.
        #[arg(value_name = "EXPORT[=POLICY]")]
        exports: Vec<OsString>,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Make a view without a client of its own, to be used by `enter`; returns when it answers.
    #[command(after_long_help = MOUNT_EXAMPLES)]
    Mount {
        #[command(flatten)]
        options: ViewOptions,
        /// Stay in the foreground until the view ends.
        #[arg(long)]
        foreground: bool,
        /// The directory to share; default: the one that --policy's file names as its `export`.
        #[arg(value_name = "EXPORT[=POLICY]")]
        export: Option<OsString>,
    },
    /// Run a command as the client, in a view's namespace.
    Enter {
        /// The view's name.
        view: String,
        /// The command and its arguments.
        #[arg(last = true, required = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// End a view: fusermount3 -u in its namespace, then wait until all is gone.
    #[command(visible_alias = "umount")]
    Unmount {
        /// The view's name.
        view: String,
        /// End it although a client runs: the client is ended too.
        #[arg(long)]
        force: bool,
    },
    /// List the running views.
    List {
        /// One JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Tell all about a view: its walls as the kernel reports them, its policy and counters.
    Status {
        /// The view's name.
        view: String,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Put another policy in force while the view is in use: all of it, or none.
    Reload {
        /// The view's name.
        view: String,
        /// The policy file; default: the one that was read last.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        /// Only tell whether it could be.
        #[arg(long)]
        dry_run: bool,
    },
    /// Record decisions with all their facts into a file for `replay` and `suggest`, until
    /// interrupted or the view ends.
    Record {
        /// The view's name.
        view: String,
        /// The file; it must not be there yet.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
        #[command(flatten)]
        which: crate::live::trace::Which,
    },
    /// Stop at decisions of a running view and decide them by hand: a console like a debugger's.
    Step {
        /// The view's name.
        view: String,
        #[command(flatten)]
        options: crate::step::Options,
    },
    /// Show decisions as they are made, one line each, until interrupted or the view ends.
    Trace {
        /// The view's name.
        view: String,
        #[command(flatten)]
        which: crate::live::trace::Which,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Print a view's counters for Prometheus: requests by operation and verdict, their durations,
    /// inodes, open files, descriptors, audit records.
    Metrics {
        /// The view's name.
        view: String,
        /// Write them to FILE, whole or not at all: for node_exporter's textfile collector.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check a host, exports and QEMU before first use, by trying things and changing nothing.
    Doctor(crate::doctor::Options),
    /// Judge a recording's requests by a policy and tell which answers change (then the exit status
    /// is 1).
    Replay {
        /// The recording.
        recording: PathBuf,
        /// The policy file.
        policy: PathBuf,
        /// One JSON object: `requests`, `changed`, `refused`, `unknown`, `cut_off`, `groups`.
        #[arg(long)]
        json: bool,
    },
    /// Print a policy, with `default = "deny"`, that allows what a recording's requests were allowed,
    /// and little else.
    Suggest {
        /// The recording.
        recording: PathBuf,
        /// Keep this policy's settings and those of its rules that deny or hide.
        #[arg(long, value_name = "POLICY")]
        from: Option<PathBuf>,
    },
    /// Views of virtual machines that libvirt starts.
    Libvirt {
        #[command(subcommand)]
        command: LibvirtCommand,
    },
    /// Lay views into QEMU's own mount namespace as libvirt starts it: the service that
    /// virtfs-mediator-qemu asks.
    Serve(crate::serve::Options),
    /// One start, for `serve`: descriptors and words that only it can give.
    #[command(hide = true)]
    Attach(crate::serve::attach::Options),
    /// Work on policy files.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Name every mistake in policy files, with line and column.
    Check {
        /// Policy files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Tell how a policy judges a request, rule by rule, and what QEMU and the guest will see.
    #[command(after_help = crate::policies::request_help())]
    Explain {
        /// The policy file.
        file: PathBuf,
        /// The request: an operation, a path, and what goes with it.
        #[arg(required = true, num_args = 1.., value_name = "REQUEST")]
        request: Vec<String>,
        #[command(flatten)]
        around: Around,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Judge a file of requests and tell which answers are not those that it expects.
    ///
    /// CASES is a TOML file of `[[case]]` tables: `request` (as for `explain`), `expect` ("allow",
    /// "deny" or an errno), and if wanted `rule` (its name, "default" for none), `note`, `type`,
    /// `mode`, `owner`, `size`, `nlink`, `names`, `birth`, `submount`, `requester`.
    /// Exit status 1 if an answer differs.
    Test {
        /// The policy file.
        file: PathBuf,
        /// The file of cases.
        cases: PathBuf,
    },
    /// Tell which answers change from one policy to another (then the exit status is 1).
    ///
    /// Without a recording, by requests that are made up from the rules of both: witnesses of each
    /// glob and condition. They show much, not all.
    Diff {
        /// A policy file.
        old: PathBuf,
        /// Another.
        new: PathBuf,
        /// Compare by the requests of this recording.
        recording: Option<PathBuf>,
    },
    /// Print a policy to start from.
    Init {
        /// Which one.
        #[arg(value_parser = PossibleValuesParser::new(shipped::ALL.iter().map(|(name, _)| *name)))]
        name: String,
    },
}

/// What a request's words do not say: how things are.
#[derive(Debug, Args)]
pub(crate) struct Around {
    /// The target's type: file, directory, symlink, fifo, socket.
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// The target's mode, in octal.
    #[arg(long)]
    pub(crate) mode: Option<String>,
    /// The target's owner, host ids.
    #[arg(long, value_name = "UID:GID")]
    pub(crate) owner: Option<String>,
    /// The target's size in bytes.
    #[arg(long)]
    pub(crate) size: Option<u64>,
    /// The target's link count.
    #[arg(long)]
    pub(crate) nlink: Option<u32>,
    /// Another name of the target (a hard link); may be given more than once.
    #[arg(long = "name", value_name = "PATH")]
    pub(crate) names: Vec<String>,
    /// The target was made through the view and has not been given its owner and mode.
    #[arg(long)]
    pub(crate) birth: bool,
    /// The target lies on another mount than the export's root.
    #[arg(long)]
    pub(crate) submount: bool,
    /// Who asks, host ids; default: the policy's client, else 1000:1000.
    #[arg(long, value_name = "UID:GID")]
    pub(crate) requester: Option<String>,
}

/// Options of a view.
#[derive(Debug, Args)]
pub(crate) struct ViewOptions {
    /// The view's name (letters, digits, `_.-`); derived from the export if not given.
    #[arg(long, value_name = "VIEW")]
    pub(crate) name: Option<String>,
    /// The policy of exports that name none; without one, all is allowed that QEMU as root could do,
    /// device nodes aside. `policy init` prints some to start from.
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Who runs the command and may use the view, never root; default: who called sudo.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) client: Option<String>,
    /// The mediator's own user; default: `virtfs-mediator`, or a fixed high number.
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(crate) mediator_user: Option<String>,
    /// Where the view is seen, instead of over the export's own path.
    #[arg(long, value_name = "DIR")]
    pub(crate) at: Option<PathBuf>,
    /// Give the client a root of its own: read-only /usr and libraries, /proc, /dev/null, /dev/kvm,
    /// an empty /tmp, the view, and what --bind names.
    #[arg(long)]
    pub(crate) isolate: bool,
    /// With --isolate: let the client see this file or directory too, and change what its user may.
    #[arg(long, value_name = "PATH", requires = "isolate")]
    pub(crate) bind: Vec<PathBuf>,
    /// With --isolate: the same, read-only.
    #[arg(long, value_name = "PATH", requires = "isolate")]
    pub(crate) bind_ro: Vec<PathBuf>,
    /// A general mount: every user may use it, and the kernel enforces the mode bits.
    #[arg(long)]
    pub(crate) shared: bool,
    /// How long the kernel may remember names and attributes; default: as the policy says, or auto.
    #[arg(long, value_enum)]
    pub(crate) cache: Option<CacheOption>,
    /// What becomes of other file systems mounted inside the export, as they are at the start;
    /// default: as the policy says, or refuse.
    #[arg(long, value_enum)]
    pub(crate) submounts: Option<SubmountsOption>,
    /// Which way the data of open files goes: through the mediator, or past it, by the kernel alone.
    #[arg(long, value_enum, default_value_t = DataOption::Auto)]
    pub(crate) data: DataOption,
    /// Refuse every change.
    #[arg(long)]
    pub(crate) readonly: bool,
    /// Do not start if this kernel lacks a wall that others have (else: a warning).
    #[arg(long)]
    pub(crate) require_confinement: bool,
    /// Where refusals, and what rules with `log = "all"` allow, are recorded: stderr (the default),
    /// journald, or a file (one JSON object a line; with a / in its name). May be repeated.
    #[arg(long, value_name = "stderr|journald|FILE")]
    pub(crate) audit: Vec<OsString>,
    /// Tell every request and its verdict on stderr.
    #[arg(long)]
    pub(crate) debug: bool,
    /// Wait until a stepping console is attached (`virtfs-mediator step VIEW`, from another
    /// terminal) before anything is asked of the view.
    #[arg(long)]
    pub(crate) step: bool,
}

/// How long the kernel may remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CacheOption {
    /// One second: changes made on the host are seen within it.
    Auto,
    /// Not at all: changes made on the host are seen at once.
    None,
    /// As long as it likes: nothing but this view changes the export.
    Exclusive,
}

/// What becomes of other file systems mounted inside the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SubmountsOption {
    /// They are listed, and nothing is started.
    Refuse,
    /// Their names are not there, nor is what they cover.
    Hide,
    /// They are shared too. What is mounted later is not.
    Follow,
}

/// Which way the data of open files goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DataOption {
    /// Past the mediator for files of 64 KiB and more, where kernel and policy allow it.
    Auto,
    /// Past the mediator wherever the policy allows it; an error where the kernel cannot.
    Passthrough,
    /// Through the mediator.
    Mediated,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}
