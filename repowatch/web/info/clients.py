"""What gets a client on: the `.repo` file, the keys it names, and the shell script that puts it on a host."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

from repowatch.web.names import href_of
from repowatch.web.served import Served

_SCRIPT_NAME = "setup.sh"
_KEYS_NAME = "packages.key"

METADATA_EXPIRE = 60  # seconds: one request for a small file, as long as nothing changed

_LOG_IN = """\
# Reading needs a password, which is not in this file. dnf, yum: add username= and password=, and chmod 600.
# zypper: write the two into /etc/zypp/credentials.d/{id}, and ?credentials={id} behind the baseurl.
"""


def told(
    path: str, repositories: Sequence[Served], *, base_url: str, asks: Callable[[str], bool]
) -> str | None:
    """What stands at a path, in plain text; None where it is nothing of ours.

    It holds no secret, so anyone is told: who installs a machine may have no password yet. `asks`: whether
    the readers of a repository, by its name, have to log in.
    """
    for each in repositories:
        if path == f"/{each.name}.repo":
            return repo_file(each, base_url=base_url, must_log_in=asks(each.name)).rstrip("\n")
        if path == _below(each, _SCRIPT_NAME):
            return script(each, repo_text=repo_file(each, base_url=base_url, must_log_in=asks(each.name)))
        if path == _below(each, _KEYS_NAME) and (keys := each.package_keys()):
            return keys.decode("ascii", "replace").rstrip("\n")
    return None


def _below(repository: Served, file: str) -> str:
    """No name of a repository has a slash in it, so this is no other's page."""
    return f"/-/{repository.name}/{file}"


def repo_id(name: str) -> str:
    """The name as dnf takes it for a repository (libdnf's Repo::verifyId), and leaves it one.

    A section `main` is its own settings (dnf.conf(5)), and is no repository without a word.
    """
    plain = re.sub(r"[^A-Za-z0-9_.:-]", "_", name)
    return "main_" if plain == "main" else plain


def script_path(name: str) -> str:
    """Where the script is that puts a repository on a host, percent-encoded."""
    return href_of(f"/-/{name}/{_SCRIPT_NAME}")


def repo_file(repository: Served, *, base_url: str, must_log_in: bool = False) -> str:
    """A file for /etc/yum.repos.d (dnf.conf(5), yum.conf(5)) and for `zypper addrepo`.

    One file serves all: dnf takes `gpgcheck` for packages and `repo_gpgcheck` for metadata; zypper takes
    `gpgcheck` for either, unless `repo_gpgcheck` says what is meant (libzypp, RepoInfo), so both are always
    there. It looks for news by itself where `autorefresh` says so, which the others do not know.
    """
    name, path = repo_id(repository.name), repository.baseurl() or href_of(repository.url)
    keys = [f"{href_of(repository.url)}{href_of(each)}" for each in repository.metadata_keys()]
    is_signed, are_checked = bool(keys), bool(repository.package_keys())
    keys += [href_of(_below(repository, _KEYS_NAME))] if are_checked else []
    lines = [
        f"[{name}]",
        f"name={repository.name}",
        f"baseurl={base_url}{path}",
        "enabled=1",
        f"gpgcheck={are_checked:d}",
        f"repo_gpgcheck={is_signed:d}",
        *([f"gpgkey={' '.join(base_url + each for each in keys)}"] if keys else []),
        f"metadata_expire={METADATA_EXPIRE}",
        "autorefresh=1",
    ]
    hint = _LOG_IN.format(id=name) if must_log_in else ""
    return hint + "".join(f"{line}\n" for line in lines)


def script(repository: Served, *, repo_text: str) -> str:
    """A script for /bin/sh (POSIX) that writes the `.repo` file where dnf, yum or zypper look.

    `repo_text` is what `repo_file` gave; no line of it is the end of a here-document.
    """
    return (
        _SCRIPT.replace("@ID@", shlex.quote(repo_id(repository.name)))
        .replace("@REPO@", repo_text)
        .rstrip("\n")
    )


# All of it is one function that is called at the end: of a download that was cut off, nothing is run.
_SCRIPT = r"""#!/bin/sh
# Puts a repository of repowatch on a host that has dnf, yum or zypper. Run it again as often as you like.
# As root, for this host or for a system below a directory:
#
#   curl -fsS URL-OF-THIS | sh
#   curl -fsS URL-OF-THIS | sh -s -- /mnt/sysimage
#
# It writes one file, and imports no key: the first install asks.
set -eu

id=@ID@

repo_file() {
    cat <<'END-OF-REPO-FILE'
@REPO@END-OF-REPO-FILE
}

has() {
    for tool in "$@"; do
        if [ -x "$root/usr/bin/$tool" ] || [ -x "$root/usr/local/bin/$tool" ]; then return 0; fi
    done
    return 1
}

# The file is whole or the old one, and no *.repo before it is. What this host added for itself stays.
put() {
    directory=$1
    target=$directory/$id.repo
    mkdir -p "$directory" 2>/dev/null || true
    if [ ! -w "$directory" ]; then
        echo "setup.sh: $directory can not be written; run this as root" >&2
        exit 1
    fi
    new=$directory/.$id.new.$$
    trap 'rm -f "$new"' EXIT
    if [ -f "$target" ]; then cp -p "$target" "$new"; else (umask 022 && : >"$new"); fi
    {
        repo_file
        if [ -f "$target" ]; then
            grep -E '^(username|password|proxy|proxy_username|proxy_password|ssl[a-z]+) *=' "$target" || true
        fi
    } >"$new"
    if [ -f "$target" ] && cmp -s "$new" "$target"; then
        rm -f "$new"
        echo "$target is up to date"
    else
        mv -f "$new" "$target"
        echo "$target is written"
    fi
    trap - EXIT
}

main() {
    root=${1:-}
    root=${root%/}
    found=no
    if has dnf dnf5 microdnf yum; then
        put "$root/etc/yum.repos.d"
        found=yes
    fi
    if has zypper; then
        put "$root/etc/zypp/repos.d"
        found=yes
    fi
    if [ "$found" = no ]; then
        echo "setup.sh: there is no dnf, yum or zypper in $root/usr/bin; nothing was done" >&2
        exit 1
    fi
}

main "$@"
"""
