# shellcheck shell=bash
# Shared by the scripts in this folder and `.ci/run`: checks of the toolchain, and the set-up of the
# programs that the tests start. To be sourced from the repository's root, with
# `set -euo pipefail`.

# The required programs besides Rust and a C compiler: a command, and the Debian package that holds
# it. PostgreSQL's server programs are looked up separately, as they are not in PATH.
readonly tool_packages="openssl:openssl strace:strace"
# shellcheck disable=SC2034  # used by the scripts that source this
readonly nextest_version="0.9.143" deny_version="0.20.2" mmdr_version="0.3.1"

say() { printf '==> %s\n' "$*" >&2; }
warn() { printf 'warning: %s\n' "$*" >&2; }

# die WHAT-HAPPENED WHAT-TO-DO
die() {
  printf '\nerror: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '       %s\n' "${@:2}" >&2
  exit 1
}

# help_if_asked ARGUMENT...: if -h or --help is among them, prints the comment at the beginning of
# the calling script, and exits. Must be called before anything is built or installed.
help_if_asked() {
  local argument
  for argument in "$@"; do
    [ "$argument" != -- ] || return 0
    [ "$argument" = -h ] || [ "$argument" = --help ] || continue
    sed -n '2,/^[^#]/{/^#/{s/^# \{0,1\}//;p;};}' "$0"
    exit 0
  done
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---- Rust and C ----------------------------------------------------------------------------------

# at_least FOUND NEEDED: compares major.minor
at_least() {
  local found=${1%%-*} needed=$2 found_minor needed_minor
  found_minor=${found#*.} needed_minor=${needed#*.}
  [ "${found%%.*}" -gt "${needed%%.*}" ] && return
  [ "${found%%.*}" -eq "${needed%%.*}" ] && [ "${found_minor%%.*}" -ge "${needed_minor%%.*}" ]
}

# Checks that the toolchain satisfies the workspace's rust-version. Sets `target_dir`.
require_rust() {
  # rustup's installer changes PATH for new shells only.
  have cargo || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
  local needed found
  needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  [ -n "$needed" ] \
    || die "Cargo.toml names no rust-version." "Restore the line \`rust-version = ...\`."
  if ! have cargo || ! have rustc; then
    die "Rust is not installed (cargo and rustc are not in PATH)." \
      "Install Rust $needed or later, for example with rustup: https://rustup.rs"
  fi
  found=$(rustc --version) \
    || die "rustc does not run." \
      "Its message is above; \`rustup toolchain install stable\` may fix it."
  found=${found#rustc }
  found=${found%% *}
  at_least "$found" "$needed" \
    || die "Rust $found is too old: this workspace needs $needed or later." \
      "With rustup: rustup update stable && rustup default stable"
  target_dir=$(cargo metadata --locked --no-deps --format-version 1 \
    | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
  [ -n "$target_dir" ] \
    || die "cargo metadata names no target directory." \
      "Run it by hand to see why: cargo metadata --locked --no-deps"
}

# Checks that a C compiler can compile and link: SQLite and the TLS library are C sources.
require_cc() {
  local cc=${CC:-cc}
  have "${cc%% *}" \
    || die "There is no C compiler ($cc)." \
      "Install one, for example: apt-get install gcc libc6-dev"
  # CC may hold arguments.
  # shellcheck disable=SC2086
  printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' | $cc -x c -o /dev/null - \
    || die "The C compiler ($cc) cannot build a small program." "Its message is above." \
      "Often the C library's headers are missing: apt-get install gcc libc6-dev"
}

# ---- Programs that the tests start ---------------------------------------------------------------

# Prints the newest folder that holds PostgreSQL's server programs, or nothing. The tests look in
# the same places in the same order (tests/src/postgres/programs.rs).
postgres_bin() {
  local folder
  if [ -n "${CIPHERMQ_POSTGRES_BIN:-}" ]; then
    is_postgres_bin "$CIPHERMQ_POSTGRES_BIN" \
      || die "CIPHERMQ_POSTGRES_BIN is $CIPHERMQ_POSTGRES_BIN, which lacks initdb or postgres." \
        "Set it to the folder that contains both, or unset it."
    printf '%s\n' "$CIPHERMQ_POSTGRES_BIN"
    return
  fi
  while IFS= read -r folder; do
    # The user that runs root's servers may not be able to enter this folder.
    [ "$(id -u)" -ne 0 ] || [ "$folder" != "$target_dir/tools/bin" ] || continue
    if is_postgres_bin "$folder"; then
      printf '%s\n' "$folder"
      return
    fi
  done < <(
    printf '%s\n' "$PATH" | tr ':' '\n'
    printf '%s\n' /usr/lib/postgresql/*/bin | sort -t / -k 5 -n -r
  )
}

is_postgres_bin() { [ -x "$1/initdb" ] && [ -x "$1/postgres" ]; }

# Finds or installs the programs that the tests start, and sets PATH and CIPHERMQ_POSTGRES_BIN.
# CIPHERMQ_UNPACK_TOOLS=1 ignores the system's programs, and unpacks everything under target/.
require_tools() {
  local missing=() entry found
  PATH="$target_dir/tools/bin:$PATH"
  export PATH
  if [ -n "${CIPHERMQ_UNPACK_TOOLS:-}" ]; then
    unset CIPHERMQ_POSTGRES_BIN
    unpack_all
    return
  fi
  for entry in $tool_packages; do
    have "${entry%%:*}" || missing+=("${entry#*:}")
  done
  # Assigned first, so that a failure in it ends the script before anything is installed.
  found=$(postgres_bin)
  [ -n "$found" ] || missing+=("postgresql")
  if [ ${#missing[@]} -gt 0 ]; then
    have apt-get \
      || die "The tests need programs that are not installed: ${missing[*]}." \
        "Install them (PostgreSQL: the server programs initdb and postgres), then run this again."
    if [ "$(id -u)" -eq 0 ]; then
      say "Installing ${missing[*]} with apt-get"
      apt_install env
    elif have sudo && sudo -n true 2>/dev/null; then
      say "Installing ${missing[*]} with sudo apt-get"
      apt_install sudo -n env
    else
      say "Unpacking ${missing[*]} under $target_dir/tools (not root, and no sudo without password)"
      unpack "${missing[@]}"
    fi
  fi
  CIPHERMQ_POSTGRES_BIN=$(postgres_bin)
  export CIPHERMQ_POSTGRES_BIN
  for entry in $tool_packages; do
    have "${entry%%:*}" \
      || die "${entry%%:*} is still missing after installing its package." \
        "Install the package ${entry#*:} by hand, then run this again."
  done
  [ -n "$CIPHERMQ_POSTGRES_BIN" ] \
    || die "PostgreSQL's initdb and postgres are still missing after installing it." \
      "Install PostgreSQL by hand, or set CIPHERMQ_POSTGRES_BIN to their folder."
}

unpack_all() {
  local packages=() entry
  for entry in $tool_packages; do packages+=("${entry#*:}"); done
  export CIPHERMQ_POSTGRES_BIN="$target_dir/tools/bin"
  # Written last, so its presence implies the rest.
  is_postgres_bin "$CIPHERMQ_POSTGRES_BIN" && return
  say "Unpacking ${packages[*]} postgresql under $target_dir/tools (CIPHERMQ_UNPACK_TOOLS is set)"
  unpack "${packages[@]}" postgresql
}

# postgres_package APT-CONF: prints the package behind the empty metapackage `postgresql`.
postgres_package() {
  apt-cache -c "$1" depends postgresql 2>/dev/null \
    | sed -n 's/^ *Depends: \(postgresql-[0-9][0-9]*\)$/\1/p' | head -n 1 || true
}

# apt_install AS-ROOT...: installs the caller's `missing` on the system.
apt_install() {
  local as_root=("$@" DEBIAN_FRONTEND=noninteractive)
  # The time limit is for other checkouts that install at the same time.
  local apt=("${as_root[@]}" apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300
    -o Dpkg::Options::=--force-confold)
  # An unrelated package source that is broken must not prevent the installation.
  retry 5 "${apt[@]}" update >&2 \
    || warn "apt-get update failed; trying with the package lists at hand"
  if [[ " ${missing[*]} " == *" postgresql "* ]]; then
    # Keeps Debian's package from creating a cluster and starting it as a service. The tests create
    # their own.
    # shellcheck disable=SC2016  # expanded by that shell
    "${as_root[@]}" sh -c 'conf=/etc/postgresql-common/createcluster.conf
      [ -e $conf ] || { mkdir -p ${conf%/*} && echo "create_main_cluster = false" >$conf; }' \
      || die "Cannot write /etc/postgresql-common/createcluster.conf." \
        "Install PostgreSQL by hand: apt-get install postgresql"
  fi
  "${apt[@]}" install --yes --no-install-recommends "${missing[@]}" >&2 </dev/null \
    || die "apt-get could not install ${missing[*]}." \
      "Its message is above. Install them by hand, then run this again."
}

retry() {
  local tries=$1
  shift
  until "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    sleep 3
  done
}

# unpack PACKAGE...: downloads the packages and their missing dependencies, without privileges and
# with its own package lists; unpacks them beside the build; and writes wrapper scripts that find
# their libraries.
unpack() {
  local packages=() package root="$target_dir/tools/debian" apt_dir="$target_dir/tools/apt" deb
  have dpkg-deb || die "dpkg-deb is missing, so packages cannot be unpacked." "Install by hand: $*"
  rm -rf "$apt_dir/archives"
  mkdir -p "$target_dir/tools/bin" "$root" "$apt_dir/lists/partial" "$apt_dir/archives/partial"
  # Hooks of the system's configuration, such as the clean-up of container images, need root.
  cat >"$apt_dir/apt.conf" <<EOF
Dir::State::lists "$apt_dir/lists";
Dir::Cache "$apt_dir";
Dir::Cache::archives "$apt_dir/archives";
APT::Sandbox::User "";
Debug::NoLocking "true";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
EOF
  apt-get -qq -c "$apt_dir/apt.conf" update >&2 \
    || warn "apt-get update failed in part; continuing with the package lists that it got"
  for package in "$@"; do
    [ "$package" != postgresql ] || package=$(postgres_package "$apt_dir/apt.conf")
    [ -n "$package" ] \
      || die "apt has no PostgreSQL package." \
        "Install PostgreSQL by hand, or set CIPHERMQ_POSTGRES_BIN to its folder."
    packages+=("$package")
  done
  # --reinstall downloads packages that the system has, too (CIPHERMQ_UNPACK_TOOLS).
  apt-get -qq -c "$apt_dir/apt.conf" install --yes --no-install-recommends --download-only \
    --reinstall "${packages[@]}" >&2 </dev/null \
    || die "apt-get could not download ${packages[*]}." \
      "Its message is above. Ask an administrator to install them, then run this again."
  for deb in "$apt_dir"/archives/*.deb; do dpkg-deb -x "$deb" "$root"; done
  for program in "$root"/usr/bin/{openssl,strace} "$root"/usr/lib/postgresql/*/bin/{initdb,postgres}
  do
    [ ! -x "$program" ] || write_starter "$root" "$program"
  done
}

# shellcheck disable=SC2016  # expanded by the wrapper script
# write_starter ROOT PROGRAM: writes a script that starts PROGRAM with its unpacked libraries.
# PostgreSQL finds its other files relative to its own location.
write_starter() {
  local starter="$target_dir/tools/bin/${2##*/}" libraries
  libraries=$(find "$1" -maxdepth 3 -type d -path '*lib/*-linux-*' | paste -s -d :)
  {
    printf '#!/usr/bin/env bash\n'
    printf '# Written by scripts/lib.sh: starts a program of the unpacked packages.\n'
    printf 'export LD_LIBRARY_PATH=%q"${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"\n' "$libraries"
    [ -r /usr/lib/ssl/openssl.cnf ] || printf 'export OPENSSL_CONF=%q\n' "$1/etc/ssl/openssl.cnf"
    printf 'exec %q "$@"\n' "$2"
  } >"$starter.$$"
  chmod +x "$starter.$$"
  mv -f "$starter.$$" "$starter"
}

# ---- Cargo's own tools ---------------------------------------------------------------------------

# cargo_tool NAME VERSION OPTION...: finds `cargo NAME`, or builds it beside the project with these
# options of `cargo install`, and adds it to PATH.
cargo_tool() {
  PATH="$target_dir/tools/bin:$PATH"
  export PATH
  cargo "$1" --version >/dev/null 2>&1 || install_crate "cargo-$1@$2" "${@:3}"
}

# crate_tool PROGRAM CRATE VERSION OPTION...: sets `tool` to PROGRAM of exactly this version of
# CRATE, which is built beside the project if it is missing.
crate_tool() {
  tool="$target_dir/tools/bin/$1"
  [[ "$("$tool" --version 2>/dev/null)" == *" $3" ]] || install_crate "$2@$3" --force "${@:4}"
}

# install_crate CRATE@VERSION OPTION...
install_crate() {
  say "Installing $1 into $target_dir/tools (a few minutes, once)"
  cargo install --quiet --locked --root "$target_dir/tools" "$@" >&2 </dev/null \
    || die "$1 could not be installed." "Its message is above. By hand: cargo install --locked $*"
}

# ---- The README ----------------------------------------------------------------------------------

# readme_as_a_project: checks that the README's Cargo.toml and program compile in a new project. It
# uses the checkout's versions of dependencies, so that nothing is fetched.
# shellcheck disable=SC2016  # the backquotes are Markdown's
readme_as_a_project() {
  local project
  project=$(mktemp -d "${TMPDIR:-/tmp}/ciphermq-readme-XXXXXX")
  mkdir "$project/src"
  {
    printf '[package]\nname = "readme"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
    sed -n '/^```toml$/,/^```$/{/^```/!p}' README.md | sed -n '/^\[dependencies\]$/,$p' \
      | sed "s|\"\.\./ciphermq/|\"$PWD/|"
    # With the workspace's profile, most of what was built for it is used again.
    printf '\n'
    sed -n '/^\[profile\.dev/,/^$/p' Cargo.toml
  } >"$project/Cargo.toml"
  sed -n '/^```rust/,/^```$/{/^```/!p}' README.md >"$project/src/main.rs"
  cp Cargo.lock "$project"
  CARGO_TARGET_DIR="$target_dir" cargo check --quiet --manifest-path "$project/Cargo.toml" \
    || die "The README's program does not compile in a new project." "The project: $project"
  rm -rf "$project"
}

# ---- Tests as another user -----------------------------------------------------------------------

# unit_tests_as_plain_user: builds the workspace's unit tests, and runs them as `nobody`. Needs
# root. It skips tests that start PostgreSQL, which never runs as root anyway; tests that mount or
# trace, which need privileges; and tests that look for programs in their own folder.
unit_tests_as_plain_user() {
  local folder program programs failed=() skip=() name
  local as_user=(setpriv --reuid=nobody "--regid=$(id -g nobody)" --clear-groups env -i)
  for name in postgres mounted_ traced_ binaries::; do skip+=(--skip "$name"); done
  programs=$(cargo test --workspace --lib --bins --no-run --locked 2>&1) \
    || die "The unit tests cannot be built." "$programs"
  programs=$(printf '%s\n' "$programs" | sed -n 's/^ *Executable unittests .*(\(.*\))$/\1/p')
  [ -n "$programs" ] \
    || die "cargo lists no unit tests." \
      "See what this prints: cargo test --workspace --lib --bins --no-run"
  # Copied, because `nobody` may not be able to enter the build folder.
  folder=$(mktemp -d "${TMPDIR:-/tmp}/ciphermq-plain-user-XXXXXX")
  chmod 755 "$folder"
  mkdir "$folder/home"
  chown nobody "$folder/home"
  for program in $programs; do
    [ "${program#/}" != "$program" ] || program="$PWD/$program"
    cp "$program" "$folder/test"
    chmod 755 "$folder/test"
    say "${program##*/}"
    (cd "$folder/home" && "${as_user[@]}" PATH="$PATH" HOME="$folder/home" TMPDIR="$folder/home" \
      ../test --quiet "${skip[@]}" </dev/null) \
      || failed+=("${program##*/}")
  done
  rm -rf "$folder"
  [ ${#failed[@]} -eq 0 ] \
    || die "Unit tests fail as a plain user: ${failed[*]}." "Their messages are above."
}

# ---- A PostgreSQL to measure with ----------------------------------------------------------------

# Prints a local port on which nothing listens.
free_port() {
  local port
  while true; do
    port=$((RANDOM % 20000 + 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { printf '%s\n' "$port" && return; }
  done
}

# await_port PORT PROCESS LOG: waits until PROCESS listens on PORT.
await_port() {
  local tries=0
  until (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 600 ] || die "Nothing listens on port $1 after 60 s." "The log: $3"
    kill -0 "$2" 2>/dev/null || die "The process for port $1 has ended." "$(tail -n 20 "$3")"
    sleep 0.1
  done
}

# start_postgres FOLDER: creates a cluster in FOLDER/pg and starts it; sets `port` and `postgres`,
# the process. The database is `postgres`, its user `ciphermq`, for local connections only.
# PostgreSQL refuses to run as root, hence the other user.
start_postgres() {
  local as_user=(env) data="$1/pg" user=nobody
  mkdir -p "$data"
  if [ "$(id -u)" -eq 0 ]; then
    ! id postgres >/dev/null 2>&1 || user=postgres
    chown "$user" "$data"
    as_user=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups env)
  fi
  (cd / && "${as_user[@]}" "$CIPHERMQ_POSTGRES_BIN/initdb" --pgdata "$data" --username ciphermq \
    --auth trust --encoding UTF8 --no-locale) >"$1/log" 2>&1 \
    || die "PostgreSQL's initdb failed." "$(tail -n 20 "$1/log")"
  port=$(free_port)
  (cd / && exec "${as_user[@]}" "$CIPHERMQ_POSTGRES_BIN/postgres" -D "$data" -p "$port" \
    -c listen_addresses=127.0.0.1 -c unix_socket_directories=) >>"$1/log" 2>&1 &
  postgres=$!
  await_port "$port" "$postgres" "$1/log"
}
