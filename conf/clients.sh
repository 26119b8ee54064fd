#!/bin/sh
# Puts a repository of repowatch on this host, whether it has dnf, yum or zypper. As root:
#
#   sh clients.sh https://rpm.example.org rpm
#
# The second word is the repository. Run it again as often as you like: a file is only replaced by a whole one.
set -eu

server=${1:?"usage: clients.sh URL REPOSITORY"}
name=${2:?"usage: clients.sh URL REPOSITORY"}
found=no

for directory in /etc/yum.repos.d /etc/zypp/repos.d; do
    [ -d "$directory" ] || continue
    found=yes
    # Not *.repo until it is whole.
    curl --fail --silent --show-error --output "$directory/.$name.new" "${server%/}/$name.repo"
    # zypper looks for news by itself only where this says so; the others do not know it.
    grep -q '^autorefresh=' "$directory/.$name.new" || echo autorefresh=1 >>"$directory/.$name.new"
    chmod 644 "$directory/.$name.new"
    mv "$directory/.$name.new" "$directory/$name.repo"
    echo "$directory/$name.repo"
done

if [ "$found" = no ]; then
    echo "clients.sh: neither /etc/yum.repos.d nor /etc/zypp/repos.d is there; is this a host with RPMs?" >&2
    exit 1
fi
