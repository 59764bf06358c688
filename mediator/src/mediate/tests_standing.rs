//! What was decided about a file is decided anew when its names, or those above it, are others.

use rustix::io::Errno;

use super::tests::World;
use crate::ids::NodeId;

const SECRET: &str = "default = \"allow\"\n[[rule]]\npath = \"/secret/**\"\n\
                      do = \"read\"\naction = \"deny\"\n";

fn opens(world: &World, node: NodeId) -> Result<(), Errno> {
    let handle = world.mediator.open(world.who, node, libc::O_RDONLY)?.handle;
    world.mediator.release(handle);
    Ok(())
}

/// Judged, remembered, and judged by what was remembered.
fn opens_again(world: &World, node: NodeId) {
    let before = world.mediator.verdicts().remembered();
    for _ in 0..3 {
        assert_eq!(opens(world, node), Ok(()));
    }
    assert!(world.mediator.verdicts().remembered() >= before + 2);
    let pin = world.mediator.export.pin(node).unwrap();
    assert!(!pin.standing().is_none(), "it was remembered");
}

fn rename(world: &World, from: (NodeId, &str), to: (NodeId, &str)) -> Result<(), Errno> {
    let from = (from.0, from.1.as_bytes());
    let to = (to.0, to.1.as_bytes());
    world.mediator.rename(world.who, from, to, 0)
}

#[test]
fn file_that_is_moved_under_stricter_rules_is_judged_by_them() {
    let world = World::over(SECRET, &[("a/f", b"x"), ("secret/old", b"x")]);
    let (a, f, secret) = (
        world.walk("a").unwrap(),
        world.walk("a/f").unwrap(),
        world.walk("secret").unwrap(),
    );
    opens_again(&world, f);
    rename(&world, (a, "f"), (secret, "f")).unwrap();
    assert_eq!(opens(&world, f), Err(Errno::ACCESS));
}

#[test]
fn what_is_below_a_directory_that_is_moved_is_judged_by_its_new_path() {
    let world = World::over(SECRET, &[("a/b/f", b"x"), ("secret/old", b"x")]);
    let (a, f, secret) = (
        world.walk("a").unwrap(),
        world.walk("a/b/f").unwrap(),
        world.walk("secret").unwrap(),
    );
    opens_again(&world, f);
    rename(&world, (a, "b"), (secret, "b")).unwrap();
    assert_eq!(opens(&world, f), Err(Errno::ACCESS));
}

#[test]
fn file_that_has_a_further_name_is_judged_by_that_too() {
    let world = World::over(SECRET, &[("f", b"x"), ("secret/old", b"x")]);
    let f = world.walk("f").unwrap();
    opens_again(&world, f);
    let secret = world.walk("secret").unwrap();
    world.mediator.link(world.who, f, secret, b"f").unwrap();
    assert_eq!(opens(&world, f), Err(Errno::ACCESS));
}

#[test]
fn name_that_the_host_gave_and_the_client_found_counts_at_once() {
    let world = World::over(SECRET, &[("f", b"x"), ("secret/old", b"x")]);
    std::fs::hard_link(world.path("f"), world.path("secret/f")).unwrap();
    let f = world.walk("f").unwrap();
    opens_again(&world, f);
    assert_eq!(world.walk("secret/f"), Ok(f));
    assert_eq!(opens(&world, f), Err(Errno::ACCESS));
    // And when it is gone, it counts no more.
    let secret = world.walk("secret").unwrap();
    world.mediator.unlink(world.who, secret, b"f").unwrap();
    opens_again(&world, f);
}

#[test]
fn lookup_of_another_name_is_judged_by_that_name() {
    let look = SECRET
        .replace("\"read\"", "\"lookup\"")
        .replace("/**", "/f");
    let world = World::over(&look, &[("f", b"x"), ("secret/old", b"x")]);
    std::fs::hard_link(world.path("f"), world.path("secret/f")).unwrap();
    for _ in 0..3 {
        world.walk("f").unwrap();
    }
    let f = world.walk("f").unwrap();
    let pin = world.mediator.export.pin(f).unwrap();
    assert!(!pin.standing().is_none(), "it was remembered");
    assert_eq!(world.walk("secret/f"), Err(Errno::ACCESS));
}

#[test]
fn other_policy_judges_what_was_remembered_anew() {
    let world = World::over(SECRET, &[("f", b"x")]);
    let f = world.walk("f").unwrap();
    opens_again(&world, f);
    let next = SECRET.replace("/secret/**", "/f");
    let next = crate::policy::Policy::parse("next", &next, &crate::policy::tests::Nobody).unwrap();
    world.mediator.reload(next, &Deaf).unwrap();
    assert_eq!(opens(&world, f), Err(Errno::ACCESS));
}

/// A kernel that remembers nothing.
struct Deaf;

impl super::KernelCaches for Deaf {
    fn forget_names(&self) -> std::io::Result<bool> {
        Ok(true)
    }

    fn forget_name(&self, _parent: NodeId, _name: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn wait_for_listings(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }

    fn forget_node(&self, _node: NodeId) -> std::io::Result<()> {
        Ok(())
    }
}
