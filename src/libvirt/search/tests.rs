use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

fn allow(path: &Path, uid: u32) -> Allowance {
    let allowance = Allowance::plan(path, uid).unwrap();
    allowance.allow().unwrap();
    allowance
}

fn acl(path: &Path) -> Acl {
    read(&open(path).unwrap()).unwrap()
}

/// A directory with this ACL, given as setfacl(1) does by its numbers.
fn directory(entries: &[(u16, u16, u32)]) -> (tempfile::TempDir, PathBuf, Acl) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    let entry = |&(tag, permissions, id): &(u16, u16, u32)| Entry {
        tag,
        permissions,
        id,
    };
    let acl = Acl(entries.iter().map(entry).collect());
    write(&open(&path).unwrap(), &acl).unwrap();
    (directory, path, acl)
}

const BOB: u32 = 61_299;

#[test]
fn allowed_and_taken_back_leaves_what_was() {
    for before in [0o750, 0o700, 0o2711] {
        let directory = tempfile::tempdir().unwrap();
        let path = &directory.path().canonicalize().unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(before)).unwrap();
        let first = allow(path, 61_234);
        let second = allow(path, 61_235);
        assert_eq!(mode(path) & 0o707, before & 0o707, "nobody else gains");
        assert_eq!(first.take_back().unwrap(), None);
        assert_eq!(second.take_back().unwrap(), None);
        assert_eq!(second.take_back().unwrap(), None);
        assert_eq!(mode(path), before);
        let mut value = [0; 64];
        let rest = rustix::fs::getxattr(path, NAME, value.as_mut_slice());
        assert_eq!(rest, Err(Errno::NODATA));
    }
    let gone = Allowance {
        directory: "/no/such/directory".into(),
        uid: 61_234,
        before: Before {
            entry: None,
            mask: None,
            named: false,
        },
    };
    assert_eq!(gone.take_back().unwrap(), None);
    assert!(gone.allow().is_err());
}

/// Others' entries that the mask keeps from searching do not get it along with the domain's user.
#[test]
fn mask_that_limits_others_is_not_raised() {
    for (other, who) in [
        ((tag::USER, 7, BOB), "uid 61299"),
        ((tag::GROUP, 5, BOB), "gid 61299"),
    ] {
        let mut entries = vec![
            (tag::USER_OBJ, 7, NO_ID),
            (tag::USER, 4, 61_234),
            (tag::GROUP_OBJ, 4, NO_ID),
            (tag::MASK, 4, NO_ID),
            (tag::OTHER, 0, NO_ID),
            other,
        ];
        entries.sort_by_key(|(tag, _, id)| (*tag, *id));
        let (_directory, path, before) = directory(&entries);
        let told = Allowance::plan(&path, 61_234).unwrap_err().to_string();
        assert!(told.contains(who), "{told}");
        assert!(told.contains("setfacl -m u:61234:rx "), "{told}");
        assert_eq!(acl(&path), before);
    }
}

/// Where nobody gains by it, the mask is raised, and lowered again.
#[test]
fn entry_and_mask_that_were_there_are_put_back() {
    let (_directory, path, before) = directory(&[
        (tag::USER_OBJ, 7, NO_ID),
        (tag::USER, 4, 61_234),
        (tag::USER, 6, BOB),
        (tag::GROUP_OBJ, 4, NO_ID),
        (tag::MASK, 6, NO_ID),
        (tag::OTHER, 0, NO_ID),
    ]);
    let allowance = allow(&path, 61_234);
    let then = acl(&path);
    assert_eq!((then.of_user(61_234), then.mask()), (Some(5), Some(7)));
    assert_eq!(then.of_user(BOB), Some(6));
    // Twice is once.
    assert!(allowance.allow().is_err(), "it is not as it was looked at");
    assert_eq!(allowance.take_back().unwrap(), None);
    assert_eq!(acl(&path), before);
}

#[test]
fn what_was_changed_since_stays() {
    let (_directory, path, _) = directory(&[
        (tag::USER_OBJ, 7, NO_ID),
        (tag::GROUP_OBJ, 5, NO_ID),
        (tag::OTHER, 0, NO_ID),
    ]);
    let allowance = allow(&path, 61_234);
    // Somebody gives the user more.
    let mut more = acl(&path);
    more.0
        .iter_mut()
        .find(|one| one.tag == tag::USER)
        .unwrap()
        .permissions = 7;
    write(&open(&path).unwrap(), &more).unwrap();
    let told = allowance.take_back().unwrap().unwrap();
    assert!(told.contains("stays"), "{told}");
    assert_eq!(acl(&path), more);

    // chmod(1) sets the mask: that is kept when the entry goes.
    let (_directory, path, _) = directory(&[
        (tag::USER_OBJ, 7, NO_ID),
        (tag::GROUP_OBJ, 5, NO_ID),
        (tag::OTHER, 0, NO_ID),
    ]);
    let allowance = allow(&path, 61_234);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(acl(&path).mask(), Some(0));
    assert_eq!(allowance.take_back().unwrap(), None);
    assert_eq!(acl(&path), Acl::of_mode(0o700));
}

/// Whoever may rename a directory above could have root open up another one.
#[test]
fn link_in_the_way_is_not_followed() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let (above, other) = (top.join("above"), top.join("other"));
    for place in [&above, &other] {
        std::fs::create_dir_all(place.join("home")).unwrap();
    }
    let path = above.join("home");
    let allowance = Allowance::plan(&path, 61_234).unwrap();
    std::fs::rename(&above, top.join("moved")).unwrap();
    std::os::unix::fs::symlink("other", &above).unwrap();
    let before = acl(&other.join("home"));
    assert!(Allowance::plan(&path, 61_234).is_err());
    assert!(allowance.allow().is_err());
    assert_eq!(allowance.take_back().unwrap(), None);
    assert_eq!(acl(&other.join("home")), before);
}

#[test]
fn command_that_cures_takes_nothing_away() {
    let (_directory, path, _) = directory(&[
        (tag::USER_OBJ, 7, NO_ID),
        (tag::USER, 6, 61_234),
        (tag::GROUP_OBJ, 0, NO_ID),
        (tag::MASK, 6, NO_ID),
        (tag::OTHER, 0, NO_ID),
    ]);
    let shown = path.display();
    let cure = format!("setfacl -m u:61234:rwx {shown}");
    assert_eq!(setfacl(&path, 61_234), cure);
    let cure = format!("setfacl -m u:61235:x {shown}");
    assert_eq!(setfacl(&path, 61_235), cure);
}

#[test]
fn entries_of_others_stay() {
    let mut acl = Acl::of_mode(0o750);
    acl.allow(7);
    let before = acl.clone();
    let was = acl.before(5);
    acl.allow(5);
    assert_eq!(Acl::parse(&acl.bytes()).unwrap(), acl);
    assert!(acl.0.is_sorted());
    assert!(!acl.put_back(5, was));
    assert_eq!(acl, before);
}

#[test]
fn what_is_no_acl_is_refused() {
    assert_eq!(Acl::parse(&[]), None);
    assert_eq!(Acl::parse(&[1, 0, 0, 0]), None);
    assert_eq!(Acl::parse(&[2, 0, 0, 0, 1]), None);
    assert_eq!(Acl::parse(&[2, 0, 0, 0]), Some(Acl(vec![])));
}
