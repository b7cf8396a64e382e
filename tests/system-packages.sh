#!/bin/sh
# Before the suite: what tests need beside Python. Installs what is missing where apt-get may; says which tests skip.

# A command or a header file, the Debian package it comes with, the tests that need it.
needs() {
    cat <<END
chromium chromium the browser's page
nginx nginx the server behind nginx
haproxy haproxy the server behind HAProxy
node nodejs Node, the browser's page
npm npm Node, the browser's page
g++ g++ the programs in C++
make make the programs in C++
cmake cmake the programs in C++
/usr/include/nlohmann/json.hpp nlohmann-json3-dev the programs in C++
redis-server redis-server the stores in Redis
promtool prometheus the alerts
faketime faketime the clocks that jump (make test-faults)
strace strace what SQLite writes through to the disk
/usr/include/zip.h libzip-dev the programs in C++
END
}

missing() {
    needs | while read -r probe package tests; do
        PATH=$PATH:/usr/sbin command -v "$probe" >/dev/null || [ -f "$probe" ] || echo "$package $tests"
    done
}

packages=$(missing | cut -d ' ' -f 1 | xargs)
if [ "$packages" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing $packages with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word a package
    apt-get update -qq && apt-get install -qq -y --no-install-recommends $packages >/dev/null
fi
missing | while read -r package tests; do
    echo "Without $package these tests skip: $tests"
done
