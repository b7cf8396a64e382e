#!/bin/sh
# Before the suite: the programs that tests run beside Python. Installs the missing ones where apt-get may; says what skips.

missing_tests() {
    while read -r command package tests; do
        command -v "$command" >/dev/null || echo "$package $tests"
    done <<END
chromium chromium tests/runtimes/test_browser.py
node nodejs tests/runtimes/test_node.py,tests/runtimes/test_browser.py
npm npm tests/runtimes/test_node.py,tests/runtimes/test_browser.py
g++ g++ tests/runtimes/test_cpp.py
cmake cmake tests/runtimes/test_cpp.py
END
}

packages=$(missing_tests | cut -d ' ' -f 1 | xargs)
if [ "$packages" ] && command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
    echo "Installing $packages with apt-get"
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086 # one word a package
    apt-get update -qq && apt-get install -qq -y --no-install-recommends $packages >/dev/null
fi
missing_tests | while read -r package tests; do
    echo "Without $package tests skip: $tests"
done
