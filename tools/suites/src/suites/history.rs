//! git: a clone of this project's own repository, packed, checked and taken apart again.

use crate::error::Result;
use crate::outcome::{Case, Outcome};
use crate::seat::Seat;
use crate::suites::{Extent, scripted};

const SUITE: &str = "git";

pub(crate) fn run(seat: &Seat<'_>, _extent: Extent) -> Result<Vec<Case>> {
    let bundle = seat.tools().at("src/checkout.bundle");
    let script = |case: &str, script: &str| scripted(seat, SUITE, case, script, &[&bundle], 300);
    let mut cases = vec![
        script(
            "clone",
            "git clone -q \"$1\" checkout\ncd checkout\ngit fsck --full --strict\n\
             test -z \"$(git status --porcelain)\"",
        )?,
        script(
            "gc",
            "cd checkout\ngit gc -q --prune=now\ngit fsck --full\ngit count-objects -v",
        )?,
    ];
    // Objects one by one, each made, synced, linked or renamed.
    cases.push(if seat.place().is_guests() {
        let why = "each of them synced: more than five minutes in an emulated guest";
        Case::new(SUITE, "unpack", Outcome::Skipped(why.to_owned()))
    } else {
        script(
            "unpack",
            "git init -q loose\ncd loose\nmv ../checkout/.git/objects/pack .\n\
             for pack in pack/*.pack; do git -c core.fsync=all unpack-objects -q <\"$pack\"; done\n\
             mv pack/* ../checkout/.git/objects/pack 2>/dev/null || {\n\
             mkdir -p ../checkout/.git/objects/pack; mv pack/* ../checkout/.git/objects/pack; }\n\
             git fsck --full",
        )?
    });
    cases.push(script(
        "worktree",
        "cd checkout\ngit worktree add -q ../worktree HEAD~3\ncd ../worktree\n\
             git checkout -q --detach HEAD~2\ntest -z \"$(git status --porcelain)\"\n\
             git diff --quiet HEAD",
    )?);
    Ok(cases)
}
