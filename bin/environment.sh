# Sourced by the commands beside it: finds a Python that has what they need, or makes one in .venv.
#
#   use_environment [EXTRA ...]    sets `python`; an EXTRA is one of pyproject.toml
#
# JAXREC_PYTHON        takes this Python, unchecked
# JAXREC_ACCELERATOR   cpu, cuda or tpu: what to install for, instead of what the machine shows
#
# .venv/.complete is written last: its first line says what the environment was made from, its second
# which extras it has. Without it, .venv is made anew; where the first line differs, it is updated.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
venv=$root/.venv
stamp=$venv/.complete
mark=$venv/.made-by-jaxrec # only what carries it is ever deleted
lock=$root/.venv.lock

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

refuse() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

use_environment() {
  if [ -n "${JAXREC_PYTHON:-}" ]; then
    python=$(command -v -- "$JAXREC_PYTHON") ||
      refuse "JAXREC_PYTHON names '$JAXREC_PYTHON', which is no program; give the path of a python"
    import_from_checkout
    return
  fi
  hardware=$(accelerator)
  wanted="$*"
  if [ "$hardware" != cpu ]; then wanted="$hardware $wanted"; fi
  made_from=$(fingerprint)
  local active=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
  if [ -n "$active" ] && [ "$active" -ef "$venv" ]; then active=; fi
  if [ -z "$active" ] && is_complete; then
    python=$venv/bin/python
    return
  fi
  if [ -n "$active" ]; then python=$active/bin/python; else python=$(command -v python3 || true); fi
  if suits "$python"; then
    import_from_checkout
    return
  fi
  if [ -n "$active" ]; then say "the active $active lacks ${lacks:-a python}; taking $venv"; fi
  python=$venv/bin/python
  if is_complete; then return; fi
  if [ ! -e "$mark" ] && suits "$python"; then
    import_from_checkout
    return
  fi
  make_environment
}

# The checkout wins over an installed copy.
import_from_checkout() { export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"; }

# Whether a Python has what is wanted; a half-made .venv is not asked, whatever it looks like.
suits() {
  lacks=
  [ -x "$1" ] || return 1
  if [ "$1" -ef "$venv/bin/python" ] && [ "${1%/*}" -ef "$venv/bin" ] && [ -e "$mark" ]; then return 1; fi
  # shellcheck disable=SC2086 # extras are words
  lacks=$("$1" "$root/bin/check_environment.py" "$root/pyproject.toml" $wanted 2>/dev/null)
}

accelerator() {
  case ${JAXREC_ACCELERATOR:-} in
  cpu | cuda | tpu) echo "$JAXREC_ACCELERATOR" ;;
  "") if has_nvidia; then echo cuda; elif has_tpu; then echo tpu; else echo cpu; fi ;;
  *) refuse "JAXREC_ACCELERATOR is '$JAXREC_ACCELERATOR'; it can be cpu, cuda or tpu" ;;
  esac
}

has_nvidia() { any_exists /dev/nvidia[0-9]* || nvidia-smi -L >/dev/null 2>&1; }

# Newer TPUs show only as Google's devices on the PCI bus, behind vfio.
has_tpu() {
  local vendor id
  if any_exists /dev/accel[0-9]*; then return 0; fi
  any_exists /dev/vfio/[0-9]* || return 1
  for vendor in /sys/bus/pci/devices/*/vendor; do
    read -r id <"$vendor" && [ "$id" = 0x1ae0 ] || continue
    read -r id <"${vendor%vendor}device" || continue
    case $id in 0x0027 | 0x0056 | 0x005e | 0x0062 | 0x0063 | 0x006f | 0x0076) return 0 ;; esac
  done
  return 1
}

any_exists() {
  local path
  for path in "$@"; do
    if [ -e "$path" ]; then return 0; fi
  done
  return 1
}

# The folder is part of it: an environment that was moved points to where it came from.
fingerprint() {
  { cat "$root/pyproject.toml" "$root/bin/constraints.txt" && echo "$root"; } | cksum
}

# Reads the stamp; true if the environment is whole, up to date and has all extras wanted.
is_complete() {
  local first="" extra
  installed=
  [ -r "$stamp" ] && [ -x "$venv/bin/python" ] || return 1
  { read -r first && read -r installed; } <"$stamp" || true
  [ "$first" = "$made_from" ] || return 1
  for extra in $wanted; do
    case " $installed " in *" $extra "*) ;; *) return 1 ;; esac
  done
}

make_environment() {
  [ -w "$root" ] || refuse "$root cannot be written, so no environment can be made in it; activate one that has the packages"
  take_lock
  if ! is_complete; then # nobody made it while this run waited
    updates=yes
    if [ ! -e "$stamp" ] || ! "$venv/bin/python" -c "" 2>/dev/null; then updates=; create; fi
    install
  fi
  release_lock
}

create() {
  local base
  if [ -e "$venv" ] && [ ! -e "$mark" ] && ! rmdir "$venv" 2>/dev/null; then
    refuse "$venv was made by something else and lacks what is needed; remove it, or activate an environment that has the packages"
  fi
  base=$(base_python)
  installed=
  say "making $venv with $("$base" --version 2>&1)"
  # The mark stays while the rest goes: whatever interrupts this, what is left still counts as ours.
  if [ -e "$venv" ]; then find "$venv" -mindepth 1 -maxdepth 1 ! -path "$mark" -exec rm -rf {} +; fi
  mkdir -p "$venv" && : >"$mark"
  "$base" -m venv "$venv"
}

base_python() {
  local name
  for name in python3.12 python3.13 python3.11 python3; do
    if "$name" -c "$_usable" >/dev/null 2>&1; then
      command -v "$name"
      return
    fi
  done
  refuse "no Python 3.11, 3.12 or 3.13 that can make environments is on PATH; install one, for example python3.12 with python3.12-venv"
}
_usable='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'

# What was installed before stays: `bin/train` after `bin/test` takes nothing away.
install() {
  local extras quiet=()
  # shellcheck disable=SC2086 # extras are words
  extras=$(printf '%s\n' $installed $wanted | sort -u | tr '\n' ' ' | sed 's/ *$//')
  rm -f "$stamp"
  say "installing for $hardware${extras:+ ($extras)}; the first time takes minutes"
  if [ ! -t 2 ]; then quiet=(--progress-bar off); fi
  if [ -n "$updates" ]; then quiet=(--quiet); fi # most is there already
  "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --retries 1 ${quiet[@]+"${quiet[@]}"} \
    -c "$root/bin/constraints.txt" -e "$root${extras:+[${extras// /,}]}" >&2 || {
    say "pip could not install everything: it needs the network, or a mirror in PIP_INDEX_URL; the same command tries again"
    exit 1
  }
  printf '%s\n%s\n' "$made_from" "$extras" >"$stamp.new"
  mv "$stamp.new" "$stamp"
  say "$venv is ready"
}

# With flock, pip holds the lock too and outlives a killed shell; the link carries the owner's number.
take_lock() {
  local owner
  if command -v flock >/dev/null; then
    exec 9>"$lock"
    flock -n 9 || { say "waiting for another set-up of $venv" && flock 9; }
    return
  fi
  until ln -s "$$" "$lock.pid" 2>/dev/null; do
    owner=$(readlink "$lock.pid" || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then rm -f "$lock.pid"; else sleep 0.2; fi
  done
  trap 'rm -f "$lock.pid"' EXIT
}

release_lock() {
  exec 9>&-
  if [ "$(readlink "$lock.pid" || true)" = "$$" ]; then rm -f "$lock.pid"; fi
  trap - EXIT
}
