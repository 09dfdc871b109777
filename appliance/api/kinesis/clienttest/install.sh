#!/bin/sh
# Installs what the tests of this package need beside Go: boto3, the AWS CLI, Node.js, a JDK
# and Maven from the system's packages, and the clients' libraries from their registries.
set -eu
cd "$(dirname "$0")"

missing=
have() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
[ -x /usr/bin/aws ] || missing="$missing awscli"
/usr/bin/python3 -c 'import boto3' 2>/dev/null || missing="$missing python3-boto3"
have node nodejs
have npm npm
have java openjdk-17-jdk-headless
have javac openjdk-17-jdk-headless
have mvn maven
if [ -n "$missing" ]; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  $sudo apt-get update -qq
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
fi

(cd testdata/js && npm ci --no-audit --no-fund --loglevel=error)
(cd testdata/java && mvn -q -B compile dependency:copy-dependencies -DoutputDirectory=target/lib)
(cd testdata/gosdk && go mod download && go mod download -modfile=yearold.mod)
