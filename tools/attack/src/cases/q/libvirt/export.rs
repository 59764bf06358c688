//! B's export itself, past its view.

use std::fs;

use serde_json::Value;

use super::look::{Way, told};
use super::pair::{Kind, Pair, kernels, shown};
use crate::driver::emulator::read;
use crate::driver::{OrTell as _, Outcome};
use crate::lab::Lab;

/// Root's processes that see the export or hold it: libvirtd, the service, B's keeper and mediator.
pub(super) fn roots_own(pair: &Pair) -> Result<Vec<(String, i32)>, String> {
    let mut found = vec![("the lab's first process".to_owned(), 1)];
    for (name, file) in [
        ("libvirtd", "/run/libvirtd.pid"),
        ("virtlogd", "/run/virtlogd.pid"),
        ("the service", "/run/serve.pid"),
    ] {
        let pid = pair.libvirt.read(file)?.trim().parse().or_tell(file)?;
        found.push((name.to_owned(), pid));
    }
    if pair.kind == Kind::Root {
        return Ok(found);
    }
    let state = pair.libvirt.read(&format!(
        "/run/virtfs-mediator/{}/state.json",
        pair.b.view()
    ))?;
    let state: Value = serde_json::from_str(&state).or_tell("state.json")?;
    let pid = |value: &Value| {
        let number = value.as_i64().or_else(|| value["pid"].as_i64());
        number.and_then(|number| i32::try_from(number).ok())
    };
    let of = |key: &str| pid(&state[key]).ok_or(format!("state.json has no {key}: {state}"));
    let (keeper, warden) = (of("keeper")?, of("warden")?);
    found.extend([
        ("B's keeper".to_owned(), keeper),
        ("B's warden".to_owned(), warden),
    ]);
    let children = format!("/proc/{warden}/task/{warden}/children");
    let mediator = pair.libvirt.read(&children)?;
    for pid in mediator.split_whitespace() {
        found.push(("B's mediator".to_owned(), pid.parse().or_tell("a pid")?));
    }
    Ok(found)
}

/// Row 32.
pub(super) fn export(lab: &Lab) -> Outcome {
    let mut attempts = Vec::new();
    for kind in [Kind::Root, Kind::Product] {
        let pair = Pair::defined(lab, kind)?;
        // Another mount of B's export, from before A's start: A's namespace has it too.
        let other = pair.b.place.outside().join("other");
        fs::create_dir(&other).or_tell("mkdir")?;
        let export = shown(&pair.b.place.export());
        pair.libvirt
            .run(["mount", "--bind", &export, &shown(&other)])?;
        pair.start(&pair.a)?;
        pair.start(&pair.b)?;
        pair.is_alive()?;
        let others = roots_own(&pair)?;
        let secret = pair.b.secret();
        let path = secret.strip_prefix("/").or_tell("a path")?.to_owned();
        let ways = pair.as_a(|| {
            let way = |way: String, path: &std::path::Path| Way {
                way,
                read: read(path),
            };
            let mut ways = vec![
                way("by its path".into(), &secret),
                way("by another mount".into(), &other.join("secret")),
                way(
                    "by /proc/self/root".into(),
                    &std::path::Path::new("/proc/self/root").join(&path),
                ),
            ];
            for (name, pid) in &others {
                for link in ["root", "cwd"] {
                    let proc = std::path::PathBuf::from(format!("/proc/{pid}/{link}"));
                    ways.push(way(format!("by {link} of {name}"), &proc.join(&path)));
                    if name.starts_with("B's") {
                        // A mediator's root is the export itself.
                        let way_in = format!("by {link} of {name}, as an export");
                        ways.push(way(way_in, &proc.join("secret")));
                    }
                }
            }
            ways
        })?;
        for Way { way, read } in ways {
            let got = read.as_ref().is_ok_and(|bytes| pair.b.place.betrays(bytes));
            let what = told(&read);
            attempts.push(pair.attempt(&way, got, what, kernels()));
        }
        pair.libvirt.run(["umount", "--lazy", &shown(&other)])?;
    }
    Ok(attempts)
}
