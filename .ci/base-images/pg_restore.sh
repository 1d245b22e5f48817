#!/bin/sh
# `pg_restore -U USER -d DATABASE --exit-on-error` as version 16 does it: Debian's 17 sets what a server of 16 doesn't know.
set -e
while getopts U:d:-: option; do
  case $option in
    U) user=$OPTARG ;;
    d) database=$OPTARG ;;
    -) [ "$OPTARG" = exit-on-error ] ;;
    *) exit 2 ;;
  esac
done
pg_restore-17 --file=- | grep -v '^SET transaction_timeout' | psql -Xq -U "$user" -d "$database" -v ON_ERROR_STOP=1 >/dev/null
