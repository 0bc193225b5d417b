"""requirements.lock pins what requirements.txt asks for and all that this needs, each by the hashes of its files."""

import re

import pytest

from handgrad.cli.configuration import CONF

REPOSITORY = CONF.parent
WANTED = [
    line.partition("#")[0].strip()
    for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
    if line.partition("#")[0].strip()
]
LOCK = (REPOSITORY / "requirements.lock").read_text()


@pytest.mark.parametrize("requirement", WANTED)
def test_the_lock_pins_what_is_asked_for(requirement):
    assert re.search(rf"^{re.escape(requirement)}( ;.*)? \\$", LOCK, re.MULTILINE), "`make lock` renews the lock"


def test_every_package_of_the_lock_has_a_version_and_hashes():
    packages = re.split(r"^(?=[a-z])", re.sub("^#.*\n", "", LOCK, flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(packages) > len(WANTED)
    for package in packages:
        first, *hashes = package.strip().split(" \\\n")
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+( ; .+)?", first), first
        assert hashes, first
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}", line) for line in hashes), first


def test_versions_that_do_harm_are_not_pinned():
    """2.6.2 and 2.6.3 of pytorch-lightning were compromised."""
    assert not re.search(r"^pytorch-lightning==2\.6\.[23]\b", LOCK, re.MULTILINE)
