# Sourced by setup, demo and test: what they change on the host, and how they say so.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prefix=${GORAE_PREFIX:-/opt/gorae}
changes=0
umask 022  # the daemons that are not root must be able to read what is installed here

say() { printf '%s\n' "$*"; }
changed() { changes=$((changes + 1)); printf 'changed  %s\n' "$*"; }
fail() { printf 'cannot %s\n' "$1" >&2; [ -z "${2:-}" ] || printf 'try  %s\n' "$2" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || fail "set up gorae as $(id -un): it needs root" "sudo $0"; }

# The distribution's own Python: one under a home directory would be out of reach of the unprivileged daemons.
python_of_host() {
    local python
    for python in /usr/bin/python3 /usr/bin/python3.1[1-9]; do
        if [ -x "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$python"
            return
        fi
    done
    fail "find Python 3.11 or newer in /usr/bin" "Debian 12, Ubuntu 24.04 or newer"
}

apt_install() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

# In a subshell: run a command during which no package starts a service, and however it ends, allow that again.
without_services() {
    local policy=/usr/sbin/policy-rc.d mark='# gorae, while it installs packages'
    if [ ! -e $policy ] || grep -qxF "$mark" $policy; then
        trap "rm -f $policy" EXIT
        trap 'exit 130' INT TERM HUP
        printf '#!/bin/sh\n%s\nexit 101\n' "$mark" >$policy
        chmod 755 $policy
    fi
    "$@"
}

# Install what is missing of the packages named. No service that a package brings is started or enabled.
ensure_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "install ${missing[*]}: there is no apt-get" "Debian 12 or Ubuntu 24.04"
    local log
    log=$(mktemp)
    say "installing ${missing[*]} …"
    if ! (without_services apt_install "${missing[@]}") >"$log" 2>&1; then
        tail -5 "$log" >&2
        fail "install ${missing[*]}: apt-get failed (its last lines are above; all of them in $log)" "apt-get update"
    fi
    rm -f "$log"
    for package in "${missing[@]}"; do
        case $package in
        mosquitto | docker-registry | redis-server | nginx)
            # gorae runs its own broker; the package's would listen on TCP port 1883 after the next boot.
            if [ -d /run/systemd/system ]; then
                systemctl disable -q "$package" 2>/dev/null || true
            elif command -v update-rc.d >/dev/null; then
                update-rc.d "$package" disable >/dev/null 2>&1 || true
            fi
            changed "installed $package; its own service is neither started nor enabled"
            ;;
        *) changed "installed $package" ;;
        esac
    done
}

# crun refuses to work on a host with cgroup v1 while a controller still sits on the unified tree.
ensure_cgroups() {
    local unified=/sys/fs/cgroup/unified controller
    [ -r $unified/cgroup.controllers ] || return 0
    for controller in $(cat $unified/cgroup.controllers); do
        mountpoint -q "/sys/fs/cgroup/$controller" && continue
        mkdir -p "/sys/fs/cgroup/$controller"
        if mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"; then
            changed "mounted the cgroup v1 hierarchy $controller (crun refuses hybrid mode without it; gone at reboot)"
        else
            fail "mount the cgroup v1 hierarchy $controller" "boot with systemd.unified_cgroup_hierarchy=1"
        fi
    done
}

ensure_user() {
    if ! getent passwd gorae >/dev/null; then
        useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --user-group gorae
        changed "made the system user and group gorae (the orchestrator runs as it; members of the group may use the API)"
    fi
    if ! getent passwd gorae-resolver >/dev/null; then
        useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin --user-group gorae-resolver
        changed "made the system user and group gorae-resolver (what containers look up is parsed as it)"
    fi
    # Recorded, so that nobody else hands these ids to a person: 2^31 ids from 0x70000000, for containers' user namespaces.
    local file
    for file in /etc/subuid /etc/subgid; do
        if ! grep -qs '^root:1879048192:2147483648$' $file; then
            echo root:1879048192:2147483648 >>$file
            changed "recorded the containers' ids 1879048192-4026531839 in $file"
        fi
    done
}

# ensure_venv DIR LOCK: a virtual environment with exactly the locked packages.
ensure_venv() {
    local dir=$1 lock=$2 stamp
    stamp=$(cat "$lock" "$(python_of_host)" | sha256sum | cut -c1-16)
    [ "$(cat "$dir/.locked" 2>/dev/null)" != "$stamp" ] || return 0
    say "making the virtual environment $dir …"
    "$(python_of_host)" -m venv --clear "$dir" || fail "make the virtual environment $dir" "apt-get install python3-venv"
    "$dir/bin/python" -m pip install -qq --disable-pip-version-check --require-hashes -r "$lock" ||
        fail "install the locked Python packages into $dir" "check that the package index can be reached"
    echo "$stamp" >"$dir/.locked"
    changed "made the virtual environment $dir with the packages of ${lock#"$here"/}"
}
