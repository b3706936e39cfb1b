#!/usr/bin/env bash
# Brings libtorch 2.9.0 for the feature `tch`, for the CPU, from the Python package index alone (x86-64 Linux).
#
#   scripts/setup-libtorch.sh [FOLDER]      default: libtorch, in the current folder
#
# The wheel of torch holds libtorch. It is the build for CUDA, of which only the parts for the CPU are kept; those still
# ask for two small CUDA libraries when they are loaded, which come from their own wheels. No GPU and no CUDA is needed.
# Downloads about 920 MB, keeps about 490 MB. Needs Python with pip, and the C++ compiler that the crate `tch` needs.
# Prints the variables to set.
set -euo pipefail

version=2.9.0
into=$(realpath -m "${1:-libtorch}")

say() { echo "$*" >&2; }
fail() { say "error: $*"; exit 1; }

[ "$(uname -sm)" = "Linux x86_64" ] || fail "this script knows Linux on x86-64; elsewhere, unpack libtorch $version and set LIBTORCH to it"
command -v python3 >/dev/null || fail "python3 with pip is needed to download the wheels"
command -v cc >/dev/null || fail "a C compiler (cc) is needed"

if [ "$(cat "$into/build-version" 2>/dev/null)" != "$version" ]; then
    [ -e "$into/build-version" ] || [ -z "$(ls -A "$into" 2>/dev/null)" ] ||
        fail "$into is not empty and holds no libtorch: name another folder"
    wheels=$(mktemp -d)
    trap 'rm -rf "$wheels"' EXIT
    say "Downloading torch $version (900 MB) and two small libraries that it asks for"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$wheels" --only-binary :all: \
        --python-version 3.11 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 \
        "torch==$version" nvidia-cuda-cupti-cu12==12.8.90 nvidia-cuda-runtime-cu12==12.8.90 >&2

    say "Unpacking what the CPU needs into $into"
    rm -rf "$into"
    mkdir -p "$into/lib"
    python3 - "$wheels" "$into" <<'PYTHON'
import pathlib, shutil, sys, zipfile

wheels, into = map(pathlib.Path, sys.argv[1:])
libraries = {"libc10.so", "libtorch_cpu.so", "libgomp.so.1", "libcupti.so.12", "libcudart.so.12"}
for wheel in wheels.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = pathlib.PurePosixPath(name)
            if path.name in libraries:
                target = into / "lib" / path.name
            elif name.startswith("torch/include/") and not name.endswith("/"):
                target = into / path.relative_to("torch")
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, "wb") as to:
                shutil.copyfileobj(source, to)
missing = [name for name in libraries if not (into / "lib" / name).exists()]
if missing:
    sys.exit(f"error: the wheels do not hold {', '.join(missing)}")
PYTHON
    # The wheel's libtorch.so is empty but for the libraries it names, those for CUDA among them. This one names the CPU's.
    cc -shared -o "$into/lib/libtorch.so" -Wl,-soname,libtorch.so -Wl,--no-as-needed -L"$into/lib" -ltorch_cpu -lc10 \
        -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
    echo "$version" > "$into/build-version"
fi

say "libtorch $version is in $into. Set:"
echo "export LIBTORCH=\"$into\""
echo "export LD_LIBRARY_PATH=\"$into/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""
