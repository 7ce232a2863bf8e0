#!/usr/bin/env bash
# Installs what building needs and is missing; does nothing when all is there. Used by ./run and ./test.
# usage: tools/setup.sh [--tests] [--arm64]
#   --arm64  what cross-building for ARM64 and running the result needs (Debian 12 or newer): compiler and emulator are
#            installed, libraries of that architecture are put below build/arm64-libraries
# Asks before it installs if a person is there to answer: never when CI is set or stdin is no terminal.
# Exit: 0 all is there; 1 something is missing and was not installed (the command that does it is printed); 3 this is no
# system that --arm64 works on.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

want_tests=0 want_arm64=0
for arg in "$@"; do
  case $arg in
    --tests) want_tests=1 ;;
    --arm64) want_arm64=1 ;;
    *) echo "setup: unknown argument $arg; usage: tools/setup.sh [--tests] [--arm64]" >&2; exit 2 ;;
  esac
done

system=$(uname -s)
roots="/usr /usr/local /opt/homebrew ${CMAKE_PREFIX_PATH:-}"
roots=${roots//[:;]/ }

missing_apt="" missing_brew=""
# need APT_PACKAGE BREW_PACKAGE: "-" is no package of that system
need() {
  missing_apt="$missing_apt $1"
  [ "$2" = - ] || missing_brew="$missing_brew $2"
}
has_program() {
  local name
  for name in "$@"; do command -v "$name" > /dev/null 2>&1 && return 0; done
  return 1
}
has_header() {
  local root
  for root in $roots; do [ -e "$root/include/$1" ] && return 0; done
  return 1
}

has_compiler() {
  if [ "$system" = Darwin ]; then xcode-select -p > /dev/null 2>&1; else has_program "${CXX:-c++}" g++ clang++; fi
}
has_compiler || need g++ -
has_program cmake || need cmake cmake
has_program ninja || need ninja-build ninja
has_header fmt/core.h || need libfmt-dev fmt
has_header CLI/CLI.hpp || need libcli11-dev cli11
has_header pcre2.h || need libpcre2-dev pcre2
has_header nlohmann/json.hpp || need nlohmann-json3-dev nlohmann-json
if [ $want_tests = 1 ]; then
  has_header gtest/gtest.h || need libgtest-dev googletest
  [ "$system" = Darwin ] || has_header boost/context/detail/fcontext.hpp || need libboost-context-dev -
  has_program pkg-config || need pkg-config pkgconf
fi
if [ $want_arm64 = 1 ]; then
  if ! grep -qx 'ID=debian' /etc/os-release 2> /dev/null || [ "$(uname -m)" != x86_64 ]; then
    echo "setup: cross-building for ARM64 is set up on Debian on x86-64 only" >&2
    exit 3
  fi
  has_program aarch64-linux-gnu-g++ || need g++-aarch64-linux-gnu -
  has_program qemu-aarch64 || need qemu-user -
fi

if [ -n "$missing_apt" ]; then
  refuse() {  # prints why and what to do, and ends
    echo "setup: $1" >&2
    echo "    $2" >&2
    exit 1
  }
  may_ask=0
  [ -z "${CI:-}" ] && [ -t 0 ] && [ -t 2 ] && may_ask=1
  as_root=""

  if [ "$system" = Darwin ]; then
    has_compiler || refuse "no C++ compiler; install Apple's with" "xcode-select --install"
    command="brew install$missing_brew"
    has_program brew || refuse "Homebrew (https://brew.sh) is not here; with it," "$command"
  elif has_program apt-get; then
    options="-y --no-install-recommends"
    if [ "$(id -u)" != 0 ]; then as_root="sudo "; fi
    command="${as_root}apt-get update && ${as_root}apt-get install $options$missing_apt"
    if [ -n "$as_root" ]; then
      has_program sudo || refuse "missing:$missing_apt; neither root nor sudo is at hand. As root, run" "${command//sudo /}"
      [ $may_ask = 1 ] || sudo -n true 2> /dev/null || refuse "missing:$missing_apt; sudo wants a password. Run" "$command"
    fi
  else
    refuse "missing, by their Debian names:$missing_apt" "install what your system calls them, then run this again"
  fi

  if [ $may_ask = 1 ]; then
    printf 'setup: missing:%s\n    %s\nrun this now? [Y/n] ' "$missing_apt" "$command" >&2
    read -r answer
    case $answer in
      "" | y | Y | yes | Yes) ;;
      *) refuse "not installed. Run" "$command" ;;
    esac
  fi

  start=$SECONDS
  if [ "$system" = Darwin ]; then
    echo "setup: installing$missing_brew" >&2
    HOMEBREW_NO_AUTO_UPDATE=1 brew install --quiet $missing_brew >&2 || refuse "that failed; the command was" "$command"
  else
    echo "setup: installing$missing_apt" >&2
    apt() {  # quiet, but shows all when it fails
      local log
      log=$(mktemp) || return 1
      if ${as_root} env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" > "$log" 2>&1 < /dev/null; then
        rm -f "$log"
      else
        cat "$log" >&2
        rm -f "$log"
        return 1
      fi
    }
    apt update || echo "setup: apt-get update failed; trying with the lists at hand" >&2
    apt install $options $missing_apt || refuse "that failed; the command was" "$command"
  fi
  echo "setup: done in $((SECONDS - start)) s" >&2
fi

# ARM64 libraries: Debian's own packages, unpacked into a folder. apt gets state of its own for it, so that the system does
# not learn of a second architecture, and no root is needed.
if [ $want_arm64 = 1 ]; then
  libraries="libfmt-dev libfmt9 nlohmann-json3-dev libcli11-dev libpcre2-dev libpcre2-8-0 libgtest-dev"
  folder=$root/build/arm64-libraries
  if [ "$(cat "$folder/packages" 2> /dev/null)" != "$libraries" ]; then
    echo "setup: fetching for ARM64: $libraries" >&2
    rm -rf "$folder"
    mkdir -p "$folder/apt/lists/partial" "$folder/apt/cache/archives/partial" "$folder/apt/debs"
    arm64_apt() {
      apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root -o Dir::State::status=/dev/null \
        -o "Dir::State::Lists=$folder/apt/lists" -o "Dir::Cache=$folder/apt/cache" "$@"
    }
    unpack_arm64() {
      local package
      arm64_apt update && (cd "$folder/apt/debs" && arm64_apt download $libraries) || return 1
      for package in "$folder"/apt/debs/*.deb; do dpkg-deb -x "$package" "$folder" || return 1; done
    }
    if ! unpack_arm64 > "$folder/log" 2>&1 < /dev/null; then
      cat "$folder/log" >&2
      echo "setup: the ARM64 libraries could not be fetched" >&2
      exit 1
    fi
    rm -rf "$folder/apt"
    echo "$libraries" > "$folder/packages"
  fi
fi

# 3.25 is what Debian 12 has; the presets need it.
version=$(cmake --version 2> /dev/null)
version=${version#cmake version }
version=${version%%[!0-9.]*}
major=${version%%.*} minor=${version#*.}
minor=${minor%%.*}
if [ "${major:-0}" -lt 3 ] || { [ "$major" -eq 3 ] && [ "${minor:-0}" -lt 25 ]; }; then
  echo "setup: CMake 3.25 or newer is needed, this is ${version:-none}. A newer one:" >&2
  echo "    pip install cmake    (or https://cmake.org/download)" >&2
  exit 1
fi
