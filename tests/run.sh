#!/usr/bin/env bash
# Installs what the tests and benchmarks need, then runs all tests. Needs cargo, a C compiler, Python 3.10 or later with
# its venv module, and Node 20 or later with npm; takes redis-server and valgrind from apt (as root or with sudo) if they
# are not there. Everything else goes to tests/.env and tests/vendor_sdk/node_modules. What is installed already is not
# installed again.
#
#   ./tests/run.sh              install and run everything
#   ./tests/run.sh --install    install only; then `cargo test` works
#   ./tests/run.sh ARGUMENTS    install, then `cargo test ARGUMENTS`
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

env_dir=tests/.env
started=$SECONDS
mkdir -p "$env_dir"

say() { printf '[tests] %s\n' "$*"; }
die() {
    printf '[tests] %s\n' "$*" >&2
    exit 1
}

# fresh STAMP FILE...: whether the step that wrote the stamp was done with the same files.
fresh() {
    local stamp=$env_dir/$1.stamp
    shift
    [[ -f $stamp && $(<"$stamp") == "$(cat "$@" | sha256sum)" ]]
}

# done_with STAMP FILE...: notes that a step was done with these files.
done_with() {
    local stamp=$env_dir/$1.stamp
    shift
    cat "$@" | sha256sum >"$stamp"
}

need() {
    command -v "$1" >/dev/null || die "$1 is not there: $2"
}

apt_install() {
    need apt-get "install $* yourself"
    local as_root=()
    if [[ $EUID -ne 0 ]]; then
        need sudo "install $* yourself, or run as root"
        as_root=(sudo)
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q </dev/null
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "$@" </dev/null
}

# from_apt PACKAGE: installs the package whose program has its name.
from_apt() {
    if command -v "$1" >/dev/null; then
        return
    fi
    say "installing $1 from apt"
    apt_install "$1"
}

install_python() {
    local venv=$env_dir/venv requirements=tests/requirements.txt
    if [[ -x $venv/bin/python ]] && fresh python "$requirements" <("$venv/bin/python" --version); then
        return
    fi
    say "installing Python packages into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv" || die "python3 -m venv fails: install python3-venv"
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --requirement "$requirements" </dev/null
    done_with python "$requirements" <("$venv/bin/python" --version)
}

install_node() {
    local folder=tests/vendor_sdk
    if [[ ! -f $folder/package-lock.json ]]; then
        return
    fi
    if [[ -d $folder/node_modules ]] && fresh node "$folder/package.json" "$folder/package-lock.json"; then
        return
    fi
    say "installing Node packages into $folder/node_modules"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error </dev/null
    done_with node "$folder/package.json" "$folder/package-lock.json"
}

need cargo "install Rust, see https://rustup.rs"
need cc "install gcc"
need python3 "install Python 3.10 or later"
need npm "install Node 20 or later"

from_apt redis-server
from_apt valgrind
install_python
install_node
say "what the tests need is there ($((SECONDS - started)) s)"
if [[ ${1-} == --install ]]; then
    exit 0
fi

log=$env_dir/last-run.log
say "running cargo test $*"
status=0
cargo test --no-fail-fast "$@" </dev/null 2>&1 | tee "$log" || status=$?

# Each test binary ends in one line of counts; each failed test has one line.
read -r passed failed ignored < <(
    awk '/^test result:/ {
             for (i = 2; i <= NF; i++) {
                 if ($i == "passed;") p += $(i - 1)
                 if ($i == "failed;") f += $(i - 1)
                 if ($i == "ignored;") n += $(i - 1)
             }
         }
         END { print p + 0, f + 0, n + 0 }' "$log"
)
say "passed $passed, failed $failed, ignored $ignored, in $((SECONDS - started)) s"
if [[ $status -ne 0 ]]; then
    grep -E '^test .* FAILED$' "$log" | sed 's/^/[tests]   /' || say "cargo test failed before or after the tests; see $log"
    die "FAILED"
fi
[[ $passed -gt 0 ]] || die "FAILED: no test has run"
say "all tests passed"
