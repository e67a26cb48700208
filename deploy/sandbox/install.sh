#!/bin/sh
# Fills the sandbox image; runs once, as root, while the image is built. Arguments: Debian packages.
# Besides them come toolchains whose name or place differs between releases: Go, Rust and Java.
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C

# Nobody reads manuals in a sandbox; licences stay.
cat >/etc/dpkg/dpkg.cfg.d/millrace <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/gcc/python/*
END

apt() { apt-get -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"; }
known() { apt-cache show "$1" >/dev/null 2>&1; }

# The release's own Go is often too old to read a current go.mod, so backports are asked as well: the same
# archive as the base's, whichever that is.
. /etc/os-release
newer="$VERSION_CODENAME-backports"
extra=/etc/apt/sources.list.d/newer.list
sed -n "s/^\(deb .*\) $VERSION_CODENAME main.*/\1 $newer main/p" /etc/apt/sources.list 2>/dev/null >"$extra" || true
if [ ! -s "$extra" ]; then # the form that Debian's own container images use (deb822)
    awk -v suite="$newer" '
        /^URIs:/ && !uri { uri = $2 }
        /^Signed-By:/ && !key { key = " [signed-by=" $2 "]" }
        END { if (uri) print "deb" key, uri, suite, "main" }' \
        /etc/apt/sources.list.d/*.sources 2>/dev/null >"$extra" || true
fi
apt update || { rm -f "$extra" && apt update; }

go="golang-go golang-src"
for package in $go; do
    ! apt-cache policy "$package" | grep -q "$newer/main" || go_from="--target-release=$newer"
done
rust="rustc cargo"
! known cargo-web || rust="rustc-web cargo-web" # what browsers are built with is kept current

apt install --yes --no-install-recommends "$@" $rust default-jdk-headless maven
apt install --yes --no-install-recommends ${go_from:-} $go
ln -sf python3 /usr/bin/python

# What was installed, for people and for comparing two builds; then everything that differs between them.
mkdir -p /usr/share/millrace
dpkg-query --show --showformat='${Package} ${Version}\n' >/usr/share/millrace/packages
apt clean
rm -rf "$extra" /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/aux-cache /var/log/* \
    /var/cache/debconf/*-old /var/lib/dpkg/*-old /etc/machine-id /var/lib/dbus/machine-id
# What only building other systems or a JDK needs.
rm -rf /usr/lib/jvm/*/jmods /usr/share/go-*/test /usr/lib/python3*/config-*/*.a
find / -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
