#!/bin/bash
# The part of the public image's entrypoint that the project relies on: same variables, same first-run steps.
set -eo pipefail
if [ "$1" = postgres ] && [ ! -s "$PGDATA/PG_VERSION" ]; then
  POSTGRES_PASSWORD=${POSTGRES_PASSWORD:-$(cat "${POSTGRES_PASSWORD_FILE:?a password is needed}")}
  export POSTGRES_USER=${POSTGRES_USER:-postgres}
  initdb --username="$POSTGRES_USER" --pwfile=<(echo "$POSTGRES_PASSWORD") -D "$PGDATA" \
    -c unix_socket_directories=/var/run/postgresql -c listen_addresses='*'
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  pg_ctl -D "$PGDATA" -o "-c listen_addresses=''" -w start
  for file in /docker-entrypoint-initdb.d/*.sh; do
    [ ! -e "$file" ] || . "$file"
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
fi
exec "$@"
