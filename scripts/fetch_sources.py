#!/usr/bin/env python3
"""Gets the source packages of scripts/pypi_sources from the package manager pip, checks and unpacks them.

  fetch_sources.py [TARGET]     to TARGET/NAME-VERSION [build/sources]; nothing to do where they are already

What is listed there is the same bytes or nothing: pip compares the hash. Exits 1 where a package cannot be had.
"""
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def rows(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            name, version, sha256, *wanted = line.split()
            yield name, version, sha256, wanted


def safe_members(archive, top, wanted):
    """The wanted regular files, by the name that they get."""
    for member in archive.getmembers():
        parts = pathlib.PurePosixPath(member.name).parts
        if not member.isfile() or len(parts) < 2 or parts[0] != top or ".." in parts:
            continue
        inside = "/".join(parts[1:])
        if any(inside == want or inside.startswith(want + "/") for want in wanted):
            yield member, inside


def fetch(name, version, sha256, wanted, target):
    top = f"{name}-{version}"
    if (target / top).is_dir():
        return
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".fetch-") as work:
        work = pathlib.Path(work)
        (work / "requirements.txt").write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", name, "--require-hashes", "--dest", work, "-r", work / "requirements.txt"],
                       check=True, stdin=subprocess.DEVNULL)
        unpacked = work / "unpacked"
        with tarfile.open(work / f"{top}.tar.gz") as archive:
            for member, inside in safe_members(archive, top, wanted):
                path = unpacked / inside
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as source, open(path, "wb") as sink:
                    shutil.copyfileobj(source, sink)
        try:
            unpacked.rename(target / top)
        except OSError:  # somebody else was quicker
            if not (target / top).is_dir():
                raise


def main():
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "sources"
    failed = False
    for name, version, sha256, wanted in rows(ROOT / "scripts" / "pypi_sources"):
        try:
            fetch(name, version, sha256, wanted, target)
        except (subprocess.CalledProcessError, OSError, tarfile.TarError, KeyError) as error:
            print(f"fetch_sources: {name} {version}: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
