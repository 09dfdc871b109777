#!/usr/bin/env bash
# Installs what the tests of deliveries read objects back with, and the
# unmodified Firehose clients they are called by. Does nothing twice.
set -euo pipefail
cd "$(dirname "$0")"
python3 -c 'import snappy, pyarrow, boto3' 2>/dev/null ||
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore python-snappy==0.7.3 pyarrow boto3 ||
	python3 -m pip install --quiet --disable-pip-version-check --break-system-packages python-snappy==0.7.3 pyarrow boto3
command -v aws >/dev/null || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore awscli ||
	python3 -m pip install --quiet --disable-pip-version-check --break-system-packages awscli
if [ ! -x /usr/sbin/nginx ] && ! command -v nginx >/dev/null; then
	sudo=
	[ "$(id -u)" = 0 ] || sudo=sudo
	$sudo apt-get update -qq </dev/null
	# Only the program: no service is started.
	$sudo env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends nginx-light </dev/null
fi
for program in zstd gzip unzip node npm; do
	command -v "$program" >/dev/null || { echo "install.sh: $program is missing" >&2; exit 1; }
done
cache="${XDG_CACHE_HOME:-$HOME/.cache}/weir-test/firehose-js"
if [ ! -d "$cache/node_modules/@aws-sdk/client-firehose" ]; then
	mkdir -p "$cache"
	npm install --silent --no-audit --no-fund --prefix "$cache" @aws-sdk/client-firehose@3
fi
