"""The wall around a submission: a folder tree of its own, no network, another user.

Three walls, the best that this computer allows (``best`` tries them):

jail  Linux, as root or with user namespaces: the process sees the system, Python, a
      copy of netinvert, an empty folder, and nothing else of the disk; no network;
      processes of its own that end with it.
user  Linux, root, but nothing may be mounted: another user, no network where allowed.
none  elsewhere: the audit hook in ``inside.py`` alone, which is a tripwire.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

UIDS = itertools.cycle(range(64000, 64500))  # belong to nobody on a usual system
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/nix")
DEVICES = ("null", "zero", "full", "random", "urandom")
MEANING = {
    "jail": "no files, no network, no processes but its own",
    "user": "another user, no network; files that all may read can be read",
    "user, with network": "another user; the network is open",
    "none": "a trip wire only: grade people whom you trust, or in a container",
}
PIVOT = r"""
set -e
new=$1; shift
mount -t tmpfs -o size=1g,mode=755 none "$new"
while [ "$1" != -- ]; do
  mkdir -p "$(dirname "$new$1")"
  if [ -L "$1" ]; then cp -P "$1" "$new$1"
  else
    mkdir -p "$new$1"; mount --rbind "$1" "$new$1"
    mount -o remount,bind,ro "$new$1" 2>/dev/null || :
  fi
  shift
done; shift
mkdir -p "$new/dev" "$new/proc" "$new/tmp" "$new/submission" "$new/old"
for name in DEVICES; do
  : > "$new/dev/$name"; mount --bind /dev/$name "$new/dev/$name"
done
mount -t proc none "$new/proc"
chmod 777 "$new/tmp" "$new/submission"
cd "$new"; pivot_root . old; cd /submission; umount -l /old; rmdir /old
exec "$@"
""".replace("DEVICES", " ".join(DEVICES))


def search_path() -> list[str]:
    """Folders outside of Python's own from which packages are imported."""
    return [p for p in sys.path if "site-packages" in p or "dist-packages" in p]


def visible(package: Path) -> list[str]:
    """What a submission may read, no folder below another."""
    wanted = [*SYSTEM, sys.prefix, sys.base_prefix, *search_path(), str(package)]
    wanted += [
        os.path.realpath(path) for path in wanted
    ]  # some are linked from elsewhere
    found = []
    for path in sorted({os.path.abspath(p) for p in wanted if os.path.exists(p)}):
        if path != "/" and not any(path.startswith(f + "/") for f in found):
            found.append(path)
    return found


def command(kind: str, new: Path, package: Path, uid: int) -> list[str]:
    """What to put before the command of a submission, for one kind of wall."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    other = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if root else []
    drop = ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    drop += other
    apart = ["unshare", *([] if root else ["-U", "-r"]), "--net", "--ipc"]
    apart += ["--pid", "--fork", "--kill-child"]
    if kind == "jail":
        script = ["sh", "-c", PIVOT, "sh", str(new), *visible(package), "--"]
        return [*apart, "--mount", *script, *drop]
    if kind == "user":
        return [*apart, *drop]
    return drop if kind == "user, with network" else []


@functools.cache
def best(package: Path) -> str:
    """The strongest wall behind which this Python starts."""
    kinds = ["jail"] if sys.platform == "linux" else []
    if kinds and os.geteuid() == 0:
        kinds += ["user", "user, with network"]
    for kind in kinds:
        new = package.parent / "try"
        new.mkdir(exist_ok=True)
        words = [*command(kind, new, package, next(UIDS)), sys.executable, "-c"]
        try:
            done = subprocess.run(
                [*words, "import numpy; print(6 * 7)"], capture_output=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.strip() == b"42":
            return kind
    return "none"


def copy_of_package(folder: Path) -> Path:
    """Copy netinvert into a folder, with its test digits standing on their heads.

    Who looks targets up among the test digits, or learns from these, pays for it.
    """
    import hashlib

    import numpy as np

    import netinvert
    from netinvert.data import TRAIN_SIZE

    package = folder / "lib" / "netinvert"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(netinvert.__file__).parent, package, ignore=ignored)
    path, sums = package / "assets/mnist_10k.npz", package / "assets/SHA256SUMS"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with np.load(path) as file:
        arrays = dict(file)
    test = np.random.default_rng(0).permutation(len(arrays["y"]))[TRAIN_SIZE:]
    arrays["x"][test] = arrays["x"][test][:, ::-1, ::-1]
    np.savez(path, **arrays)
    after = hashlib.sha256(path.read_bytes()).hexdigest()
    sums.write_text(sums.read_text().replace(before, after))
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755 if place.is_dir() else 0o644)
    return package
