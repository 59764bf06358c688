//! Steps on extended attributes and POSIX ACLs.

use rustix::fs::{XattrFlags, getxattr, lgetxattr, llistxattr, lremovexattr, lsetxattr, setxattr};

use super::{Args, Failure, Outcome, unknown};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

pub(super) fn run(op: &str, args: &Args<'_>) -> Option<Outcome> {
    let outcome = match op {
        "setxattr" => set(args),
        "lsetxattr" => lset(args),
        "getxattr" => get(args),
        "removexattr" => remove(args),
        "listxattr" => list(args),
        "setacl" => set_acl(args),
        "getacl" => get_acl(args),
        "removeacl" => remove_acl(args),
        _ => return None,
    };
    Some(outcome)
}

/// `setxattr PATH NAME VALUE [create|replace]`
fn set(args: &Args<'_>) -> Outcome {
    setxattr(
        args.path(0)?,
        args.bytes(1)?,
        args.bytes(2)?,
        flags(args.optional(3)?)?,
    )?;
    Ok(None)
}

/// The same on a symbolic link itself.
fn lset(args: &Args<'_>) -> Outcome {
    lsetxattr(
        args.path(0)?,
        args.bytes(1)?,
        args.bytes(2)?,
        flags(args.optional(3)?)?,
    )?;
    Ok(None)
}

fn flags(word: &str) -> Result<XattrFlags, Failure> {
    match word {
        "" => Ok(XattrFlags::empty()),
        "create" => Ok(XattrFlags::CREATE),
        "replace" => Ok(XattrFlags::REPLACE),
        other => Err(unknown("xattr flag", other)),
    }
}

fn value(args: &Args<'_>, name: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut buffer = vec![0; 65536];
    let got = lgetxattr(args.path(0)?, name, &mut buffer)?;
    buffer.truncate(got);
    Ok(buffer)
}

/// `getxattr PATH NAME [SIZE]`: with a size, into a buffer that may be too small.
fn get(args: &Args<'_>) -> Outcome {
    if !args.optional(2)?.is_empty() {
        let mut buffer = vec![0; args.number(2)?];
        let got = getxattr(args.path(0)?, args.bytes(1)?, &mut buffer)?;
        return Ok(Some(format!("len={got}")));
    }
    let value = value(args, args.bytes(1)?)?;
    Ok(Some(if value.len() > 40 {
        format!("len={}", value.len())
    } else {
        format!("\"{}\"", value.escape_ascii())
    }))
}

/// `removexattr PATH NAME`
fn remove(args: &Args<'_>) -> Outcome {
    lremovexattr(args.path(0)?, args.bytes(1)?)?;
    Ok(None)
}

/// `listxattr PATH`: the names in order.
fn list(args: &Args<'_>) -> Outcome {
    let mut buffer = vec![0; 65536];
    let got = llistxattr(args.path(0)?, &mut buffer)?;
    let mut names: Vec<_> = buffer[..got]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| name.escape_ascii().to_string())
        .collect();
    names.sort();
    Ok(Some(format!("[{}]", names.join(","))))
}

fn acl_name(args: &Args<'_>) -> Result<&'static str, Failure> {
    match args.text(1)? {
        "access" => Ok(ACCESS),
        "default" => Ok(DEFAULT),
        other => Err(unknown("ACL", other)),
    }
}

/// `setacl PATH access|default ENTRY,ENTRY...`, entries as setfacl(1) writes them: `u::rwx`,
/// `u:1000:r`, `g::r`, `m::rw`, `o::-`.
fn set_acl(args: &Args<'_>) -> Outcome {
    // Version 2, then tag, permissions and id of each entry, little endian
    // (include/uapi/linux/posix_acl_xattr.h).
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for entry in args.text(2)?.split(',') {
        let mut parts = entry.splitn(3, ':');
        let (Some(kind), Some(id), Some(letters)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(unknown("ACL entry", entry));
        };
        let tag: u16 = match (kind, id.is_empty()) {
            ("u", true) => 0x01,
            ("u", false) => 0x02,
            ("g", true) => 0x04,
            ("g", false) => 0x08,
            ("m", _) => 0x10,
            ("o", _) => 0x20,
            _ => return Err(unknown("ACL entry", entry)),
        };
        let permission = letters.chars().fold(0_u16, |all, letter| {
            all | match letter {
                'r' => 4,
                'w' => 2,
                'x' => 1,
                _ => 0,
            }
        });
        let id: u32 = if id.is_empty() {
            u32::MAX
        } else {
            super::number(id)?
        };
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permission.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    setxattr(args.path(0)?, acl_name(args)?, &bytes, XattrFlags::empty())?;
    Ok(None)
}

/// `getacl PATH access|default`
fn get_acl(args: &Args<'_>) -> Outcome {
    let bytes = value(args, acl_name(args)?.as_bytes())?;
    let mut entries = Vec::new();
    for entry in bytes.get(4..).unwrap_or_default().chunks_exact(8) {
        let [tag, _, permission, _, id @ ..] = entry else {
            continue;
        };
        let kind = match tag {
            0x01 | 0x02 => "u",
            0x04 | 0x08 => "g",
            0x10 => "m",
            _ => "o",
        };
        let id = match (tag, <[u8; 4]>::try_from(id)) {
            (0x02 | 0x08, Ok(id)) => u32::from_le_bytes(id).to_string(),
            _ => String::new(),
        };
        let letter = |bit: u8, letter: char| if permission & bit == 0 { '-' } else { letter };
        entries.push(format!(
            "{kind}:{id}:{}{}{}",
            letter(4, 'r'),
            letter(2, 'w'),
            letter(1, 'x')
        ));
    }
    Ok(Some(entries.join(",")))
}

/// `removeacl PATH access|default`
fn remove_acl(args: &Args<'_>) -> Outcome {
    lremovexattr(args.path(0)?, acl_name(args)?)?;
    Ok(None)
}
