//! Where a domain's definition and its file do not say the same.

use crate::libvirt::definition::Definition;
use crate::libvirt::domain_file::DomainFile;
use crate::libvirt::domain_xml::is_wrapper;

/// A sentence for each difference; none: they agree. With any of them the hook ends a start.
pub(crate) fn between(file: &DomainFile, definition: &Definition) -> Vec<String> {
    let mut found = Vec::new();
    if !is_wrapper(&definition.emulator) {
        found.push(format!(
            "its emulator is {}, not the wrapper: it would have no views, and does not start",
            definition.emulator.display()
        ));
    }
    if file.uuid != definition.uuid {
        found.push(format!(
            "its uuid is {}, and the file's {}: another domain of that name",
            definition.uuid, file.uuid
        ));
    }
    match (file.client.ids(), definition.static_ids()) {
        (Ok(ids), Some((uid, gid))) if (ids.uid, ids.gid) == (uid, gid) => {}
        (Ok(ids), Some((uid, gid))) => found.push(format!(
            "its DAC label is +{uid}:+{gid}, and the file's client {}:{}",
            ids.uid, ids.gid
        )),
        (Ok(ids), None) => found.push(format!(
            "it has no static DAC label, and the file's client is {}:{}",
            ids.uid, ids.gid
        )),
        (Err(error), _) => found.push(error.to_string()),
    }
    for filesystem in definition.passthrough() {
        let source = filesystem.source.as_ref().map(|(source, _)| source);
        if !file.views.iter().any(|view| Some(&view.export) == source) {
            found.push(format!(
                "its filesystem '{}' ({}) has no view",
                filesystem.tag,
                source.map_or_else(|| "no source".into(), |path| path.display().to_string())
            ));
        }
    }
    for view in &file.views {
        let shares = definition.passthrough().any(|one| {
            one.source
                .as_ref()
                .is_some_and(|(path, _)| *path == view.export)
        });
        if !shares {
            found.push(format!(
                "view '{}' is of {}, which no passthrough filesystem of it shares",
                view.name,
                view.export.display()
            ));
        }
    }
    found
}
