"""`python -m tools.image_test`: build every image of deploy/Dockerfile and run what it holds.

This needs root, Linux, `buildah` and `debootstrap` (`make image-test-deps`), and no container registry:
the base image is made of the distribution's own packages. Buildah isolates each step with chroot, so it
works inside a container, too. Downloads take gigabytes, so no test of the suite calls this.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3,python3-pip,python-is-python3"
BASE = "localhost/cliptide-image-test-base"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
USER_ID = "10001"
WRITABLE = (
    'test -w "$CLIPTIDE_INDEX__ROOT" && echo -n "index " && test -w "$HF_HOME" && echo -n "weights " '
    "&& ! test -w /opt/cliptide"
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_TARGET = re.compile(r"^FROM (\S+) AS (\S+)$", re.MULTILINE)
_COMMAND = re.compile(r'^CMD \["python", "-m", "([\w.]+)"\]$', re.MULTILINE)


class ImageTestFailed(Exception):
    """An image is not what it must be. The message names the target."""


@dataclass(frozen=True, slots=True)
class Target:
    """A stage of the Dockerfile that runs something: its name and the module that it runs."""

    name: str
    module: str


def targets_of(dockerfile: str) -> list[Target]:
    """Return the stages that have a command, in the order of the file."""
    starts = list(_TARGET.finditer(dockerfile))
    ends = [start.start() for start in starts[1:]] + [len(dockerfile)]
    found = []
    for start, end in zip(starts, ends, strict=True):
        if command := _COMMAND.search(dockerfile, start.end(), end):
            found.append(Target(start[2], command[1]))
    return found


def mirror() -> str:
    """Return the package mirror that this machine uses, so that the test asks no other."""
    for path in sorted(Path("/etc/apt").glob("sources.list*/**/*.sources")):
        if found := re.search(r"^URIs: (\S+/debian)/?$", path.read_text(), re.MULTILINE):
            return found[1]
    return DEFAULT_MIRROR


@dataclass(frozen=True, slots=True)
class Buildah:
    """Buildah with a store of its own, which ends with the test."""

    store: Path

    def run(self, *arguments: str | Path) -> str:
        """Run buildah, and return what it prints. Its progress goes to stderr."""
        where = ["--root", str(self.store / "layers"), "--runroot", str(self.store / "run")]
        command = ["buildah", *where, *map(str, arguments)]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.strip()

    @contextmanager
    def container(self, image: str) -> Iterator[str]:
        name = self.run("from", "--pull-never", image)
        try:
            yield name
        finally:
            self.run("rm", name)

    def inside(self, container: str, *command: str) -> str:
        return self.run("run", "--isolation", "chroot", container, "--", *command)


def build_base(buildah: Buildah, folder: Path) -> None:
    """Make the base image: a minimal Debian whose Python and pip behave as those of the official image."""
    tree = folder / "base"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), mirror()],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for marker in tree.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
        marker.unlink()
    shutil.copy(_CERTIFICATES, tree / _CERTIFICATES[1:])
    name = buildah.run("from", "scratch")
    buildah.run("add", "--quiet", name, tree, "/")
    buildah.run("config", "--env", f"PIP_CERT={_CERTIFICATES}", name)
    buildah.run("commit", "--quiet", "--rm", name, BASE)
    shutil.rmtree(tree)


def build_target(buildah: Buildah, target: Target) -> str:
    image = f"localhost/cliptide-image-test-{target.name.replace('_', '-')}"
    options = [
        "--isolation",
        "chroot",
        "--layers",
        "--pull-never",
        "--quiet",
        "--build-arg",
        f"PYTHON={BASE}",
    ]
    buildah.run("bud", *options, "--file", DOCKERFILE, "--target", target.name, "--tag", image, ROOT)
    return image


def check_image(buildah: Buildah, target: Target, image: str) -> None:
    """Run the image's program as its user, and look at what the user may write."""
    with buildah.container(image) as container:

        def expect(what: str, wanted: str, *command: str) -> None:
            found = buildah.inside(container, *command)
            if not found.lower().startswith(wanted):
                raise ImageTestFailed(f"{target.name}: {what}: found {found[:200]!r}, not {wanted!r}")

        expect("the user", USER_ID, "id", "-u")
        expect("--help", "usage: ", "python", "-m", target.module, "--help")
        expect("cliptide --version", "cliptide", "cliptide", "--version")
        expect("what the user may write", "index weights", "sh", "-c", WRITABLE)


def main(arguments: Sequence[str]) -> int:
    """Build the named targets, or all. Return 1 if an image is not what it must be."""
    dockerfile = DOCKERFILE.read_text()
    targets = [target for target in targets_of(dockerfile) if not arguments or target.name in arguments]
    with tempfile.TemporaryDirectory(prefix="cliptide-image-", dir="/var/tmp") as name:
        buildah = Buildah(Path(name))
        began = time.monotonic()
        build_base(buildah, Path(name))
        _say(f"base: made in {time.monotonic() - began:.0f} s")
        for target in targets:
            began = time.monotonic()
            try:
                check_image(buildah, target, build_target(buildah, target))
            except (ImageTestFailed, subprocess.CalledProcessError) as error:
                _say(f"{target.name}: failed: {error}")
                return 1
            _say(f"{target.name}: built, and runs as user {USER_ID}, in {time.monotonic() - began:.0f} s")
        buildah.run("rmi", "--all", "--force")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
