//! An export's file system and mount: what they keep a view from doing, or let a guest do.

use rustix::fs::StatVfsMountFlags;

use crate::doctor::catalogue::Problem;
use crate::doctor::export::Export;
use crate::doctor::findings::Findings;
use crate::mounts::Table;
use crate::plan::others_may_rename;

/// Their server, or whoever mounted them, decides about access and owners.
const NETWORK: [&str; 8] = [
    "9p", "afs", "ceph", "cifs", "coda", "lustre", "orangefs", "smb3",
];

/// They take `Name` for `name`, by themselves or by default.
const FOLDING: [&str; 9] = [
    "affs", "cifs", "exfat", "hfs", "hfsplus", "msdos", "ntfs3", "smb3", "vfat",
];

/// All checks of this part.
pub(super) fn check(findings: &mut Findings, table: &Table, export: &Export<'_>) {
    network(findings, export);
    fuse(findings, export);
    overlay(findings, export);
    folding(findings, export);
    flags(findings, export);
    other_mounts(findings, table, export);
    above(findings, export);
    acl(findings, export);
}

fn network(findings: &mut Findings, export: &Export<'_>) {
    let kind = export.mount.kind.as_str();
    if matches!(kind, "nfs" | "nfs4") {
        findings.tell(
            Problem::Nfs,
            export.says(format!(
                "{kind}: the server judges the mediator's user, whose capabilities mean nothing there"
            )),
            "run virtfs-mediator on the server, or share a local directory: with sec=sys or any \
             other check of the server's this cannot be served",
        );
    } else if NETWORK.contains(&kind) {
        findings.tell(
            Problem::Network,
            export.says(format!(
                "{kind}: its server may refuse the mediator, or keep no owners"
            )),
            "share a local directory, or try all that the guest needs before you rely on it",
        );
    } else {
        findings.ok(
            Problem::Network,
            export.says("no file server that could judge the mediator"),
        );
    }
}

fn fuse(findings: &mut Findings, export: &Export<'_>) {
    let kind = export.mount.kind.as_str();
    if kind == "fuse" || kind == "fuseblk" || kind.starts_with("fuse.") {
        findings.tell(
            Problem::Fuse,
            export.says(format!(
                "{kind}: every request goes through two FUSE servers, and the other one decides too"
            )),
            "share the original; if that cannot be, mount it with allow_other, so that the \
             mediator gets in",
        );
    } else {
        findings.ok(Problem::Fuse, export.says("no FUSE mount"));
    }
}

fn overlay(findings: &mut Findings, export: &Export<'_>) {
    if export.mount.kind == "overlay" {
        findings.tell(
            Problem::Overlay,
            export.says(
                "overlay: inode numbers may change when a file is first written, unless the layers \
                 are one file system or xino is on",
            ),
            "share a directory of the file system itself, if guests rely on inode numbers",
        );
    } else {
        findings.ok(Problem::Overlay, export.says("no overlay"));
    }
}

fn folding(findings: &mut Findings, export: &Export<'_>) {
    let kind = export.mount.kind.as_str();
    if FOLDING.contains(&kind) {
        findings.tell(
            Problem::FoldingKind,
            export.says(format!("{kind} takes names without regard to case, or may")),
            "rules judge the spelling that is asked for: do not rely on rules with paths here, or \
             share another file system",
        );
    } else {
        findings.ok(
            Problem::FoldingKind,
            export.says(format!("{kind} tells cases apart")),
        );
    }
}

fn flags(findings: &mut Findings, export: &Export<'_>) {
    let flags = match rustix::fs::fstatvfs(export.fd) {
        Ok(stat) => stat.f_flag,
        Err(errno) => {
            let why = export.says(format!("fstatvfs: {errno}"));
            findings.untried(Problem::ReadOnly, &why);
            findings.untried(Problem::SetId, &why);
            return;
        }
    };
    let (path, point) = (export.path.display(), export.mount.point.display());
    if flags.contains(StatVfsMountFlags::RDONLY) && !export.policy.readonly() {
        findings.tell(
            Problem::ReadOnly,
            export.says("mounted read-only, although the policy allows changes"),
            format!(
                "`mount -o remount,rw {point}` (a bind mount: `-o remount,bind,rw`), or say \
                 `readonly = true` in the policy"
            ),
        );
    } else {
        findings.ok(Problem::ReadOnly, export.says("mount and policy agree"));
    }
    if flags.contains(StatVfsMountFlags::NOSUID) {
        findings.ok(Problem::SetId, export.says("mounted nosuid"));
    } else if export.policy.readonly() || !export.policy.set_id_bits().has_set_uid() {
        findings.ok(
            Problem::SetId,
            export.says("the policy lets no set-id bit through"),
        );
    } else {
        findings.tell(
            Problem::SetId,
            export.says(
                "not mounted nosuid, and the policy lets set-id bits through: a guest's root can \
                 leave programs there that make the host's users root",
            ),
            format!(
                "say `set_id = \"strip\"` in the policy, or mount it nosuid (`mount --bind {path} \
                 {path}; mount -o remount,bind,nosuid {path}`)"
            ),
        );
    }
}

fn other_mounts(findings: &mut Findings, table: &Table, export: &Export<'_>) {
    let others = table.other_places(export.path);
    if others.is_empty() {
        findings.ok(Problem::OtherMounts, export.says("no other mount shows it"));
        return;
    }
    let places: Vec<String> = others
        .iter()
        .map(|place| place.display().to_string())
        .collect();
    findings.tell(
        Problem::OtherMounts,
        export.says(format!("also seen at {}", places.join(", "))),
        "the client sees there what its user may see: start it with --isolate, or unmount these",
    );
}

fn above(findings: &mut Findings, export: &Export<'_>) {
    match others_may_rename(export.path) {
        None => findings.ok(
            Problem::Movable,
            export.says("only root may rename directories above it"),
        ),
        Some(above) => findings.tell(
            Problem::Movable,
            export.says(format!(
                "others than root may rename what is in {}, and so lead a client past its view as it starts",
                above.display()
            )),
            "start the client with --isolate, or share a directory below directories of root's alone",
        ),
    }
}

/// Only the root's: a look at each file would take long, and the answer is the same.
fn acl(findings: &mut Findings, export: &Export<'_>) {
    let held: Vec<&str> = ["system.posix_acl_access", "system.posix_acl_default"]
        .into_iter()
        .filter(|name| rustix::fs::getxattr(export.path, *name, &mut [0_u8; 0]).is_ok())
        .collect();
    if held.is_empty() {
        findings.ok(
            Problem::Acl,
            export.says("no POSIX ACL on the export's root"),
        );
    } else {
        findings.tell(
            Problem::Acl,
            export.says(format!(
                "its root has {}: the guest cannot change ACLs, and its chmod changes their mask",
                held.join(" and ")
            )),
            "",
        );
    }
}
