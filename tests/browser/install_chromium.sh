#!/bin/sh
# Install Debian's Chromium for the browser tests, unless a Chromium is already here.
set -e
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        echo "browser tests: using $(command -v "$name")"
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
        chromium fonts-dejavu-core fonts-noto-core fonts-noto-color-emoji
    exit 0
fi
echo "browser tests: no Chromium found, and it can only be installed by root with apt-get." >&2
echo "Install it (Debian, Ubuntu: sudo apt-get install chromium), or set VLM_NB_CHROMIUM to its path." >&2
exit 1
