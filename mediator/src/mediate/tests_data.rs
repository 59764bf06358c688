//! Whole opens, with a registrar of the test's own and no kernel.

use rustix::io::Errno;

use super::super::tests::World;
use super::*;
use crate::backing::tests::Fake;
use crate::ids::NodeId;
use crate::mediate::reload::KernelCaches;
use crate::policy::Policy;
use crate::policy::tests::Nobody;

/// A kernel that remembers nothing.
struct Forgetful;

impl KernelCaches for Forgetful {
    fn forget_names(&self) -> std::io::Result<bool> {
        Ok(true)
    }

    fn forget_name(&self, _: NodeId, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }

    fn forget_node(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }

    fn wait_for_listings(&self, _: NodeId) -> std::io::Result<()> {
        Ok(())
    }
}

fn world(mode: DataMode, policy: &str) -> (World, Fake) {
    let large = vec![1; usize::try_from(WORTH_IT).unwrap()];
    let mut world = World::over(policy, &[("large", &large), ("small", &large[1..])]);
    let mut fake = Fake::start(None);
    world
        .mediator
        .pass_data(Backings::new(mode, fake.socket.take()));
    world.mediator.backings().kernel_agreed(true);
    (world, fake)
}

fn way(world: &World, name: &str, flags: i32) -> Result<(Way, HandleId), Errno> {
    let node = world.walk(name).unwrap();
    let opened = world.mediator.open(world.who, node, flags)?;
    Ok((opened.way, opened.handle))
}

#[test]
fn size_at_the_open_decides_in_auto_and_nothing_in_passthrough() {
    let (auto, _fake) = world(DataMode::Auto, "default = \"allow\"\n");
    assert_eq!(way(&auto, "small", libc::O_RDWR).unwrap().0, Way::Cached);
    let (past, handle) = way(&auto, "large", libc::O_RDWR).unwrap();
    assert_eq!(past, Way::Passthrough(1));
    auto.mediator.release(handle);
    let cut = libc::O_RDWR | libc::O_TRUNC;
    assert_eq!(way(&auto, "large", cut).unwrap().0, Way::Cached);
    let (all, _fake) = world(DataMode::Passthrough, "default = \"allow\"\n");
    assert_eq!(way(&all, "small", cut).unwrap().0, Way::Passthrough(1));
    let made = all
        .mediator
        .create(all.who, NodeId::ROOT, b"new", 0o600, libc::O_RDWR);
    assert_eq!(made.unwrap().1.way, Way::Passthrough(2));
}

#[test]
fn watched_files_are_mediated_as_far_as_others_allow() {
    let (world, _fake) = world(DataMode::Auto, "default = \"allow\"\n");
    let (_, before) = way(&world, "large", libc::O_RDONLY).unwrap();
    let all = crate::mediate::Selector::default()
        .compile(&Nobody)
        .unwrap();
    let watch = world.mediator.watch(all);
    let (watched, second) = way(&world, "large", libc::O_RDONLY).unwrap();
    assert_eq!(watched, Way::Watched(1));
    world.mediator.release(before);
    world.mediator.release(second);
    assert_eq!(way(&world, "large", 0).unwrap().0, Way::Cached);
    drop(watch);
}

#[test]
fn file_that_goes_past_a_policy_that_judges_it_is_not_opened_again() {
    let (world, _fake) = world(DataMode::Auto, "default = \"allow\"\n");
    let (_, handle) = way(&world, "large", libc::O_RDONLY).unwrap();
    let strict = Policy::parse("t", "default = \"allow\"\nstrict = true\n", &Nobody).unwrap();
    let done = world.mediator.reload(strict, &Forgetful).unwrap();
    assert_eq!(done.past, 1);
    // Before it is truncated.
    let cut = libc::O_RDWR | libc::O_TRUNC;
    assert_eq!(way(&world, "large", cut).err(), Some(Errno::BUSY));
    let length = std::fs::metadata(world.path("large")).unwrap().len();
    assert_eq!(length, WORTH_IT);
    assert_eq!(way(&world, "small", cut).unwrap().0, Way::Cached);
    world.mediator.release(handle);
    assert_eq!(way(&world, "large", 0).unwrap().0, Way::Cached);
}

#[test]
fn files_that_are_open_past_a_policy_are_told_in_order_as_far_as_there_is_room() {
    let (world, _fake) = world(DataMode::Passthrough, "default = \"allow\"\n");
    let open: Vec<_> = ["small", "large"]
        .map(|name| way(&world, name, libc::O_RDONLY).unwrap().1)
        .into();
    let told = |bytes| world.mediator.open_past(bytes);
    assert_eq!(told(100), [b"/large".to_vec(), b"/small".to_vec()]);
    assert_eq!(told(11), [b"/large".to_vec()]);
    for handle in open {
        world.mediator.release(handle);
    }
    assert_eq!(told(100), Vec::<Vec<u8>>::new());
}

#[test]
fn every_known_name_of_a_file_is_asked_about() {
    let rule = "[[rule]]\npath = \"/secret\"\ndo = \"read\"\naction = \"deny\"\nwhen = { offset = { min = 1 } }\n";
    let (world, _fake) = world(DataMode::Auto, &format!("default = \"allow\"\n{rule}"));
    std::fs::hard_link(world.path("large"), world.path("secret")).unwrap();
    let (past, handle) = way(&world, "large", libc::O_RDONLY).unwrap();
    assert_eq!(past, Way::Passthrough(1));
    world.mediator.release(handle);
    world.walk("secret").unwrap();
    assert_eq!(way(&world, "large", 0).unwrap().0, Way::Cached);
}
