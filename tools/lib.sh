# shellcheck shell=bash
# What tools/try and tools/test share. Sourced with the checkout as working directory.

target=${CARGO_TARGET_DIR:-$PWD/target}

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Only what needs root is run so. As a user, sudo asks once; SUDO_UID tells who QEMU should be.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  else
    command -v sudo >/dev/null || die "this step needs root and sudo is not installed: $*"
    sudo --preserve-env=CARGO_TERM_COLOR -- "$@"
  fi
}

# strictly COMMAND...: in a shell of its own, in which the first failure is the end; sets `status`. Not for
# conditions: after `if`, `while` or `!`, and before `&&` or `||`, bash goes on after failures whatever is set.
strictly() {
  set +e
  (
    set -euo pipefail
    "$@"
  )
  status=$?
  set -e
}

# step TITLE COMMAND...: runs it with its output in a log, says how long it took.
step() {
  local title=$1 start=$SECONDS log status
  shift
  log=$(mktemp)
  printf '%-46s ' "$title"
  strictly "$@" >"$log" 2>&1
  if [ "$status" -eq 0 ]; then
    rm -f "$log"
    echo "$((SECONDS - start)) s"
  else
    echo "failed"
    tail -n 40 "$log" >&2
    rm -f "$log"
    exit 1
  fi
}

missing_packages() { # PROGRAM:PACKAGE... or /FILE:PACKAGE...
  local pair
  for pair in "$@"; do
    case $pair in
    /*) [ -e "${pair%%:*}" ] || echo "${pair#*:}" ;;
    *)
      command -v "${pair%%:*}" >/dev/null 2>&1 || [ -e "/usr/sbin/${pair%%:*}" ] ||
        echo "${pair#*:}"
      ;;
    esac
  done
}

# without_daemons COMMAND...: packages that it installs start nothing (invoke-rc.d(8) asks this file).
without_daemons() (
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  "$@"
)

# Names what it installs, and installs nothing that is there already.
install_packages() { # PROGRAM:PACKAGE...
  local packages
  mapfile -t packages < <(missing_packages "$@")
  [ ${#packages[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "install ${packages[*]} (there is no apt-get here to do it)"
  step "package lists" as_root apt-get update -q
  step "install ${packages[*]}" without_daemons as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -yq --no-install-recommends "${packages[@]}"
}

# The guest's kernel is looked up in apt's lists, which a fresh machine does not have.
refresh_package_lists() {
  [ -e "$target/guest/vmlinuz" ] || [ -n "$(apt-cache depends linux-image-amd64 2>/dev/null)" ] ||
    step "package lists" as_root apt-get update -q
}

# Without the attack tool, whose features open doors that the product does not have: cargo would
# build all of it with them. Always the whole of it: cargo builds a dependency anew when others of
# its features are asked for, and so all that stands on it.
product=(--workspace --exclude virtfs-attack)

# The product's programs, and others of the workspace.
build() { # PROFILE PROGRAM...
  local name options=(--profile "$1")
  shift
  command -v cargo >/dev/null || die "cargo is missing: install Rust first"
  for name in virtfs-mediator virtfs-mediator-qemu "$@"; do options+=(--bin "$name"); done
  cargo build --locked "${product[@]}" "${options[@]}"
}

make_guest() { tools/guest/build; }

# install_crates CRATE@VERSION...: others' programs, into target/tools/bin. Theirs is little to do, so
# it is building them that has to be quick; what compresses, and fsx, which compares all that it reads
# byte by byte, are worth the compiler's time.
install_crates() {
  local name options=(--profile dev --config profile.dev.debug=false)
  for name in zstd-sys lzma-sys xz2 fsx; do options+=(--config "profile.dev.package.$name.opt-level=3"); done
  CARGO_INCREMENTAL=0 cargo install --quiet --locked "${options[@]}" \
    --root "$target/tools" --target-dir "$target/tools/build" "$@"
}

# Where this host has its packages from, a line an archive, as apt-get(8) indextargets has it.
archives() { # FORMAT FILTER...
  apt-get indextargets --format "$1" 'Created-By: Packages' "${@:2}" 2>/dev/null | awk '!seen[$0]++'
}

# The original sources of a Debian package into DIRECTORY, unpacked there. apt checks their signature;
# lists of its own, since few hosts have sources in theirs, kept in LISTS for the next.
debian_source() { # PACKAGE DIRECTORY LISTS
  local options
  mkdir -p "$2" "$3/lists/partial"
  options=(-q -o "Dir::Etc::sourcelist=$3/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$3/lists" -o Dir::Cache::srcpkgcache= -o Dir::Cache::pkgcache=
    -o APT::Sandbox::User=root)
  if [ ! -s "$3/sources.list" ]; then
    # shellcheck disable=SC2016 # apt's variables
    archives 'deb-src $(SITE) $(RELEASE) $(COMPONENT)' 'Origin: Debian' 'Component: main' >"$3/sources.list"
    [ -s "$3/sources.list" ] || { echo "apt's lists name no Debian: apt-get update" >&2 && return 1; }
    as_root apt-get "${options[@]}" update || return 1
  fi
  (cd "$2" && as_root apt-get "${options[@]}" --download-only source "$1") &&
    tar -xf "$2/$1"_*.orig.tar.[gx]z -C "$2" --strip-components=1
}

# libfuse's examples that the package of examples leaves out or has as source, into OUT: others'
# mirrors, beside which a view is measured and checked.
build_fuse_examples() { # OUT
  local work code=0
  work=$(mktemp -d)
  debian_source fuse3 "$work/fuse3" "$work/apt" && compile_fuse_examples "$work/fuse3/example" "$1" || code=$?
  as_root rm -rf "$work"
  return "$code"
}

# Whether they are there, as this file would build them.
have_fuse_examples() { # OUT
  [ "$1/passthrough_hp" -nt tools/lib.sh ] && [ "$1/passthrough_ll" -nt tools/lib.sh ]
}

compile_fuse_examples() { # SOURCES OUT
  # What libfuse's own build finds in glibc: without it they set no times and have no attributes.
  local fuse_flags flags=(-O2 -pthread -D_GNU_SOURCE -DHAVE_UTIMENSAT -DHAVE_POSIX_FALLOCATE
    -DHAVE_FALLOCATE -DHAVE_SETXATTR -DHAVE_COPY_FILE_RANGE)
  read -ra fuse_flags < <(pkg-config --cflags --libs fuse3)
  mkdir -p "$2" &&
    g++ -std=c++17 "${flags[@]}" "$1/passthrough_hp.cc" -o "$2/passthrough_hp.new" "${fuse_flags[@]}" &&
    gcc -w "${flags[@]}" "$1/passthrough_ll.c" -o "$2/passthrough_ll.new" "${fuse_flags[@]}" &&
    mv "$2/passthrough_hp.new" "$2/passthrough_hp" && mv "$2/passthrough_ll.new" "$2/passthrough_ll"
}
